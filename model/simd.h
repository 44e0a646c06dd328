/* model/simd.h - how hot loops become wide without fixing the machine at compile time.
 *
 * With GCC, SLU_CLONES compiles a function once for plain x86-64 and once for AVX2 and AVX-512; the loader
 * picks by CPU. Loops in such functions are plain C that both compilers vectorise. Sums use explicit lanes,
 * because without -ffast-math a compiler may not reorder additions: the lanes fix one order for every
 * instruction set.
 *
 * Off under sanitizers, which instrument the resolver that runs before they are ready, and under clang, whose
 * version 14 gives cloned functions a symbol that other files cannot find. */
#pragma once
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLU_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLU_SANITIZED 1
#endif
#endif

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && !defined(SLU_SANITIZED)
#define SLU_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define SLU_CLONES
#endif
#define SLU_INLINE static inline __attribute__((always_inline))

#define SLU_LANES 8
typedef float slu_lanes __attribute__((vector_size(SLU_LANES * sizeof(float))));

/* sum a[i] b[i] over n, in SLU_LANES partial sums. */
SLU_INLINE float slu_dot(const float *a, const float *b, uint32_t n)
{
    slu_lanes sum = {0};
    uint32_t i = 0;
    for (; i + SLU_LANES <= n; i += SLU_LANES) {
        slu_lanes x, y;
        memcpy(&x, a + i, sizeof x);
        memcpy(&y, b + i, sizeof y);
        sum += x * y;
    }
    float total = 0;
    for (int k = 0; k < SLU_LANES; k++)
        total += sum[k];
    for (; i < n; i++)
        total += a[i] * b[i];
    return total;
}

/* sum a[i] over n, in SLU_LANES partial sums. */
SLU_INLINE float slu_sum(const float *a, uint32_t n)
{
    slu_lanes sum = {0};
    uint32_t i = 0;
    for (; i + SLU_LANES <= n; i += SLU_LANES) {
        slu_lanes x;
        memcpy(&x, a + i, sizeof x);
        sum += x;
    }
    float total = 0;
    for (int k = 0; k < SLU_LANES; k++)
        total += sum[k];
    for (; i < n; i++)
        total += a[i];
    return total;
}
