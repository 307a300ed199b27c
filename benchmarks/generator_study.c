/* Tests of the generator's numbers; generator_study.py compiles this and says what it finds.

   The code of draw.c itself is included. With -DFIRST the words are those of the first generator, pcg4d-boxmuller-1. With
   -DTESTU01 it can run a battery of TestU01 (L'Ecuyer & Simard, 2007) on the 24 bits of each word that are used. */

#include "draw.c"

#include <stdio.h>
#include <stdlib.h>

enum { BLOCK = 256, BINS = 16, COUNTERS = 4, CELLS = 19683, WITHIN = 531441 };

/* The words of element c[0], draw c[1], and the upper and lower halves of seed xor stream * 2^32. */
INLINE void words(const uint32_t c[COUNTERS], uint32_t out[LANES]) {
    uint32_t x = scrambled(c[0]), y = scrambled(c[1]), z, w;
#ifdef FIRST
    z = scrambled(c[2]);
    w = scrambled(c[3]);
#else
    const uint64_t key = splitmix64((uint64_t)c[2] << 32 | c[3]);
    x = folded(x), y = mixed(y), z = (uint32_t)(key >> 32), w = (uint32_t)key;
#endif
    x += y * w; y += z * x; z += x * y; w += y * z;
    x = folded(x), y = folded(y), z = folded(z), w = folded(w);
    x += y * w; y += z * x; z += x * y; w += y * z;
    out[0] = x, out[1] = y, out[2] = z, out[3] = w;
}

/* The i-th counters of an order. */
static const char *const ORDERS[] = {"elements", "draws", "seeds", "streams", "a layer of 13 words, draw by draw",
    "noise and site 0 in turn", "draws 2^31 apart in turn", "seeds 2^31 apart in turn", "draws, bits reversed",
    "seeds, bits reversed", "streams, bits reversed", "elements, bits reversed"};
enum { ORDER_COUNT = sizeof ORDERS / sizeof *ORDERS };

INLINE uint32_t reversed(uint32_t v) {
    uint32_t r = 0;
    for (int k = 0; k < 32; k++) r |= (v >> k & 1) << (31 - k);
    return r;
}

INLINE void counters(int order, uint64_t i, uint32_t c[COUNTERS]) {
    const uint32_t low = (uint32_t)i, high = (uint32_t)(i >> 32), half = (uint32_t)(i >> 1), turn = (low & 1) << 31;
    c[0] = high, c[1] = 0, c[2] = 3, c[3] = 42;
    switch (order) {
    case 0: c[0] = low, c[1] = high; break;
    case 1: c[1] = low; break;
    case 2: c[3] = low; break;
    case 3: c[2] = low; break;
    case 4: c[0] = (uint32_t)(i % 13), c[1] = (uint32_t)(i / 13); break;
    case 5: c[2] = turn, c[1] = half; break;
    case 6: c[1] = half ^ turn; break;
    case 7: c[3] = half ^ turn; break;
    case 8: c[1] = reversed(low); break;
    case 9: c[3] = reversed(low); break;
    case 10: c[2] = reversed(low); break;
    default: c[0] = reversed(low), c[1] = high;
    }
}

static uint64_t state;

static uint64_t randomly(void) { return splitmix64(state += 0x9e3779b97f4a7c15u); } /* for counters, not under test */

static double below(double z) { return 0.5 * erfc(-z / sqrt(2)); }

static void four(const uint32_t v[LANES], float z[LANES]) {
    const float near = radius(uniform(v[0])), far = radius(uniform(v[2]));
    float cosine, sine;
    turned(uniform(v[1]), &cosine, &sine);
    z[0] = near * cosine, z[1] = near * sine;
    turned(uniform(v[3]), &cosine, &sine);
    z[2] = far * cosine, z[3] = far * sine;
}

static int bin(float z) {
    int k = (int)(z * 128 + 512);
    return k < 0 ? 0 : k > 1023 ? 1023 : k;
}

/* For each of 128 bits, pairs of counters that differ in it alone: correlations of the normals and of their squares, a
   table of 16 x 16 bins, flips of each of the 96 used bits, all in standard errors; and equal words. */
