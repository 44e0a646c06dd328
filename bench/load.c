/* load: what the benchmarks of the running system send (bench/mmoe24.yaml, but any config of single values
 * will do).
 *
 *   load events CONFIG BROKERS IMPRESSIONS SEED zipf|uniform|each IDS RATE
 *
 * Events into kafka.topics; RATE 0: unpaced.
 *
 *   load request CONFIG CANDIDATES SEED FILE
 *
 * One framed ScoreRequest, as load testers post it.
 *
 *   load fresh CONFIG BROKERS HOST:PORT PROBES GAP_MS
 *
 * From a sent event to the first score that shows it.
 *
 *   load copy BROKERS SOURCE TARGET UNTIL_MS [FROM_MS]
 *
 * Copies deltas from one topic to another (bench/topic_copy.h), byte for byte and with their offsets: what
 * TARGET lacks, up to the first record stamped UNTIL_MS (of the Unix epoch; 0: all there is). Without FROM_MS
 * at once. With it as they came, FROM_MS being the recorded time that is now: says "ready", waits for a line
 * (or the end) of standard input so that reading and sending do not overlap, then sleeps until each record's
 * turn.
 *
 * Ids: IDS values in each slot, ranks by Zipf's law with exponent 1 (rank = IDS^u), uniform, or each once in
 * turn. A click is a function of a few of the ids and of chance, one in ten impressions, one in ten clicks
 * converts: enough for every part to work.
 *
 * fresh asks about two candidates that differ in one value of the last slot, neither of which was ever seen:
 * they score alike, bit for bit, until the model has learned the impression that holds the first of them.
 * Nothing has to be believed about versions and clocks; the time ends with the answer that differs. One line
 * per probe on standard output, in ms.
 *
 * copy prints a line for each record, before any is sent: offset, timestamp, bytes, version, rows that it
 * brings or deletes, 1 when it ends its version (all 0 for what is no delta). Its last line says how many
 * were sent and, with FROM_MS, how long after their turn the broker had them. */
#include "base/clock.h"
#include "base/rng.h"
#include "bench/topic_copy.h"
#include "feature/value.h"
#include "sim/feeder.h"
#include "sim/grpc_client.h"
#include "sim/question.h"
#include "sluice/v1/delta.pb-c.h"
#include "sluice/v1/score.pb-c.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ASK_EVERY_US = 2000, PROBE_TIMEOUT_US = 30 * 1000 * 1000, MOST_FIELDS = 256, TEXT = 24 };

typedef struct load {
    slu_options *options;
    slu_schema *schema;
    slu_rng rng;
    uint32_t fields;
    uint64_t ids;
    enum { ZIPF, UNIFORM, EACH } law;
    uint64_t drawn;               /* impressions */
    char text[MOST_FIELDS][TEXT]; /* the values of the impression at hand */
    slu_value value[MOST_FIELDS];
    slu_values of[MOST_FIELDS];
} load;

static void need(int rc, const slu_error *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "load: %s\n", err->message);
    exit(1);
}

static void set_field(load *l, uint32_t i, const char *text)
{
    int n = snprintf(l->text[i], TEXT, "%s", text);
    l->value[i] = slu_text_value(l->text[i], (size_t)n);
    l->of[i] = (slu_values){&l->value[i], 1};
}

static uint64_t draw_id(load *l)
{
    if (l->law == EACH)
        return l->drawn % l->ids;
    if (l->law == UNIFORM)
        return slu_rng_below(&l->rng, l->ids);
    return (uint64_t)pow((double)l->ids, slu_rng_unit(&l->rng)) - 1;
}

/* Returns a number that the labels depend on. */
static uint64_t draw_impression(load *l)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < l->fields; i++) {
        char text[TEXT];
        uint64_t id = draw_id(l);
        snprintf(text, sizeof text, "%" PRIu64, id);
        set_field(l, i, text);
        sum += slu_mix64(id * 256 + i) >> 62; /* 0..3 */
    }
    l->drawn++;
    return sum;
}

static void start(load *l, const char *config, const char *brokers, uint64_t seed)
{
    slu_error err = SLU_ERROR_INIT;
    char set[300];
    snprintf(set, sizeof set, "kafka.brokers=%s", brokers ? brokers : "127.0.0.1:1");
    const char *sets[] = {set};
    need(slu_options_load(config, sets, 1, &l->options, &err), &err);
    need(slu_schema_new(l->options, &l->schema, &err), &err);
    l->fields = slu_schema_fields(l->schema);
    if (l->fields > MOST_FIELDS) {
        fprintf(stderr, "load: at most %d fields\n", MOST_FIELDS);
        exit(1);
    }
    slu_rng_seed(&l->rng, seed);
}

static slu_feeder *open_feeder(load *l, double rate)
{
    slu_error err = SLU_ERROR_INIT;
    slu_feeder *f;
    slu_feeder_opts opts = {.rate = rate};
    need(slu_feeder_open(l->options, l->schema, &opts, 10000, &f, &err), &err);
    return f;
}

static void send_event(slu_feeder *f, const slu_event *e)
{
    slu_error err = SLU_ERROR_INIT;
    need(slu_feeder_send(f, e, &err), &err);
}

