/* A base on its way to a Kafka that takes nothing, and deltas that wait behind it until publish.outbox is
 * full: when Kafka takes messages again the base is completed first, the deltas follow in order, and the
 * outbox empties, without anything new being read. */
#include "tests/pipeline_sample.h"
#include "trainer/delta.h"
#include "trainer/pipeline.h"

#define OUTBOX (256 << 10)
#define ROWS   3000

static slu_error *err = &(slu_error)SLU_ERROR_INIT;

/* Kafka. What it takes it has acknowledged. */
typedef struct kafka {
    bool away;
    uint64_t deltas, chunks; /* taken */
    uint64_t deltas_at_chunk;
    int open_chunks; /* on the way while it is away */
} kafka;

static void take(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len)
{
    (void)message, (void)len;
    kafka *k = ctx;
    if (ch != SLU_CHANNEL_DELTAS)
        return;
    ck_assert(!k->away);
    ck_assert_uint_eq(sequence, k->deltas + 1); /* in order, none twice */
    k->deltas = sequence;
}

static void take_base(void *ctx, const void *message, size_t len)
{
    (void)message, (void)len;
    kafka *k = ctx;
    ck_assert_uint_eq(k->deltas, k->deltas_at_chunk); /* no delta between its chunks */
    k->chunks++;
    k->open_chunks += k->away;
}

static uint64_t acked(void *ctx, slu_channel ch)
{
    kafka *k = ctx;
    return ch == SLU_CHANNEL_DELTAS ? k->deltas : 0;
}

/* One chunk may be on the way. */
static bool room(void *ctx)
{
    kafka *k = ctx;
    return !k->away || !k->open_chunks;
}

static bool room_for(void *ctx, slu_channel ch, size_t len)
{
    (void)ch, (void)len;
    return !((kafka *)ctx)->away;
}

static void feed(slu_pipeline *p, const slu_schema *schema, int i)
{
    static const slu_partition part = {"t", 0};
    char id[16], user[16];
    slu_value values[4];
    slu_values fields[4];
    snprintf(id, sizeof id, "i%d", i);
    snprintf(user, sizeof user, "u%d", i % ROWS);
    slu_event e = sample_impression(schema, id, T0 + i * SECOND, user, "p", values, fields);
    slu_record r = {.kind = SLU_RECORD_EVENT, .offset = i, .event = &e};
    OK(slu_pipeline_feed(p, &part, &r, err));
}

/* What the daemon does between records. */
static void turn(slu_pipeline *p)
{
    OK(slu_pipeline_pump(p, err));
    OK(slu_pipeline_commit(p, err));
    int rc = slu_pipeline_base_next(p, err);
    ck_assert_msg(rc >= 0, "%s", err->message);
}

START_TEST(test_deltas_behind_a_base_and_a_full_outbox)
{
    slu_options *o = sample_options((const char *[]){"publish.chunk=4KiB"}, 1);
    slu_schema *schema = sample_schema(o);
    char *directory = sample_directory();
    slu_store *store = sample_store(directory, schema);
    kafka k = {0};
    slu_sink sink = {take, take_base, acked, &k, room};
    slu_pipeline *p;
    slu_pipeline_config config = {.options = o,
                                  .schema = schema,
                                  .store = store,
                                  .sink = &sink,
                                  .room_for = room_for,
                                  .deltas = true,
                                  .background = _i,
                                  .clock = &slu_system_clock};
    OK(slu_pipeline_open(&config, &p, err));
    int i = 0;
    while (i < ROWS) {
        feed(p, schema, i++);
        if (i % 100 == 0)
            turn(p);
    }
    ck_assert_uint_gt(k.deltas, 0);

    k.away = true;
    OK(slu_pipeline_base_begin(p, err));
    k.deltas_at_chunk = k.deltas;
    uint64_t most = 0;
    while (slu_pipeline_outbox_bytes(p) <= OUTBOX) { /* beyond it the daemon reads nothing */
        for (int n = 0; n < 100; n++)
            feed(p, schema, i++);
        uint64_t before = slu_pipeline_outbox_bytes(p);
        turn(p);
        uint64_t grown = slu_pipeline_outbox_bytes(p) - before;
        most = grown > most ? grown : most;
        ck_assert_int_lt(i, 100 * ROWS);
    }
    ck_assert(slu_pipeline_base_going(p));
    ck_assert_uint_le(k.chunks, 1);
    ck_assert_uint_le(slu_pipeline_outbox_bytes(p), OUTBOX + most); /* the limit and one commit */
    slu_pipeline_stats s;
    for (int n = 0; n < 50; n++) /* it waits, and needs nothing more for that */
        turn(p);
    slu_pipeline_get_stats(p, &s);
    uint64_t waiting = s.outbox_waiting;
    ck_assert_uint_gt(waiting, 1);
    ck_assert_uint_eq(k.deltas, k.deltas_at_chunk);

    k.away = false;
    for (int n = 0; slu_pipeline_base_going(p); n++) {
        ck_assert_uint_eq(k.deltas, k.deltas_at_chunk);
        ck_assert_int_lt(n, 10000);
        turn(p);
    }
    ck_assert_uint_gt(k.chunks, 10);
    k.deltas_at_chunk = UINT64_MAX; /* no chunk comes any more */
    for (int n = 0; slu_pipeline_outbox_bytes(p) > 0; n++) {
        ck_assert_int_lt(n, 10000);
        turn(p);
    }
    ck_assert_uint_ge(k.deltas, waiting);
    slu_pipeline_get_stats(p, &s);
    ck_assert_uint_eq(s.outbox_waiting, 0);
    feed(p, schema, i++); /* and reading goes on */
    slu_pipeline_close(p);
    slu_store_close(store);
    sample_remove(directory);
    slu_schema_free(schema);
    slu_options_free(o);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pipeline_base");
    TCase *c = tcase_create("pipeline_base");
    tcase_set_timeout(c, 200);
    tcase_add_loop_test(c, test_deltas_behind_a_base_and_a_full_outbox, 0, 2);
    suite_add_tcase(s, c);
    return sample_run(s);
}