static void single_bits(long pairs, int small) {
    static unsigned char place[1024], bins[2][LANES][BLOCK];
    static uint32_t table[16][BINS][BINS], flips[LANES][32], v[2][LANES][BLOCK];
    static float z[2][LANES][BLOCK];
    double chance[BINS] = {0};
    for (int k = 0; k < 1024; k++) {
        const double low = k ? (k - 512) / 128.0 : -99, high = k < 1023 ? (k - 511) / 128.0 : 99;
        place[k] = (unsigned char)fmin(BINS - 1, floor(BINS * below((k - 511.5) / 128)));
        chance[place[k]] += below(high) - below(low);
    }
    for (int bit = 0; bit < 128; bit++) {
        double product[16] = {0}, square[16] = {0}, worst[4] = {0};
        long equal = 0;
        state = (uint64_t)bit;
        memset(table, 0, sizeof table);
        memset(flips, 0, sizeof flips);
        for (long done = 0; done < pairs; done += BLOCK) {
            for (int i = 0; i < BLOCK; i++) {
                const uint64_t a = randomly(), b = randomly();
                uint32_t c[COUNTERS] = {(uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b, (uint32_t)(b >> 32)};
                if (small) c[0] %= 1024, c[1] %= 4096, c[2] %= 32, c[3] %= 256;
                for (int side = 0; side < 2; side++) {
                    uint32_t found[LANES];
                    float normal[LANES];
                    words(c, found);
                    four(found, normal);
                    for (int k = 0; k < LANES; k++) v[side][k][i] = found[k], z[side][k][i] = normal[k];
                    c[bit / 32] ^= 1u << bit % 32;
                }
            }
            for (int side = 0; side < 2; side++)
                for (int k = 0; k < LANES; k++)
                    for (int i = 0; i < BLOCK; i++) bins[side][k][i] = place[bin(z[side][k][i])];
            for (int k = 0; k < LANES; k++) {
                for (int i = 0; i < BLOCK; i++) equal += v[0][k][i] >> 8 == v[1][k][i] >> 8;
                for (int b = 8; b < 32; b++)
                    for (int i = 0; i < BLOCK; i++) flips[k][b] += (v[0][k][i] ^ v[1][k][i]) >> b & 1;
                for (int m = 0; m < LANES; m++)
                    for (int i = 0; i < BLOCK; i++) {
                        const float p = z[0][k][i], q = z[1][m][i];
                        product[4 * k + m] += p * q;
                        square[4 * k + m] += (p * p - 1) * (q * q - 1) / 2;
                        table[4 * k + m][bins[0][k][i]][bins[1][m][i]]++;
                    }
            }
        }
        for (int k = 0; k < 16; k++) {
            double chi = 0;
            for (int a = 0; a < BINS; a++)
                for (int b = 0; b < BINS; b++) {
                    const double mean = pairs * chance[a] * chance[b];
                    chi += (table[k][a][b] - mean) * (table[k][a][b] - mean) / mean;
                }
            worst[0] = fmax(worst[0], fabs(product[k]) / sqrt(pairs));
            worst[1] = fmax(worst[1], fabs(square[k]) / sqrt(pairs));
            worst[2] = fmax(worst[2], (chi - 255) / sqrt(510));
        }
        for (int k = 0; k < LANES; k++)
            for (int b = 8; b < 32; b++) worst[3] = fmax(worst[3], fabs(flips[k][b] - pairs / 2.0) / sqrt(pairs / 4.0));
        printf("%d %.3f %.3f %.3f %.3f %ld\n", bit, worst[0], worst[1], worst[2], worst[3], equal);
    }
}

static double probability(int cell, int length, const double *each) {
    double p = 1;
    for (; length; length--, cell /= 3) p *= each[cell % 3];
    return p;
}

/* How far the counts of 9 classes in a row are from chance, in standard errors: the chi-squared of 9 less that of 8, which
   are independent although the windows overlap (Good, 1953). */
static double in_a_row(const uint64_t *counts, double n, const double *each) {
    static double shorter[CELLS / 3];
    double chi = 0, less = 0;
    memset(shorter, 0, sizeof shorter);
    for (int k = 0; k < CELLS; k++) {
        const double mean = n * probability(k, 9, each);
        chi += (counts[k] - mean) * (counts[k] - mean) / mean;
        shorter[k % (CELLS / 3)] += counts[k];
    }
    for (int k = 0; k < CELLS / 3; k++) {
        const double mean = n * probability(k, 8, each);
        less += (shorter[k] - mean) * (shorter[k] - mean) / mean;
    }
    return (chi - less - CELLS * 2 / 3) / sqrt(CELLS * 4 / 3);
}

/* Hamming weights of the bytes of the used bits, few, four or many: 9 in a row of each of 12 places, and all 12 of a hash. */
static void weights(int order, uint64_t count) {
    static uint64_t rows[12][CELLS], within[WITHIN];
    static unsigned char class[256];
    const double each[3] = {93 / 256.0, 70 / 256.0, 93 / 256.0};
    uint32_t last[12] = {0};
    double worst = 0, chi = 0;
    for (int k = 0; k < 256; k++) {
        int ones = 0;
        for (int b = 0; b < 8; b++) ones += k >> b & 1;
        class[k] = ones < 4 ? 0 : ones == 4 ? 1 : 2;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint32_t c[COUNTERS], v[LANES], all = 0;
        counters(order, i, c);
        words(c, v);
        for (int k = 0; k < 12; k++) {
            const uint32_t found = class[v[k / 3] >> (8 + 8 * (k % 3)) & 255];
            last[k] = (last[k] * 3 + found) % CELLS;
            rows[k][last[k]]++;
            all = all * 3 + found;
        }
        within[all]++;
    }
    for (int k = 0; k < 12; k++) {
        const double z = in_a_row(rows[k], (double)count, each);
        if (fabs(z) > fabs(worst)) worst = z;
    }
    for (int k = 0; k < WITHIN; k++) {
        const double mean = count * probability(k, 12, each);
        chi += (within[k] - mean) * (within[k] - mean) / mean;
    }
    printf("%.2f %.2f\n", worst, (chi - (WITHIN - 1)) / sqrt(2.0 * (WITHIN - 1)));
}

/* Normals as a layer of 4096 weights has them: their moments, counts in 4096 bins of one width, those beyond some limits. */
static void normal(uint64_t count) {
    enum { WIDE = 4096 };
    static uint64_t seen[WIDE];
    const double limits[] = {3, 4, 5, 5.5};
    double moment[5] = {0}, largest = 0;
    uint64_t beyond[4] = {0};
    float z[LANES][WIDTH];
    for (uint64_t block = 0; block < count / (LANES * WIDTH); block++) {
        const uint64_t key = splitmix64(42);
        const uint32_t y = mixed(scrambled((uint32_t)(block / 8)));
        normals((uint32_t)(block % 8 * WIDTH), y, (uint32_t)(key >> 32), (uint32_t)key, z);
        double sum[5] = {0};
        for (int k = 0; k < LANES; k++)
            for (int i = 0; i < WIDTH; i++) {
                const double v = z[k][i], q = v * v;
                sum[1] += v, sum[2] += q, sum[3] += q * v, sum[4] += q * q;
                int place = (int)((v + 6) * (WIDE / 12.0));
                seen[place]++;
                if (q > 9) {
                    for (int m = 0; m < 4; m++) beyond[m] += q > limits[m] * limits[m];
                    if (q > largest) largest = q;
                }
            }
        for (int k = 1; k < 5; k++) moment[k] += sum[k];
    }
    const double n = (double)(count / (LANES * WIDTH) * LANES * WIDTH);
    double chi = 0;
    int cells = 0;
    for (int k = 0; k < WIDE; k++) {
        const double mean = n * (below((k + 1) * 12.0 / WIDE - 6) - below(k * 12.0 / WIDE - 6));
        if (mean > 100) chi += (seen[k] - mean) * (seen[k] - mean) / mean, cells++;
    }
    printf("%.0f %.9g %.9g %.9g %.9g %.4f %d %llu %llu %llu %llu %.4f\n", n, moment[1] / n, moment[2] / n, moment[3] / n,
           moment[4] / n, (chi - cells) / sqrt(2.0 * cells), cells, (unsigned long long)beyond[0],
           (unsigned long long)beyond[1], (unsigned long long)beyond[2], (unsigned long long)beyond[3], sqrt(largest));
}

#ifdef TESTU01
#include <testu01/bbattery.h>
#include <testu01/swrite.h>
#include <testu01/unif01.h>

static int tested;
static uint64_t hashes;
static uint32_t packed[3];
static int used = 3;

static unsigned int next(void) {
    if (used == 3) {
        uint32_t c[COUNTERS], v[LANES];
        counters(tested, hashes++, c);
        words(c, v);
        for (int k = 0; k < LANES; k++) v[k] >>= 8;
        packed[0] = v[0] | v[1] << 24, packed[1] = v[1] >> 8 | v[2] << 16, packed[2] = v[2] >> 16 | v[3] << 8;
        used = 0;
    }
    return packed[used++];
}

static void battery(int order) {
    char name[] = "murho";
    tested = order;
    swrite_Basic = FALSE;
    bbattery_SmallCrush(unif01_CreateExternGenBits(name, next));
    int bad = 0;
    for (int k = 0; k < bbattery_NTests; k++) bad += bbattery_pVal[k] < 1e-4 || bbattery_pVal[k] > 1 - 1e-4;
    printf("\nRESULT %d %d\n", bad, bbattery_NTests);
}
#endif

int main(int count, char **given) {
    const int order = count > 2 ? atoi(given[2]) : 0;
    if (count == 4 && !strcmp(given[1], "bits")) single_bits(atol(given[2]), atoi(given[3]));
    else if (count == 4 && !strcmp(given[1], "weights")) weights(order, strtoull(given[3], 0, 10));
    else if (count == 3 && !strcmp(given[1], "normals")) normal(strtoull(given[2], 0, 10));
    else if (count == 2 && !strcmp(given[1], "orders")) for (int k = 0; k < ORDER_COUNT; k++) puts(ORDERS[k]);
#ifdef TESTU01
    else if (count == 3 && !strcmp(given[1], "battery")) battery(order);
#endif
    else return 2;
    return 0;
}