static slu_event impression(load *l, const char *id, int64_t time_us)
{
    slu_span s = {id, strlen(id)};
    return (slu_event){
        .kind = SLU_EVENT_IMPRESSION, .id = s, .impression_id = s, .time_us = time_us, .fields = l->of};
}

static int events(load *l, uint64_t n, double rate)
{
    slu_error err = SLU_ERROR_INIT;
    slu_feeder *f = open_feeder(l, rate);
    int64_t began = slu_wall_us(&slu_system_clock), run = began;
    for (uint64_t i = 0; i < n; i++) {
        char id[48], step[64];
        snprintf(id, sizeof id, "b%" PRId64 "-%" PRIu64, run, i);
        double odds = .02 * (double)(draw_impression(l) % 10);
        /* Unpaced, a backlog: event time goes on by a millisecond an impression from an hour ago. */
        int64_t at =
            rate > 0 ? slu_wall_us(&slu_system_clock) : began - 3600 * SLU_SECOND_US + (int64_t)i * 1000;
        slu_event e = impression(l, id, at);
        send_event(f, &e);
        for (uint32_t s = 0; s < l->options->n_steps && slu_rng_unit(&l->rng) < odds; s++, odds = .1) {
            snprintf(step, sizeof step, "%s-%u", id, s);
            slu_event click = {.kind = SLU_EVENT_STEP,
                               .id = {step, strlen(step)},
                               .impression_id = e.id,
                               .step = s,
                               .time_us = at + 1 + s};
            send_event(f, &click);
        }
    }
    need(slu_feeder_drain(f, false, 60000, &err), &err);
    slu_feeder_counts c = slu_feeder_count(f);
    double seconds = (double)(slu_wall_us(&slu_system_clock) - began) / 1e6;
    printf("sent=%" PRIu64 " seconds=%.2f per_second=%.0f\n", c.acknowledged, seconds,
           (double)c.acknowledged / seconds);
    slu_feeder_close(f);
    return c.failed != 0;
}

/* ---- questions ---- */

static void pack(load *l, slu_values *const *fields, uint32_t n, slu_arena *arena, slu_buf *out)
{
    slu_error err = SLU_ERROR_INIT;
    need(slu_question_pack(l->schema, (const slu_values *const *)fields, n, arena, out, &err), &err);
}

static int request(load *l, uint32_t candidates, const char *path)
{
    slu_arena *arena = slu_arena_new(1 << 20, 256 << 20);
    slu_values **fields = calloc(candidates, sizeof *fields);
    slu_buf message = SLU_BUF_INIT;
    for (uint32_t i = 0; i < candidates; i++) {
        draw_impression(l);
        fields[i] = slu_question_keep(l->schema, l->of, arena);
    }
    pack(l, fields, candidates, arena, &message);
    FILE *f = fopen(path, "wb");
    uint8_t prefix[5] = {0, (uint8_t)(message.len >> 24), (uint8_t)(message.len >> 16),
                         (uint8_t)(message.len >> 8), (uint8_t)message.len};
    bool ok = f && fwrite(prefix, 5, 1, f) == 1 && fwrite(message.data, message.len, 1, f) == 1;
    if (f && fclose(f))
        ok = false;
    if (!ok)
        perror(path);
    slu_buf_free(&message);
    free(fields);
    slu_arena_free(arena);
    return !ok;
}

/* True when the two candidates of |request| score differently. */
static bool differ(slu_grpc_client *c, const slu_buf *request, slu_buf *response)
{
    char why[512];
    int status = slu_grpc_client_call(c, "/sluice.v1.Scoring/Score", request->data, request->len,
                                      2 * SLU_SECOND_US, response, why, sizeof why);
    if (status) {
        fprintf(stderr, "load: the scorer answered %d: %s\n", status, why);
        exit(1);
    }
    Sluice__V1__ScoreResponse *r = sluice__v1__score_response__unpack(NULL, response->len, response->data);
    if (!r || !r->n_tasks || r->tasks[0]->n_conditional != 2) {
        fprintf(stderr, "load: not an answer for two candidates\n");
        exit(1);
    }
    bool yes = r->tasks[0]->conditional[0] != r->tasks[0]->conditional[1];
    sluice__v1__score_response__free_unpacked(r, NULL);
    return yes;
}

static void wait_us(int64_t us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&t, NULL);
}

