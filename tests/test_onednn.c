/* Products by oneDNN against plain loops, in floats and, where this machine can, in bf16. Without the library
 * there is nothing to test, and the output says so. */
#include "base/cache_line.h"
#include "base/pool.h"
#include "model/bf16.h"
#include "model/gemm.h"
#include "model/onednn.h"
#include "tests/numeric.h"
#include "tests/suite.h"
#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static bool missing(const char *what)
{
    const char *why;
    if (slu_onednn(&why))
        return false;
    printf("skipped: %s: %s\n", what, why);
    return true;
}

/* Operands as floats and as the product reads them. */
typedef struct operand {
    size_t n;
    float *f;       /* rounded, for bf16 */
    const void *in; /* the same in the product's type */
} operand;

static operand make_operand(size_t n, bool bf16, slu_rng *r)
{
    operand o = {n, floats(n), NULL};
    fill(o.f, n, r);
    if (!bf16) {
        o.in = o.f;
        return o;
    }
    slu_bf16 *narrow = slu_cache_lines_alloc(n * sizeof *narrow);
    ck_assert_ptr_nonnull(narrow);
    slu_bf16_narrow(narrow, n, o.f, n, 1, (uint32_t)n);
    for (size_t i = 0; i < n; i++)
        o.f[i] = slu_bf16_float(narrow[i]);
    o.in = narrow;
    return o;
}

static void free_operand(operand *o)
{
    if (o->in != o->f)
        free((void *)o->in);
    free(o->f);
}

static uint32_t pick(slu_rng *r, const uint32_t *of, uint32_t n)
{
    return of[slu_rng_below(r, n)];
}

/* All of a spec's switches on odd and even shapes. Returns false where this machine has no such product. */
static bool check_one(uint64_t seed, bool bf16)
{
    static const uint32_t sizes[] = {1, 7, 16, 31, 32, 33, 64, 100, 130, 257};
    slu_rng r;
    slu_rng_seed(&r, seed);
    slu_matmul_spec s = {
        .M = pick(&r, sizes, 10), .N = pick(&r, sizes, 10), .K = pick(&r, sizes, 10), .bf16 = bf16};
    s.transpose_a = slu_rng_below(&r, 2);
    s.packed = slu_rng_below(&r, 2);
    s.add = slu_rng_below(&r, 2);
    s.bias = slu_rng_below(&r, 2);
    s.relu = slu_rng_below(&r, 2);
    const uint32_t gap = (uint32_t)slu_rng_below(&r, 2) * 5;
    const bool tb = slu_rng_below(&r, 2); /* of what is packed */
    s.lda = (s.transpose_a ? s.M : s.K) + gap;
    s.ldb = (s.packed && tb ? s.K : s.N) + gap;
    s.ldc = s.N + gap;
    slu_matmul *m = slu_matmul_new(&s, NULL, 1);
    if (!m)
        return false;
    operand a = make_operand((size_t)(s.transpose_a ? s.K : s.M) * s.lda, bf16, &r);
    operand b = make_operand((size_t)(s.packed && tb ? s.N : s.K) * s.ldb, bf16, &r);
    float *bias = floats(s.N), *c = floats((size_t)s.M * s.ldc), *slow = floats((size_t)s.M * s.ldc);
    fill(bias, s.N, &r);
    fill(c, (size_t)s.M * s.ldc, &r);
    memcpy(slow, c, (size_t)s.M * s.ldc * sizeof *c);
    void *packed = NULL;
    if (s.packed) {
        packed = slu_cache_lines_alloc(slu_matmul_packed(m));
        memset(packed, 0, slu_matmul_packed(m));
        slu_matmul_pack(m, packed, tb, b.f, s.ldb);
    }
    slu_matmul_run(m, a.in, packed ? packed : b.in, bias, c);
    slu_gemm_ref(s.transpose_a, s.packed && tb, s.M, s.N, s.K, 1, a.f, s.lda, b.f, s.ldb, s.add, slow, s.ldc);
    for (uint32_t i = 0; i < s.M; i++)
        for (uint32_t j = 0; j < s.ldc; j++) {
            float want = slow[(size_t)i * s.ldc + j];
            if (j < s.N) {
                want += s.bias ? bias[j] : 0;
                want = s.relu && want < 0 ? 0 : want;
            }
            ck_near(
                c[(size_t)i * s.ldc + j], want, 2e-5,
                "seed %llu %s M=%u N=%u K=%u ta=%d packed=%d tb=%d add=%d bias=%d relu=%d gap=%u (%u, %u)",
                (unsigned long long)seed, slu_matmul_kernel(m), s.M, s.N, s.K, s.transpose_a, s.packed, tb,
                s.add, s.bias, s.relu, gap, i, j);
        }
    free(packed);
    free(bias);
    free(c);
    free(slow);
    free_operand(&a);
    free_operand(&b);
    slu_matmul_free(m);
    return true;
}

