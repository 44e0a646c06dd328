/* Real events: joining the recorded stream of the shop must give, impression by impression, the labels that
 * its publisher derived from the same log (columns click_ts_us, cart_ts_us, purchase_ts_us). Skipped where
 * the data is not at hand: SLU_STOREFRONT=directory, default ../shared/data/storefront. */
#include "tests/pipeline_sample.h"
#include "trainer/csv.h"
#include "trainer/joiner.h"
#include "trainer/source.h"
#include "trainer/text_file.h"
#include "trainer/watermark.h"
#include <unistd.h>

#define STEPS 3

/* Order-free content of a set of (time, steps). */
typedef struct multiset {
    uint64_t count, sum;
    uint64_t by_steps[1 << STEPS];
} multiset;

static void put(multiset *m, int64_t time_us, uint32_t steps)
{
    m->count++;
    m->sum += slu_mix64((uint64_t)time_us * 8 + steps);
    m->by_steps[steps]++;
}

static const char *data_directory(void)
{
    const char *named = getenv("SLU_STOREFRONT");
    return named ? named : "../shared/data/storefront";
}

static slu_options *storefront_options(void)
{
    slu_options *o;
    OK(slu_options_load("examples/storefront.yaml", NULL, 0, &o, err));
    return o;
}

/* ---- what the publisher says ---- */

static int64_t number(slu_span s)
{
    int64_t v = 0;
    for (size_t i = 0; i < s.n; i++)
        v = v * 10 + (s.p[i] - '0');
    return s.n ? v : -1;
}

static size_t column(const slu_span *cells, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (cells[i].n == strlen(name) && memcmp(cells[i].p, name, cells[i].n) == 0)
            return i;
    ck_abort_msg("no column %s", name);
}

static const slu_span *next_record(slu_text_file *f, slu_csv *csv, size_t *n)
{
    slu_span line;
    slu_error err = SLU_ERROR_INIT;
    if (slu_text_file_line(f, &line, &err) != 1)
        return NULL;
    slu_csv_begin(csv);
    int rc;
    while ((rc = slu_csv_split(csv, line, &err)) == 0)
        ck_assert_int_eq(slu_text_file_extend(f, &line, &err), 1);
    ck_assert_msg(rc == 1, "%s", err.message);
    return slu_csv_cells(csv, n);
}

/* Steps after |end_us| are in the columns but not in the stream. */
static multiset published(const slu_options *o, int64_t end_us)
{
    static const char *const names[STEPS] = {"click_ts_us", "cart_ts_us", "purchase_ts_us"};
    char path[500];
    snprintf(path, sizeof path, "%s/impressions.csv.gz", data_directory());
    slu_text_file *f;
    OK(slu_text_file_open(path, 1 << 20, &f, err));
    slu_csv *csv = slu_csv_new();
    size_t n, at[STEPS];
    const slu_span *cells = next_record(f, csv, &n);
    size_t time = column(cells, n, "imp_ts_us");
    for (int k = 0; k < STEPS; k++)
        at[k] = column(cells, n, names[k]);
    multiset m = {0};
    while ((cells = next_record(f, csv, &n))) {
        uint32_t steps = 0;
        int64_t shown = number(cells[time]);
        for (int k = 0; k < STEPS; k++) {
            int64_t when = number(cells[at[k]]);
            if (when >= shown && when <= end_us && when <= shown + o->steps[k].window_us)
                steps |= 1u << k;
        }
        put(&m, shown, steps);
    }
    slu_csv_free(csv);
    slu_text_file_close(f);
    return m;
}

/* ---- what the joiner says ---- */

static int no_sample(void *ctx, const slu_sample *s, slu_error *err)
{
    (void)ctx, (void)s, (void)err;
    return 0;
}

static int settled(void *ctx, int64_t time_us, uint32_t steps, const float *logits, uint32_t events,
                   slu_error *err)
{
    (void)logits, (void)events, (void)err;
    put(ctx, time_us, steps);
    return 0;
}

