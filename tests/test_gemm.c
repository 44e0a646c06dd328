#include "model/gemm.h"
#include "tests/numeric.h"
#include <stdio.h>
#include <string.h>

/* All four transpositions on shapes that reach the matrix, row and column paths, with padded rows, against
 * the twin. */
START_TEST(test_against_twin)
{
    static const uint32_t sizes[] = {1, 2, 3, 7, 17, 33};
    /* The last ones are cut into several pieces along each dimension. */
    static const uint32_t large[][3] = {{130, 40, 300}, {7, 530, 265}, {250, 17, 9}};
    uint32_t M = sizes[_i / 36 % 6], N = sizes[_i / 6 % 6], K = sizes[_i % 6];
    if (_i >= 216) {
        M = large[_i - 216][0];
        N = large[_i - 216][1];
        K = large[_i - 216][2];
    }
    slu_rng r;
    slu_rng_seed(&r, 40 + (uint64_t)_i);
    for (int mode = 0; mode < 16; mode++) {
        bool ta = mode & 1, tb = mode & 2;
        float alpha = mode & 8 ? .5f : 1, beta = mode & 8 ? 1 : 0;
        uint32_t lda = (ta ? M : K) + 2, ldb = (tb ? K : N) + 3, ldc = N + 1;
        float *a = floats((size_t)(ta ? K : M) * lda), *b = floats((size_t)(tb ? N : K) * ldb);
        float *c = floats((size_t)M * ldc), *slow = floats((size_t)M * ldc);
        fill(a, (size_t)(ta ? K : M) * lda, &r);
        fill(b, (size_t)(tb ? N : K) * ldb, &r);
        fill(c, (size_t)M * ldc, &r);
        memcpy(slow, c, (size_t)M * ldc * sizeof *c);
        slu_gemm_choose(mode & 4 ? SLU_GEMM_OPENBLAS : SLU_GEMM_BEST);
        slu_gemm(ta, tb, M, N, K, alpha, a, lda, b, ldb, beta, c, ldc);
        slu_gemm_ref(ta, tb, M, N, K, alpha, a, lda, b, ldb, beta, slow, ldc);
        for (size_t i = 0; i < (size_t)M * ldc; i++)
            ck_near(c[i], slow[i], 2e-5, "M=%u N=%u K=%u mode %d c[%zu]", M, N, K, mode, i);
        free(a);
        free(b);
        free(c);
        free(slow);
    }
}
END_TEST

/* Our own kernels are best where OpenBLAS has none for AVX-512, whatever the CPU: with
 * OPENBLAS_CORETYPE=Haswell on one that has AVX-512, too. */
START_TEST(test_backend_has_a_name)
{
    ck_assert(slu_gemm_choose(SLU_GEMM_BEST));
    bool packs = slu_gemm_packs(), wide = strstr(slu_gemm_backend(), "SkylakeX") ||
                                          strstr(slu_gemm_backend(), "Cooperlake") ||
                                          strstr(slu_gemm_backend(), "SapphireRapids");
    bool works = slu_gemm_choose(SLU_GEMM_AVX2);
    ck_assert_msg(packs == (works && !wide), "%s", slu_gemm_backend());
    ck_assert_ptr_nonnull(strstr(slu_gemm_backend(), "openblas 0."));
    ck_assert(slu_gemm_choose(SLU_GEMM_OPENBLAS));
    ck_assert_ptr_null(strstr(slu_gemm_backend(), "avx2"));
    if (slu_gemm_choose(SLU_GEMM_AVX2))
        ck_assert_ptr_nonnull(strstr(slu_gemm_backend(), "avx2"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gemm");
    TCase *t = tcase_create("gemm");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, test_against_twin, 0, 219);
    tcase_add_test(t, test_backend_has_a_name);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
