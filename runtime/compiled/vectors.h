/* Code that runs as AVX2 where the CPU has it: a body marked INLINE, in a function of its own for either case. */

#ifndef MURHO_VECTORS_H
#define MURHO_VECTORS_H

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

#if defined(__GNUC__) && defined(__x86_64__)
#define HAS_AVX2 __builtin_cpu_supports("avx2")
#define AVX2 __attribute__((target("avx2")))
#define HAS_AVX2_FMA (HAS_AVX2 && __builtin_cpu_supports("fma"))
#define AVX2_FMA __attribute__((target("avx2,fma")))
#else
#define HAS_AVX2 0
#define AVX2
#define HAS_AVX2_FMA 0
#define AVX2_FMA
#endif

#endif
