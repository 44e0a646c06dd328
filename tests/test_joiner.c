/* The joiner alone: events in, emissions written down as text, which makes order and content easy to compare.
 */
#include "model/loss.h"
#include "tests/pipeline_sample.h"
#include "trainer/joiner.h"
#include <stdarg.h>

typedef struct bench {
    slu_options *options;
    slu_schema *schema;
    char *directory;
    slu_store *store;
    slu_join_table *table;
    slu_joiner *joiner;
    slu_encoder *encoder;
    slu_encoded *x;
    char said[4096]; /* what the joiner emitted */
} bench;

static void note(bench *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(bench *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    size_t at = strlen(b->said);
    vsnprintf(b->said + at, sizeof b->said - at, fmt, args);
    va_end(args);
}

static int on_sample(void *ctx, const slu_sample *s, slu_error *err)
{
    bench *b = ctx;
    (void)err;
    static const char how[] = ".LNP"; /* nothing, label, fake negative, positive */
    note(b, "%s%c%c/%d%d ", s->arrival ? "arrive:" : "", how[s->say[0]], how[s->say[1]], s->labels & 1,
         s->labels >> 1 & 1);
    return 0;
}

static int on_settled(void *ctx, int64_t time_us, uint32_t steps, const float *logits, uint32_t events,
                      slu_error *err)
{
    (void)time_us, (void)err;
    note(ctx, "settled:%u/%u%s ", steps, events, logits ? "+p" : "");
    return 0;
}

static int on_dead(void *ctx, slu_dead_reason why, const slu_dead_step *s, slu_error *err)
{
    (void)err;
    note(ctx, "dead:%s:%.*s ", slu_dead_reason_name(why), (int)s->id.n, s->id.p);
    return 0;
}

static void start(bench *b)
{
    slu_joiner_out out = {on_sample, on_settled, on_dead, b};
    slu_join_table_config config = {1 << 20};
    OK(slu_join_table_open(b->store, &config, &b->table, err));
    OK(slu_joiner_new(b->options, b->schema, b->table, NULL, &out, &b->joiner, err));
}

static bench *set_up(const char *policy)
{
    bench *b = calloc(1, sizeof *b);
    char set[64];
    snprintf(set, sizeof set, "training.label_policy=%s", policy);
    b->options = sample_options((const char *[]){set}, 1);
    b->schema = sample_schema(b->options);
    b->directory = sample_directory();
    b->store = sample_store(b->directory, b->schema);
    b->encoder = slu_encoder_new(b->schema);
    b->x = malloc(slu_encoded_max(b->schema));
    start(b);
    return b;
}

static void tear_down(bench *b)
{
    slu_joiner_free(b->joiner);
    slu_join_table_close(b->table);
    slu_store_close(b->store);
    sample_remove(b->directory);
    slu_encoder_free(b->encoder);
    free(b->x);
    slu_schema_free(b->schema);
    slu_options_free(b->options);
    free(b);
}

static slu_dead_reason impression(bench *b, const char *id, int64_t time_us, int64_t watermark_us)
{
    slu_value values[4];
    slu_values fields[4];
    slu_event e = sample_impression(b->schema, id, time_us, "u", "i", values, fields);
    slu_encode(b->encoder, e.fields, b->x);
    slu_dead_reason why = SLU_DEAD_REASONS;
    OK(slu_joiner_impression(b->joiner, &e, b->x, watermark_us, &why, err));
    return why;
}

static slu_dead_reason step(bench *b, const char *id, const char *of, uint32_t s, int64_t time_us,
                            int64_t watermark_us)
{
    slu_event e = sample_step(id, of, s, time_us);
    slu_dead_reason why = SLU_DEAD_REASONS;
    OK(slu_joiner_step(b->joiner, &e, watermark_us, &why, err));
    return why;
}

static void advance(bench *b, int64_t watermark_us)
{
    OK(slu_joiner_advance(b->joiner, watermark_us, SLU_JOINER_ALL, err));
}

#define NO_WATERMARK INT64_MIN

START_TEST(test_fnw)
{
    bench *b = set_up("fnw");
    ck_assert_int_eq(impression(b, "a", T0, NO_WATERMARK), SLU_DEAD_NONE);
    ck_assert_int_eq(step(b, "c", "a", 0, T0 + MINUTE, NO_WATERMARK), SLU_DEAD_NONE);
    ck_assert_int_eq(step(b, "d", "a", 1, T0 + HOUR, NO_WATERMARK), SLU_DEAD_NONE);
    ck_assert_uint_eq(slu_joiner_waiting(b->joiner), 3);
    OK(slu_joiner_predicted(b->joiner, slu_impression_key(sample_span("a")), (float[]){1, 2}, err));
    advance(b, T0 + 2 * HOUR);
    ck_assert_str_eq(b->said, "arrive:NN/00 P./10 .P/01 settled:3/3+p ");
    ck_assert_uint_eq(slu_joiner_waiting(b->joiner), 0);
    ck_assert_uint_eq(slu_join_table_count(b->table), 0);
    tear_down(b);
}
END_TEST

START_TEST(test_fnw_later_step_first)
{
    bench *b = set_up("fnw");
    impression(b, "a", T0, NO_WATERMARK);
    step(b, "d", "a", 1, T0 + 2 * MINUTE,
         NO_WATERMARK);                              /* bought, click not seen yet: nothing is true so far */
    step(b, "c", "a", 0, T0 + MINUTE, NO_WATERMARK); /* now both are */
    ck_assert_str_eq(b->said, "arrive:NN/00 PP/11 ");
    tear_down(b);
}
END_TEST

START_TEST(test_window)
{
    bench *b = set_up("window");
    impression(b, "a", T0, NO_WATERMARK);
    step(b, "c", "a", 0, T0 + MINUTE, NO_WATERMARK);
    advance(b, T0 + 10 * MINUTE - 1);
    ck_assert_str_eq(b->said, "arrive:../00 ");
    advance(b, T0 + 10 * MINUTE);
    ck_assert_str_eq(b->said, "arrive:../00 L./10 ");
    step(b, "d", "a", 1, T0 + HOUR, T0 + 10 * MINUTE);
    advance(b, T0 + 2 * HOUR);
    ck_assert_str_eq(b->said, "arrive:../00 L./10 .L/11 settled:3/3 ");
    tear_down(b);
}
END_TEST

START_TEST(test_steps_before_their_impression)
{
    bench *b = set_up("fnw");
    ck_assert_int_eq(step(b, "c", "a", 0, T0 + SECOND, T0), SLU_DEAD_NONE);
    ck_assert_int_eq(step(b, "d", "a", 1, T0 + 2 * SECOND, T0), SLU_DEAD_NONE);
    ck_assert_int_eq(step(b, "c", "a", 0, T0 + SECOND, T0), SLU_DEAD_DUPLICATE);
    ck_assert_int_eq(step(b, "late", "a", 1, T0 + 3 * HOUR, T0), SLU_DEAD_NONE);
    ck_assert_uint_eq(slu_joiner_waiting(b->joiner), 3);
    ck_assert_int_eq(impression(b, "a", T0, T0), SLU_DEAD_NONE);
    ck_assert_str_eq(b->said, "arrive:NN/00 P./10 .P/01 dead:repeated:late ");
    ck_assert_uint_eq(slu_joiner_waiting(b->joiner), 3);
    advance(b, T0 + HOUR); /* the orphans' timer is stale and must not touch the impression */
    ck_assert_uint_eq(slu_joiner_waiting(b->joiner), 3);
    tear_down(b);
}
END_TEST

START_TEST(test_orphans_die)
{
    bench *b = set_up("fnw");
    step(b, "c", "a", 0, T0, T0);
    step(b, "d", "a", 1, T0 + MINUTE, T0);
    step(b, "f", "a", 1, T0 + 20 * MINUTE, T0);
    advance(b, T0 + 30 * MINUTE);
    ck_assert_str_eq(b->said, "dead:orphan:c "); /* each waits its own time */
    ck_assert_uint_eq(slu_joiner_waiting(b->joiner), 2);
    advance(b, T0 + 31 * MINUTE);
    ck_assert_str_eq(b->said, "dead:orphan:c dead:orphan:d ");
    b->said[0] = 0;
    impression(b, "a", T0 + 19 * MINUTE, T0 + 40 * MINUTE);
    ck_assert_uint_eq(slu_joiner_waiting(b->joiner), 2);
    advance(b, T0 + 3 * HOUR);
    ck_assert_ptr_nonnull(strstr(b->said, "settled:2/2 "));
    ck_assert_uint_eq(slu_joiner_waiting(b->joiner), 0);
    /* Too old to wait at all. */
    ck_assert_int_eq(step(b, "e", "b", 0, T0, T0 + 30 * MINUTE), SLU_DEAD_ORPHAN);
    /* One impression id cannot pile up steps without bound. */
    int waiting = 0;
    for (int i = 0; i < 100; i++) {
        char id[16];
        snprintf(id, sizeof id, "s%d", i);
        waiting += step(b, id, "z", 0, T0 + HOUR, T0) == SLU_DEAD_NONE;
    }
    ck_assert_int_eq(waiting, 16);
    tear_down(b);
}
END_TEST

START_TEST(test_duplicates_and_limits)
{
    bench *b = set_up("fnw");
    impression(b, "a", T0, NO_WATERMARK);
    ck_assert_int_eq(impression(b, "a", T0, NO_WATERMARK), SLU_DEAD_DUPLICATE);
    step(b, "c", "a", 0, T0 + MINUTE, NO_WATERMARK);
    ck_assert_int_eq(step(b, "c", "a", 0, T0 + MINUTE, NO_WATERMARK), SLU_DEAD_DUPLICATE);
    ck_assert_int_eq(step(b, "c2", "a", 0, T0 + MINUTE, NO_WATERMARK), SLU_DEAD_REPEATED);
    ck_assert_int_eq(step(b, "d", "a", 1, T0 + 2 * HOUR + 1, NO_WATERMARK), SLU_DEAD_OUTSIDE_WINDOW);
    ck_assert_int_eq(step(b, "d", "a", 1, T0 - 1, NO_WATERMARK), SLU_DEAD_OUTSIDE_WINDOW);
    ck_assert_int_eq(step(b, "d", "a", 1, T0 + 2 * HOUR, NO_WATERMARK), SLU_DEAD_NONE);
    ck_assert_int_eq(impression(b, "old", T0, T0 + 2 * HOUR), SLU_DEAD_LATE);
    ck_assert_int_eq(impression(b, "young", T0 + 1, T0 + 2 * HOUR), SLU_DEAD_NONE);
    ck_assert_uint_eq(slu_joiner_waiting(b->joiner), 4);
    tear_down(b);
}
END_TEST

START_TEST(test_steps_without_ids)
{
    bench *b = set_up("fnw");
    impression(b, "a", T0, NO_WATERMARK);
    ck_assert_int_eq(step(b, "", "a", 0, T0, NO_WATERMARK), SLU_DEAD_NONE);
    ck_assert_int_eq(step(b, "", "a", 0, T0, NO_WATERMARK), SLU_DEAD_DUPLICATE);
    ck_assert_int_eq(step(b, "", "a", 1, T0, NO_WATERMARK), SLU_DEAD_NONE);
    tear_down(b);
}
END_TEST

START_TEST(test_window_label_is_final)
{
    bench *b = set_up("window");
    impression(b, "a", T0, NO_WATERMARK);
    advance(b, T0 + 10 * MINUTE); /* click window closes without a click */
    ck_assert_int_eq(step(b, "c", "a", 0, T0 + MINUTE, T0 + 10 * MINUTE), SLU_DEAD_LATE);
    ck_assert_int_eq(step(b, "d", "a", 1, T0 + HOUR, T0 + 10 * MINUTE), SLU_DEAD_NONE);
    advance(b, T0 + 2 * HOUR);
    ck_assert_str_eq(b->said, "arrive:../00 L./00 .L/00 settled:2/2 ");
    tear_down(b);
}
END_TEST

/* Commit and reopen between any two events: the joiner goes on as if nothing had been. */
START_TEST(test_reopen_between_events)
{
    bench *b = set_up("fnw");
    for (int i = 0; i < 6; i++) {
        switch (i) {
        case 0:
            step(b, "c", "a", 0, T0 + SECOND, T0);
            break;
        case 1:
            impression(b, "a", T0, T0);
            break;
        case 2:
            ck_assert_int_eq(step(b, "c", "a", 0, T0 + SECOND, T0), SLU_DEAD_DUPLICATE);
            break;
        case 3:
            step(b, "d", "a", 1, T0 + MINUTE, T0);
            break;
        case 4:
            OK(slu_joiner_predicted(b->joiner, slu_impression_key(sample_span("a")), (float[]){1, 2}, err));
            break;
        case 5:
            advance(b, T0 + 3 * HOUR);
            break;
        }
        slu_buf saved = SLU_BUF_INIT;
        slu_joiner_save(b->joiner, &saved);
        slu_commit *c = slu_commit_begin(b->store);
        OK(slu_join_table_flush(b->table, c));
        OK(slu_commit_write(c, err));
        slu_join_table_committed(b->table);
        slu_commit_abandon(c);
        slu_joiner_free(b->joiner);
        slu_join_table_close(b->table);
        slu_store_close(b->store);
        b->store = sample_store(b->directory, b->schema);
        start(b);
        OK(slu_joiner_load(b->joiner, saved.data, saved.len, err));
        slu_buf_free(&saved);
    }
    ck_assert_str_eq(b->said, "arrive:NN/00 P./10 .P/01 settled:3/3+p ");
    tear_down(b);
}
END_TEST

START_TEST(test_oracle_needs_the_future)
{
    slu_options *o = sample_options((const char *[]){"training.label_policy=oracle"}, 1);
    slu_joiner *j;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_joiner_new(o, NULL, NULL, NULL, &(slu_joiner_out){0}, &j, &err), SLU_ECONFIG);
    ck_assert_ptr_null(j);
    ck_assert_ptr_nonnull(strstr(err.message, "sluice-replay"));
    slu_options_free(o);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("joiner");
    TCase *c = tcase_create("joiner");
    tcase_add_test(c, test_fnw);
    tcase_add_test(c, test_fnw_later_step_first);
    tcase_add_test(c, test_window);
    tcase_add_test(c, test_steps_before_their_impression);
    tcase_add_test(c, test_orphans_die);
    tcase_add_test(c, test_duplicates_and_limits);
    tcase_add_test(c, test_steps_without_ids);
    tcase_add_test(c, test_window_label_is_final);
    tcase_add_test(c, test_reopen_between_events);
    tcase_add_test(c, test_oracle_needs_the_future);
    suite_add_tcase(s, c);
    return sample_run(s);
}
