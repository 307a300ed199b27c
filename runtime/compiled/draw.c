/* Weights from the generator pcg4d-boxmuller-2, as docs/generator.md defines it: the twin of the function murho.Normals.

   Plain loops that compilers turn into vector code. Every element is computed the same way wherever it stands, and AVX2
   is used without fused multiplications: on x86 the bits depend neither on the CPU nor on how draws are split. */

#include "draw.h"
#include "vectors.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 128, LANES = 4 }; /* elements of a lane at once; lanes of the generator */

INLINE uint32_t scrambled(uint32_t v) { return v * 1664525u + 1013904223u; }

INLINE uint32_t folded(uint32_t v) { return v ^ v >> 16; }

/* lowbias32 */
INLINE uint32_t mixed(uint32_t v) {
    v = folded(v) * 0x7feb352du;
    v = (v ^ v >> 15) * 0x846ca68bu;
    return folded(v);
}

/* SplitMix64's first number from this state. */
INLINE uint64_t splitmix64(uint64_t v) {
    v += 0x9e3779b97f4a7c15u;
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
    v = (v ^ v >> 27) * 0x94d049bb133111ebu;
    return v ^ v >> 31;
}

INLINE float uniform(uint32_t v) { return (float)(int32_t)(v >> 8) * 0x1p-24f + 0x1p-25f; }

/* sqrt(-2 ln u): u = 2^e m with m from sqrt(1/2) to sqrt(2), and ln m = 2 artanh((m - 1) / (m + 1)) as a series. */
INLINE float radius(float u) {
    const uint32_t root_half = 0x3f3504f3; /* the bits of sqrt(1/2) */
    uint32_t bits;
    memcpy(&bits, &u, sizeof bits);
    bits -= root_half;
    int32_t e = (int32_t)bits >> 23;
    bits = (bits & 0x7fffff) + root_half;
    float m;
    memcpy(&m, &bits, sizeof m);
    float s = (m - 1) / (m + 1), q = s * s;
    float series = q * (1.0f / 3 + q * (1.0f / 5 + q * (1.0f / 7 + q * (1.0f / 9))));
    return sqrtf(-2 * (2 * s + 2 * s * series + (float)e * 0.69314718f));
}

/* cos 2πu and sin 2πu: u is k quarter turns and an angle a from -π/4 to π/4, for which Taylor's series are short. */
INLINE void turned(float u, float *cosine, float *sine) {
    int32_t k = (int32_t)(4 * u + 0.5f);
    float a = (4 * u - (float)k) * 1.57079633f, q = a * a;
    float s = a + a * q * (-1.0f / 6 + q * (1.0f / 120 + q * (-1.0f / 5040 + q * (1.0f / 362880))));
    float c = 1 + q * (-1.0f / 2 + q * (1.0f / 24 + q * (-1.0f / 720 + q * (1.0f / 40320))));
    float across = k & 1 ? s : c, along = k & 1 ? c : s;
    *cosine = (k + 1) & 2 ? -across : across;
    *sine = k & 2 ? -along : along;
}

/* Normals of WIDTH elements from `first` on, of all lanes; y, z, w are the draw and the key, mixed. */
INLINE void normals(uint32_t first, uint32_t y0, uint32_t z0, uint32_t w0, float out[LANES][WIDTH]) {
    for (int i = 0; i < WIDTH; i++) {
        uint32_t x = folded(scrambled(first + (uint32_t)i)), y = y0, z = z0, w = w0;
        x += y * w; y += z * x; z += x * y; w += y * z;
        x = folded(x); y = folded(y); z = folded(z); w = folded(w);
        x += y * w; y += z * x; z += x * y; w += y * z;
        float near = radius(uniform(x)), far = radius(uniform(z)), cosine, sine;
        turned(uniform(y), &cosine, &sine);
        out[0][i] = near * cosine;
        out[1][i] = near * sine;
        turned(uniform(w), &cosine, &sine);
        out[2][i] = far * cosine;
        out[3][i] = far * sine;
    }
}

static void normals_of_any_cpu(uint32_t first, uint32_t y, uint32_t z, uint32_t w, float out[LANES][WIDTH]) {
    normals(first, y, z, w, out);
}

AVX2 static void normals_avx2(uint32_t first, uint32_t y, uint32_t z, uint32_t w, float out[LANES][WIDTH]) {
    normals(first, y, z, w, out);
}

void murho_draw(const int64_t *draws, size_t count, uint64_t seed, uint32_t stream, const float *mu, const float *sigma,
                size_t n, float *out) {
    void (*fill)(uint32_t, uint32_t, uint32_t, uint32_t, float[LANES][WIDTH]) =
        HAS_AVX2 ? normals_avx2 : normals_of_any_cpu;
    const size_t quarter = (n + LANES - 1) / LANES;
    const uint64_t key = splitmix64(seed ^ (uint64_t)stream << 32);
    const uint32_t z = (uint32_t)(key >> 32), w = (uint32_t)key;
    float noise[LANES][WIDTH];
    for (size_t draw = 0; draw < count; draw++) {
        const uint32_t y = mixed(scrambled((uint32_t)draws[draw]));
        float *row = out + draw * n;
        for (size_t first = 0; first < quarter; first += WIDTH) {
            fill((uint32_t)first, y, z, w, noise);
            const size_t last = first + WIDTH < quarter ? first + WIDTH : quarter;
            for (size_t lane = 0; lane < LANES; lane++) {
                const size_t begin = lane * quarter + first, end = lane * quarter + last;
                for (size_t e = begin; e < (end < n ? end : n); e++)
                    row[e] = mu[e] + sigma[e] * noise[lane][e - begin];
            }
        }
    }
}