static int no_dead(void *ctx, slu_dead_reason why, const slu_dead_step *s, slu_error *err)
{
    (void)ctx, (void)s, (void)err;
    ck_abort_msg("no step of this stream lacks its impression, but one is %s", slu_dead_reason_name(why));
}

static multiset joined(const slu_options *o, uint64_t *outside, int64_t *end_us)
{
    multiset m = {0};
    slu_schema *schema = sample_schema(o);
    char *directory = sample_directory();
    slu_store *store = sample_store(directory, schema);
    slu_join_table *table;
    OK(slu_join_table_open(store, &(slu_join_table_config){256 << 20}, &table, err));
    slu_joiner *joiner;
    slu_joiner_out out = {no_sample, settled, no_dead, &m};
    OK(slu_joiner_new(o, schema, table, NULL, &out, &joiner, err));
    slu_watermark *watermark = slu_watermark_new(o->join.allowed_lateness_us, 0);
    slu_encoder *encoder = slu_encoder_new(schema);
    slu_encoded *x = malloc(slu_encoded_max(schema));
    slu_source *source;
    OK(slu_file_source_open(o, schema, data_directory(), NULL, &source, err));
    slu_record r;
    slu_error err = SLU_ERROR_INIT;
    int rc;
    while ((rc = slu_source_next(source, 0, &r, &err)) == 1) {
        slu_partition part = source->ops->partition(source, r.partition);
        slu_watermark_partition(watermark, r.partition, &part);
        if (r.kind != SLU_RECORD_EVENT)
            continue;
        ck_assert_msg(r.dead == SLU_DEAD_NONE, "%s", r.message);
        slu_watermark_event(watermark, r.partition, r.event->time_us);
        int64_t now = slu_watermark_now(watermark);
        OK(slu_joiner_advance(joiner, now, SLU_JOINER_ALL, err));
        slu_dead_reason why;
        if (r.event->kind == SLU_EVENT_IMPRESSION) {
            slu_encode(encoder, r.event->fields, x);
            OK(slu_joiner_impression(joiner, r.event, x, now, &why, err));
            ck_assert_int_eq(why, SLU_DEAD_NONE);
        } else {
            OK(slu_joiner_step(joiner, r.event, now, &why, err));
            ck_assert(why == SLU_DEAD_NONE || why == SLU_DEAD_OUTSIDE_WINDOW);
            *outside += why == SLU_DEAD_OUTSIDE_WINDOW;
        }
    }
    ck_assert_int_eq(rc, SLU_ECLOSED);
    *end_us = slu_watermark_newest(watermark);
    OK(slu_joiner_advance(joiner, INT64_MAX, SLU_JOINER_ALL, err));
    ck_assert_uint_eq(slu_joiner_waiting(joiner), 0);
    source->ops->close(source);
    free(x);
    slu_encoder_free(encoder);
    slu_watermark_free(watermark);
    slu_joiner_free(joiner);
    slu_join_table_close(table);
    slu_store_close(store);
    sample_remove(directory);
    slu_schema_free(schema);
    return m;
}

START_TEST(test_joins_to_the_published_labels)
{
    slu_options *o = storefront_options();
    uint64_t outside = 0;
    int64_t end_us;
    multiset got = joined(o, &outside, &end_us);
    multiset expected = published(o, end_us);
    ck_assert_uint_eq(got.count, expected.count);
    for (int i = 0; i < 1 << STEPS; i++)
        ck_assert_msg(got.by_steps[i] == expected.by_steps[i], "steps %d: %llu joined, %llu published", i,
                      (unsigned long long)got.by_steps[i], (unsigned long long)expected.by_steps[i]);
    ck_assert_uint_eq(got.sum, expected.sum);
    ck_assert_uint_lt(outside, 100); /* clicks after an hour */
    slu_options_free(o);
}
END_TEST

int main(void)
{
    if (access(data_directory(), R_OK)) {
        printf("skipped: no recorded events at %s (set SLU_STOREFRONT)\n", data_directory());
        return 77;
    }
    Suite *s = suite_create("storefront");
    TCase *c = tcase_create("storefront");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, test_joins_to_the_published_labels);
    suite_add_tcase(s, c);
    return sample_run(s);
}
