/* What the trainer says about its memory: the plan and each part as metrics, a warning when the process is
 * over its limit and a tenth, and what is free inside the heap goes back before. */
#include "base/log.h"
#include "base/metrics.h"
#include "base/process.h"
#include "tests/store_sample.h"
#include "tests/suite.h"
#include "trainer/memory_watch.h"
#include <math.h>

#define MIB (1ull << 20)

static FILE *lines;
static slu_store *store;

static void set_up(void)
{
    sample_setup();
    store = sample_open();
    lines = tmpfile();
    slu_log_redirect(fileno(lines), NULL);
}

static void tear_down(void)
{
    slu_log_redirect(2, NULL);
    fclose(lines);
    slu_store_close(store);
    sample_teardown();
}

/* Lines of the log with |part|. */
static int said(const char *part)
{
    char line[2000];
    int n = 0;
    rewind(lines);
    while (fgets(line, sizeof line, lines))
        n += strstr(line, part) != NULL;
    return n;
}

static double gauge(const char *name, int part)
{
    char label[40];
    if (part >= 0)
        snprintf(label, sizeof label, "part=\"%s\"", slu_memory_part_name((slu_memory_part)part));
    return slu_metric_value(slu_gauge(name, part >= 0 ? label : NULL, ""));
}

START_TEST(test_metrics)
{
    set_up();
    slu_memory_plan plan = {.total = 1ull << 40};
    for (int i = 0; i < SLU_MEM_PARTS; i++)
        plan.bytes[i] = 1000u + (unsigned)i;
    slu_memory_watch *w = slu_memory_watch_new(&plan);
    ck_assert_ptr_nonnull(w);
    ck_assert_int_eq(
        said("msg=memory limit=1099511627776 rows=1000 join=1001 blocks=1002 writes=1003 commit=1004 "
             "fetch=1005 publish=1006 rest=1007"),
        1);
    ck_assert_double_eq(gauge("sluice_trainer_memory_limit_bytes", -1), (double)plan.total);
    for (int i = 0; i < SLU_MEM_PARTS; i++)
        ck_assert_double_eq(gauge("sluice_trainer_memory_plan_bytes", i), 1000 + i);
    slu_commit *c = slu_commit_begin(store);
    for (int i = 0; i < 1000; i++)
        slu_commit_put(c, SLU_FAMILY_ROWS, &i, sizeof i, sample_path, sizeof sample_path);
    sample_write(c);
    slu_pipeline_stats stats = {.row_cache_bytes = 11, .join_cache_bytes = 22};
    slu_memory_watch_update(w, store, &stats);
    ck_assert_double_eq(gauge("sluice_trainer_memory_bytes", SLU_MEM_ROWS), 11);
    ck_assert_double_eq(gauge("sluice_trainer_memory_bytes", SLU_MEM_JOIN), 22);
    uint64_t blocks, memtables;
    slu_store_memory(store, &blocks, &memtables);
    ck_assert_uint_gt(memtables, 1000 * sizeof sample_path);
    ck_assert_double_eq(gauge("sluice_trainer_memory_bytes", SLU_MEM_BLOCKS), (double)blocks);
    ck_assert_double_eq(gauge("sluice_trainer_memory_bytes", SLU_MEM_WRITES), (double)memtables);
    stats.row_cache_bytes = 10; /* as fresh as the statistics */
    slu_memory_watch_update(w, store, &stats);
    ck_assert_double_eq(gauge("sluice_trainer_memory_bytes", SLU_MEM_ROWS), 10);
    slu_memory_watch_free(w);
    slu_memory_watch_free(NULL);
    tear_down();
}
END_TEST

/* Warnings of a watch whose limit is |share| of what is resident. */
static int warnings_at(double share)
{
    const int before = said("level=warn");
    slu_memory_plan plan = {.total = (uint64_t)(share * (double)slu_process_resident())};
    slu_memory_watch *w = slu_memory_watch_new(&plan);
    const slu_pipeline_stats stats = {0};
    for (int i = 0; i < 5; i++) /* called often, said once */
        slu_memory_watch_update(w, store, &stats);
    slu_memory_watch_free(w);
    return said("level=warn") - before;
}

START_TEST(test_warns_beyond_the_limit_and_a_tenth)
{
    set_up();
    const size_t much = 128 * MIB; /* so that what else comes and goes weighs little */
    char *p = malloc(much);
    memset(p, 1, much);
    warnings_at(.01); /* what the heap has to spare is gone now */
    ck_assert_int_ge(said("more memory than training.memory and a tenth"), 1);
    ck_assert_int_eq(warnings_at(2), 0);
    ck_assert_int_eq(warnings_at(1.05), 0);
    ck_assert_int_eq(warnings_at(1 / 1.05), 0); /* over the limit, but not by a tenth */
    ck_assert_int_eq(warnings_at(1 / 1.15), 1);
    ck_assert_int_eq(warnings_at(.1), 1);
    ck_assert_int_eq(said("level=warn"),
                     said("msg=\"more memory than training.memory and a tenth\" resident="));
    free(p);
    tear_down();
}
END_TEST

#if !defined(__SANITIZE_ADDRESS__) &&                                                                        \
    !defined(__SANITIZE_THREAD__) /* their heaps have nothing to give back */

enum { PIECES = 1 << 16, PIECE = 1000 };

/* Much of the heap is free but cannot shrink by itself, because the last piece is in use. */
static void *make_holes(void)
{
    static char *pieces[PIECES];
    for (int i = 0; i < PIECES; i++) {
        pieces[i] = malloc(PIECE);
        memset(pieces[i], 1, PIECE);
    }
    for (int i = 0; i < PIECES - 1; i++)
        free(pieces[i]);
    return pieces[PIECES - 1];
}

START_TEST(test_free_memory_goes_back_before_the_limit)
{
    if (suite_slowness() > 1) /* valgrind has a heap of its own */
        return;
    set_up();
    void *last = make_holes();
    const uint64_t full = slu_process_resident(), holes = (uint64_t)PIECES * PIECE;
    const slu_pipeline_stats stats = {0};
    ck_assert_uint_gt(full, holes);
    slu_memory_plan plan = {.total = full / 8 * 10}; /* full is 80 % of it */
    slu_memory_watch *w = slu_memory_watch_new(&plan);
    slu_memory_watch_update(w, store, &stats);
    ck_assert_uint_gt(slu_process_resident(), full - holes / 2); /* plenty of room: left alone */
    slu_memory_watch_free(w);
    plan.total = full / 95 * 100; /* below the limit, but near */
    w = slu_memory_watch_new(&plan);
    slu_memory_watch_update(w, store, &stats);
    ck_assert_uint_lt(slu_process_resident(), full - holes / 2);
    ck_assert_int_eq(said("level=warn"), 0);
    slu_memory_watch_free(w);
    plan.total = full / 2; /* over it only with what is free anyway: no word about that */
    free(last);
    last = make_holes();
    ck_assert_uint_gt(slu_process_resident(), plan.total);
    w = slu_memory_watch_new(&plan);
    slu_memory_watch_update(w, store, &stats);
    ck_assert_int_eq(said("level=warn"), 0);
    slu_memory_watch_free(w);
    free(last);
    tear_down();
}
END_TEST

#endif

int main(void)
{
    return run_suite(
        "memory_watch", (const TTest *[]) {
            test_metrics, test_warns_beyond_the_limit_and_a_tenth,
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
                test_free_memory_goes_back_before_the_limit,
#endif
                NULL
        });
}
