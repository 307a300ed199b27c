/* The LSTM of small layers: LANES draws at a time, one in each lane of a vector, with all that they need in a core's
   caches. A draw is computed the same way in every lane, so its bits do not depend on how draws are split.

   The vectors are GCC's and Clang's extension of C. */

#include "lstm.h"
#include "vectors.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Fused multiplications are welcome here: the weights, whose bits are promised, are drawn elsewhere. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT ON
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=fast")
#endif

enum { LANES = 8, GATES = 4 };

typedef float vector __attribute__((vector_size(LANES * sizeof(float))));

/* e^x - 1 within a few ULP of itself: x is k ln 2 + r, with Taylor's series for r. Beyond ±87 it is that of ±87.
   Without branches, which would keep compilers from making vector code. */
INLINE float expm1_of(float x) {
    const float size = fabsf(x), rounder = 12582912; /* 1.5 2^23: its last bit is 1, so a sum with it is rounded */
    x = copysignf(size > 87 ? 87 : size, x); /* what is no number stays none */
    const float shifted = x * 1.44269504f + rounder, k = shifted - rounder;
    const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f; /* ln 2 in two parts: the first product is exact */
    const float p = 1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)));
    const float series = r + r * r * (1.0f / 2 + r * (1.0f / 6 + r * p));
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23; /* 2^k: of the rounder's own bits none is left */
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return scale * series + (scale - 1);
}

struct room {
    vector *weight;        /* [H, K, GATES], K = F + H + 1 */
    vector *column, *next; /* [K]: x, h, 1 */
    vector *gates;         /* [GATES, H] */
    vector *c;             /* [H] */
};

/* gates [GATES, H] = weight [H, K, GATES] column [K] */
INLINE void multiply(const vector *restrict weight, const vector *restrict column, vector *restrict gates, size_t K,
                     size_t H) {
    for (size_t unit = 0; unit < H; unit++) {
        vector i = {0}, f = {0}, g = {0}, o = {0};
        for (size_t k = 0; k < K; k++, weight += GATES) {
            const vector v = column[k];
            i += weight[0] * v;
            f += weight[1] * v;
            g += weight[2] * v;
            o += weight[3] * v;
        }
        gates[unit] = i;
        gates[H + unit] = f;
        gates[2 * H + unit] = g;
        gates[3 * H + unit] = o;
    }
}

INLINE float sigmoid(float x) { return 1 / (2 + expm1_of(-x)); }

INLINE float tanh_of(float x) {
    const float e = expm1_of(2 * x);
    return e / (2 + e);
}

/* c = sigmoid(f) c + sigmoid(i) tanh(g) and h = sigmoid(o) tanh(c), all [count]. */
INLINE void update(const float *restrict gates, float *restrict c, float *restrict h, size_t count) {
    const float *i = gates, *f = i + count, *g = f + count, *o = g + count;
    for (size_t j = 0; j < count; j++) {
        c[j] = sigmoid(f[j]) * c[j] + sigmoid(i[j]) * tanh_of(g[j]);
        h[j] = sigmoid(o[j]) * tanh_of(c[j]);
    }
}

INLINE void evaluate(const struct lstm *work, const struct room *room) {
    const size_t H = work->hidden, F = work->inputs, K = F + H + 1, B = work->rows, T = work->steps;
    for (size_t first = 0; first < work->draws; first += LANES) {
        size_t draws[LANES]; /* past the end the last one again */
        for (size_t lane = 0; lane < LANES; lane++)
            draws[lane] = first + lane < work->draws ? first + lane : work->draws - 1;
        for (size_t lane = 0; lane < LANES; lane++) {
            const float *source = work->weight + draws[lane] * GATES * H * K;
            for (size_t gate = 0; gate < GATES; gate++)
                for (size_t unit = 0; unit < H; unit++, source += work->next_gate) {
                    float *target = (float *)(room->weight + unit * K * GATES + gate) + lane;
                    for (size_t k = 0; k < K; k++) target[k * GATES * LANES] = source[k * work->next_input];
                }
        }
        for (size_t row = 0; row < B; row++) {
            vector *column = room->column, *next = room->next;
            for (size_t lane = 0; lane < LANES; lane++) {
                column[K - 1][lane] = next[K - 1][lane] = 1;
                for (size_t j = 0; j < H; j++) {
                    const size_t place = draws[lane] * work->state_draw + row * H + j;
                    column[F + j][lane] = work->h[place];
                    room->c[j][lane] = work->c[place];
                }
            }
            for (size_t step = 0; step < T; step++) {
                for (size_t k = 0; k < F; k++)
                    for (size_t lane = 0; lane < LANES; lane++)
                        column[k][lane] = work->x[draws[lane] * work->x_draw + (row * T + step) * F + k];
                multiply(room->weight, column, room->gates, K, H);
                update((float *)room->gates, (float *)room->c, (float *)(next + F), H * LANES);
                vector *old = column;
                column = next;
                next = old;
                if (work->sequence)
                    for (size_t lane = 0; lane < LANES && first + lane < work->draws; lane++)
                        for (size_t j = 0; j < H; j++)
                            work->sequence[(((first + lane) * B + row) * T + step) * H + j] = column[F + j][lane];
            }
            for (size_t lane = 0; lane < LANES && first + lane < work->draws; lane++)
                for (size_t j = 0; j < H; j++) {
                    work->h_last[((first + lane) * B + row) * H + j] = column[F + j][lane];
                    work->c_last[((first + lane) * B + row) * H + j] = room->c[j][lane];
                }
        }
    }
}

static void evaluate_on_any_cpu(const struct lstm *work, const struct room *room) { evaluate(work, room); }

AVX2_FMA static void evaluate_avx2(const struct lstm *work, const struct room *room) { evaluate(work, room); }

int murho_lstm(const struct lstm *work) {
    const size_t H = work->hidden, K = work->inputs + H + 1;
    const size_t most = SIZE_MAX / sizeof(vector) / (4 * GATES); /* so that no sum of the room's parts is beyond a size */
    if (K > most || H > most / K) return -1;
    vector *memory = aligned_alloc(sizeof(vector), (H * K * GATES + 2 * K + H * GATES + H) * sizeof(vector));
    if (!memory) return -1;
    struct room room = {.weight = memory, .column = memory + H * K * GATES};
    room.next = room.column + K;
    room.gates = room.next + K;
    room.c = room.gates + H * GATES;
    (HAS_AVX2_FMA ? evaluate_avx2 : evaluate_on_any_cpu)(work, &room);
    free(memory);
    return 0;
}
