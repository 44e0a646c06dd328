/* Once warm, a score request allocates nothing: malloc is counted, here and in every library below. */
#include "base/metrics.h"
#include "tests/score_crew.h"
#include "tests/score_fixture.h"
#include "tests/suite.h"

static _Atomic unsigned long allocations; /* of all threads */

/* Sanitizers bring an allocator of their own; then only the calls are made. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OWN_ALLOCATOR 1
#endif
#endif
#if !defined(OWN_ALLOCATOR) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTED 1
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

void *malloc(size_t n)
{
    allocations++;
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    allocations++;
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    allocations++;
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    allocations++;
    return __libc_memalign(alignment, n);
}
#endif

/* With |h| the other thread helps. */
static void nothing_is_allocated(const slu_options *options, helper *h)
{
    enum { N = 600 };
    char name[] = "item", text[N][8], *texts[N], message[512];
    score_fixture f;
    Sluice__V1__Column column = SLUICE__V1__COLUMN__INIT, *columns[] = {&column};
    Sluice__V1__ScoreRequest m = SLUICE__V1__SCORE_REQUEST__INIT;
    fixture_begin(&f, options);
    fixture_publish(&f, 1);
    for (int i = 0; i < N; i++) {
        snprintf(text[i], sizeof text[i], "i%d", i);
        texts[i] = text[i];
    }
    m.candidates = N;
    m.columns = columns;
    m.n_columns = 1;
    column.name = name;
    column.text = texts;
    column.n_text = N;
    size_t len = sluice__v1__score_request__get_packed_size(&m);
    uint8_t *bytes = malloc(len);
    sluice__v1__score_request__pack(&m, bytes);
    slu_metric *helped = slu_counter("sluice_score_helped_candidates_total", NULL, "");
    f.crew = h ? h->crew : NULL;
    for (int i = 0; i < 3 || (h && slu_metric_value(helped) < N); i++)
        ck_assert_int_eq(fixture_call(&f, bytes, len, INT64_MAX, message), SLU_GRPC_OK);
    const double warm = slu_metric_value(helped);
    unsigned long before = allocations;
    bool ok = true;
    for (int i = 0; i < 50 || (h && slu_metric_value(helped) == warm); i++)
        ok &= fixture_call(&f, bytes, len, INT64_MAX, message) == SLU_GRPC_OK;
    unsigned long after = allocations;
    ck_assert(ok);
#ifdef COUNTED
    ck_assert_uint_gt(before, 0); /* the counter works */
#endif
    ck_assert_uint_eq(after, before);
    free(bytes);
    fixture_end(&f);
}

START_TEST(test_nothing_is_allocated)
{
    nothing_is_allocated(&sample_options, NULL);
}
END_TEST

START_TEST(test_nothing_is_allocated_in_int8)
{
    uint32_t towers[] = {64, 48};
    slu_options o = sample_options;
    o.model.towers = towers;
    o.serving.precision = SLU_INT8;
    nothing_is_allocated(&o, NULL);
}
END_TEST

START_TEST(test_nothing_is_allocated_by_several)
{
    slu_feature_opts features[sizeof sample_features / sizeof *sample_features];
    slu_options o = options_without_lists(features);
    o.serving.split_above = 96;
    helper h;
    helper_start(&h);
    nothing_is_allocated(&o, &h);
    helper_stop(&h);
}
END_TEST

int main(void)
{
    return run_suite("score_warm",
                     (const TTest *const[]){test_nothing_is_allocated, test_nothing_is_allocated_in_int8,
                                            test_nothing_is_allocated_by_several, NULL});
}