START_TEST(test_floats)
{
    if (missing("products of floats"))
        return;
    for (uint64_t seed = 0; seed < (uint64_t)suite_share(400, 20); seed++)
        ck_assert_msg(check_one(seed, false), "seed %llu: no such product", (unsigned long long)seed);
}
END_TEST

START_TEST(test_bf16)
{
    if (missing("products of bf16"))
        return;
    const int shapes = suite_share(400, 20);
    int made = 0;
    for (int seed = 0; seed < shapes; seed++)
        made += check_one((uint64_t)seed, true);
    if (!made)
        printf("skipped: products of bf16: this CPU has no unit that oneDNN would use\n");
    else
        ck_assert_int_eq(made, shapes);
}
END_TEST

/* One order of B for several numbers of rows, as layers use it. */
START_TEST(test_like_another)
{
    enum { K = 96, N = 80, M = 128 };
    if (missing("packed once for several shapes"))
        return;
    slu_rng r;
    slu_rng_seed(&r, 4);
    float *w = floats(N * K), *x = floats(M * K), *y = floats(M * N), *slow = floats(M * N);
    fill(w, N * K, &r);
    fill(x, M * K, &r);
    slu_matmul_spec s = {.M = M, .N = N, .K = K, .lda = K, .ldc = N, .packed = true};
    slu_matmul *first = slu_matmul_new(&s, NULL, 1);
    ck_assert_ptr_nonnull(first);
    void *packed = calloc(1, slu_matmul_packed(first));
    slu_matmul_pack(first, packed, true, w, K);
    slu_gemm_ref(false, true, M, N, K, 1, x, K, w, K, 0, slow, N);
    for (s.M = M; s.M >= 32; s.M /= 2) {
        slu_matmul *m = slu_matmul_new(&s, first, 1);
        ck_assert_ptr_nonnull(m);
        ck_assert_uint_eq(slu_matmul_packed(m), slu_matmul_packed(first));
        memset(y, 0, M * N * sizeof *y);
        slu_matmul_run(m, x, packed, NULL, y);
        for (uint32_t i = 0; i < s.M * N; i++)
            ck_near(y[i], slow[i], 1e-5, "%u rows, element %u", s.M, i);
        slu_matmul_free(m);
    }
    slu_matmul_free(first);
    free(packed);
    free(w);
    free(x);
    free(y);
    free(slow);
}
END_TEST

/* Pieces of one product by the threads of a pool: the bits of one thread. */
typedef struct pieces {
    slu_matmul *m;
    const float *x, *w;
    float *y;
} pieces;

enum { ROWS = 32, PIECES = 24, DEEP = 200, WIDE = 48 };

static void do_piece(void *ctx, uint32_t i)
{
    const pieces *p = ctx;
    slu_matmul_run(p->m, p->x + (size_t)i * ROWS * DEEP, p->w, NULL, p->y + (size_t)i * ROWS * WIDE);
}