static int fresh(load *l, const char *scorer, int probes, int gap_ms)
{
    slu_error err = SLU_ERROR_INIT;
    slu_feeder *f = open_feeder(l, 0);
    slu_grpc_client *c;
    need(slu_grpc_client_connect(scorer, 5 * SLU_SECOND_US, &c, &err), &err);
    slu_arena *arena = slu_arena_new(64 << 10, 1 << 20);
    slu_buf question = SLU_BUF_INIT, response = SLU_BUF_INIT;
    int64_t run = slu_wall_us(&slu_system_clock);
    int lost = 0;
    for (int i = 0; i < probes; i++) {
        char value[TEXT], id[48];
        slu_values *pair[2];
        slu_arena_reset(arena);
        slu_buf_clear(&question);
        draw_impression(l);
        snprintf(value, sizeof value, "n%" PRId64 "-%d", run % 1000000000, i);
        set_field(l, l->fields - 1, value);
        pair[1] = slu_question_keep(l->schema, l->of, arena);
        value[0] = 'p';
        set_field(l, l->fields - 1, value);
        pair[0] = slu_question_keep(l->schema, l->of, arena);
        pack(l, pair, 2, arena, &question);
        if (differ(c, &question, &response)) {
            fprintf(stderr, "load: values that were never seen score differently\n");
            return 1;
        }
        snprintf(id, sizeof id, "p%" PRId64 "-%d", run, i);
        slu_event e = impression(l, id, slu_wall_us(&slu_system_clock));
        int64_t sent = slu_mono_us(&slu_system_clock), now = sent;
        send_event(f, &e);
        do {
            wait_us(ASK_EVERY_US);
            now = slu_mono_us(&slu_system_clock);
        } while (!differ(c, &question, &response) && now - sent < PROBE_TIMEOUT_US);
        now = slu_mono_us(&slu_system_clock);
        lost += now - sent >= PROBE_TIMEOUT_US;
        printf("%.2f\n", (double)(now - sent) / 1e3);
        fflush(stdout);
        wait_us((int64_t)slu_rng_below(&l->rng, (uint64_t)gap_ms * 2000 + 1));
    }
    slu_buf_free(&question);
    slu_buf_free(&response);
    slu_grpc_client_free(c);
    slu_feeder_close(f);
    slu_arena_free(arena);
    if (lost)
        fprintf(stderr, "load: %d of %d events were in no score within 30 s\n", lost, probes);
    return lost != 0;
}

/* ---- deltas ---- */

static void print_record(topic_copy_record r)
{
    Sluice__V1__ModelDelta *d = sluice__v1__model_delta__unpack(NULL, r.len, r.value);
    size_t rows = 0;
    for (size_t i = 0; d && i < d->n_rows; i++)
        rows += (d->rows[i]->ids.len + d->rows[i]->deleted.len) / sizeof(uint64_t);
    printf("%" PRId64 " %" PRId64 " %zu %" PRIu64 " %zu %d\n", r.offset, r.time_ms, r.len, d ? d->version : 0,
           rows, d && d->chunk + 1 == d->chunks);
    if (d)
        sluice__v1__model_delta__free_unpacked(d, NULL);
}

static void wait_for_word(void)
{
    printf("ready\n");
    fflush(stdout);
    for (int c = getchar(); c != EOF && c != '\n'; c = getchar())
        ;
}

static int copy(const char *brokers, const char *source, const char *target, int64_t until_ms,
                int64_t from_ms)
{
    slu_error err = SLU_ERROR_INIT;
    topic_copy *c;
    need(topic_copy_read(brokers, source, target, until_ms, &c, &err), &err);
    for (size_t i = 0; i < topic_copy_records(c); i++)
        print_record(topic_copy_at(c, i));
    if (from_ms)
        wait_for_word();
    need(topic_copy_send(c, from_ms, &err), &err);
    topic_copy_late late = topic_copy_lateness(c);
    printf("sent=%zu", topic_copy_records(c));
    if (from_ms)
        printf(" late_p99_ms=%.2f late_worst_ms=%.2f", late.p99_ms, late.worst_ms);
    printf("\n");
    topic_copy_free(c);
    return 0;
}

int main(int argc, char **argv)
{
    load l = {.ids = 41667};
    int status = 2;
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "events") && argc == 9) {
        start(&l, argv[2], argv[3], strtoull(argv[5], NULL, 10));
        l.law = !strcmp(argv[6], "uniform") ? UNIFORM : !strcmp(argv[6], "each") ? EACH : ZIPF;
        l.ids = strtoull(argv[7], NULL, 10);
        status = events(&l, strtoull(argv[4], NULL, 10), atof(argv[8]));
    } else if (!strcmp(what, "request") && argc == 6) {
        start(&l, argv[2], NULL, strtoull(argv[4], NULL, 10));
        status = request(&l, (uint32_t)atoi(argv[3]), argv[5]);
    } else if (!strcmp(what, "fresh") && argc == 7) {
        start(&l, argv[2], argv[3], 1);
        status = fresh(&l, argv[4], atoi(argv[5]), atoi(argv[6]));
    } else if (!strcmp(what, "copy") && (argc == 6 || argc == 7)) {
        return copy(argv[2], argv[3], argv[4], strtoll(argv[5], NULL, 10),
                    argc == 7 ? strtoll(argv[6], NULL, 10) : 0);
    } else {
        fprintf(stderr, "usage: load events CONFIG BROKERS IMPRESSIONS SEED zipf|uniform|each IDS RATE\n"
                        "       load request CONFIG CANDIDATES SEED FILE\n"
                        "       load fresh CONFIG BROKERS HOST:PORT PROBES GAP_MS\n"
                        "       load copy BROKERS SOURCE TARGET UNTIL_MS [FROM_MS]\n");
        return 2;
    }
    slu_schema_free(l.schema);
    slu_options_free(l.options);
    return status;
}
