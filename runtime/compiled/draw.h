#ifndef MURHO_DRAW_H
#define MURHO_DRAW_H

#include <stddef.h>
#include <stdint.h>

/* Fill out [count, n] with the weights of draws [count] at a site, the stream: mu [n] + sigma [n] times noise. */
void murho_draw(const int64_t *draws, size_t count, uint64_t seed, uint32_t stream, const float *mu, const float *sigma,
                size_t n, float *out);

#endif