START_TEST(test_threads)
{
    if (missing("pieces by several threads"))
        return;
    slu_rng r;
    slu_rng_seed(&r, 8);
    const size_t nx = (size_t)PIECES * ROWS * DEEP, ny = (size_t)PIECES * ROWS * WIDE;
    float *x = floats(nx), *w = floats(DEEP * WIDE), *one = floats(ny), *many = floats(ny);
    fill(x, nx, &r);
    fill(w, DEEP * WIDE, &r);
    slu_matmul_spec s = {.M = ROWS, .N = WIDE, .K = DEEP, .lda = DEEP, .ldb = WIDE, .ldc = WIDE};
    pieces p = {slu_matmul_new(&s, NULL, 3), x, w, one};
    ck_assert_ptr_nonnull(p.m);
    slu_parallel_run(NULL, do_piece, &p, PIECES);
    slu_pool *pool;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_pool_new(3, &pool, &err), 0);
    for (int round = 0; round < suite_share(20, 1); round++) {
        memset(many, 0, ny * sizeof *many);
        p.y = many;
        slu_parallel_run(slu_pool_parallel(pool), do_piece, &p, PIECES);
        ck_assert_int_eq(memcmp(one, many, ny * sizeof *one), 0);
    }
    slu_pool_free(pool);
    slu_matmul_free(p.m);
    free(x);
    free(w);
    free(one);
    free(many);
}
END_TEST

static int threads_of_this_process(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* Large enough for the library to want a thread per core, which it must not have. */
START_TEST(test_starts_no_thread)
{
    enum { N = 512 };
    if (missing("one thread"))
        return;
    float *a = floats(N * N), *b = floats(N * N), *c = floats(N * N);
    slu_matmul_spec s = {.M = N, .N = N, .K = N, .lda = N, .ldb = N, .ldc = N};
    slu_matmul *m = slu_matmul_new(&s, NULL, 1);
    ck_assert_ptr_nonnull(m);
    const int before = threads_of_this_process(); /* one, or also a sanitizer's */
    slu_matmul_run(m, a, b, NULL, c);
    ck_assert_int_eq(threads_of_this_process(), before);
    slu_matmul_free(m);
    free(a);
    free(b);
    free(c);
}
END_TEST

/* What systemd's MemoryDenyWriteExecute= does: no memory becomes executable that was not so when it was
 * mapped. */
static bool deny_executable_memory(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Said before anything is computed, and then it is as if the library were not there. In a process of its own,
 * since the library is looked for once. */
START_TEST(test_no_executable_memory)
{
    const char *fork = getenv("CK_FORK"), *why = NULL;
    if ((fork && strcmp(fork, "no") == 0) || !deny_executable_memory()) {
        printf("skipped: memory that may not become executable: no process of its own, or no seccomp\n");
        return;
    }
    const slu_matmul_spec s = {.M = 64, .N = 64, .K = 64, .lda = 64, .ldb = 64, .ldc = 64};
    ck_assert_ptr_null(slu_matmul_new(&s, NULL, 1));
    ck_assert_ptr_null(slu_onednn(&why));
    ck_assert_msg(strstr(why, "MemoryDenyWriteExecute") || strstr(why, "built without"), "%s", why);
}
END_TEST

START_TEST(test_name)
{
    const char *why;
    const char *name = slu_onednn(&why);
    printf("library: %s\n", name ? name : why);
    ck_assert_int_ne(!name, !*why);
    ck_assert(!name || strncmp(name, "onednn 2.", 9) == 0);
}
END_TEST

int main(void)
{
    setenv("OMP_NUM_THREADS", "3", 1); /* somebody else's wish, which must not be ours */
    Suite *s = suite_create("onednn");
    TCase *t = tcase_create("onednn");
    tcase_set_timeout(t, 120 * suite_slowness());
    tcase_add_test(t, test_no_executable_memory);
    tcase_add_test(t, test_name);
    tcase_add_test(t, test_floats);
    tcase_add_test(t, test_bf16);
    tcase_add_test(t, test_like_another);
    tcase_add_test(t, test_threads);
    tcase_add_test(t, test_starts_no_thread);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
