#include "serving/subscriber.h"
#include "base/background.h"
#include "base/clock.h"
#include "base/log.h"
#include "serving/delta_applier.h"
#include "serving/delta_topic.h"
#include "serving/model_store.h"
#include "store/keeper.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPONENT     "subscriber"
#define POLL_MS       100
#define COMMIT_US     (SLU_SECOND_US / 2) /* age of the oldest version that is not on disk yet */
#define COMMIT_BYTES  (8u << 20)          /* and size of what waits */
#define RETRY_US      SLU_SECOND_US       /* after the disk refused */
#define DISK_BYTES_US (10 * SLU_SECOND_US)

struct slu_subscriber {
    slu_model_table *table;
    delta_topic *topic;
    model_store *store;
    slu_delta_applier *applier;
    slu_keeper *keeper;
    pthread_t thread;
    bool stop; /* atomic */

    /* Of the thread alone. */
    bool at_end, announced, held;
    int64_t dirty_since_us, retry_at_us, piece_at_us, disk_at_us; /* monotonic; 0: not */
    char refusal[256];                                            /* why the last message was not applied */
    char disk[256];                                               /* why the last commit failed */
    slu_error last;                                               /* of the final commit */

    pthread_mutex_t lock; /* guards stats */
    slu_subscriber_stats stats;
};

static int64_t now_us(void)
{
    return slu_mono_us(&slu_system_clock);
}

/* ---- what others see ---- */

static const char *problem_of(const slu_subscriber *s)
{
    if (s->disk[0])
        return s->disk;
    if (s->refusal[0])
        return s->refusal;
    if (s->held)
        return "held at this version by the file " SLU_HOLD_FILE " in its store (sluice-store release)";
    return delta_topic_trouble(s->topic);
}

static void update_stats(slu_subscriber *s, bool committed)
{
    slu_delta_position at = slu_delta_applier_position(s->applier);
    slu_delta_counts n = slu_delta_applier_counts(s->applier);
    bool measure = now_us() >= s->disk_at_us;
    uint64_t disk = measure ? model_store_disk_bytes(s->store) : 0;

    if (measure)
        s->disk_at_us = now_us() + DISK_BYTES_US;
    pthread_mutex_lock(&s->lock);
    slu_subscriber_stats *o = &s->stats;
    o->version = at.version;
    o->learned_through_us = at.learned_through_us;
    o->applied = n.applied;
    o->skipped = n.skipped;
    o->gaps = n.gaps;
    o->refused = n.refused;
    o->mismatches = n.mismatches;
    o->verified = slu_delta_applier_verified(s->applier);
    o->lineage = at.lineage;
    o->sums = slu_model_current_sums(s->table);
    o->commits += committed;
    if (measure)
        o->disk_bytes = disk;
    o->rows = slu_model_rows(s->table);
    o->bytes = slu_model_bytes(s->table);
    o->current = s->at_end && at.version && !s->refusal[0];
    snprintf(o->problem, sizeof o->problem, "%s", problem_of(s));
    pthread_mutex_unlock(&s->lock);
}

void slu_subscriber_get_stats(slu_subscriber *s, slu_subscriber_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    pthread_mutex_unlock(&s->lock);
}

/* ---- the thread ---- */

static void announce(slu_subscriber *s)
{
    slu_delta_position at = slu_delta_applier_position(s->applier);
    if (!s->at_end || !at.version || s->announced)
        return;
    s->announced = true;
    SLU_INFO(COMPONENT, "current", SLU_U64("version", at.version), SLU_U64("rows", slu_model_rows(s->table)),
             SLU_U64("bytes", slu_model_bytes(s->table)));
}

static void refused(slu_subscriber *s, int64_t offset, const slu_error *err)
{
    bool again = !strcmp(s->refusal, err->message);
    snprintf(s->refusal, sizeof s->refusal, "%.*s", (int)sizeof s->refusal - 1, err->message);
    if (again)
        return;
    if (err->code == SLU_EAGAIN)
        SLU_WARN(COMPONENT, "waiting for a base", SLU_STR("reason", err->message), SLU_I64("offset", offset));
    else
        SLU_ERROR(COMPONENT, "delta refused; the model stays as it is", SLU_STR("reason", err->message),
                  SLU_I64("offset", offset));
}

static void take(slu_subscriber *s, const delta_message *m)
{
    slu_error err = SLU_ERROR_INIT;
    bool first = slu_delta_applier_position(s->applier).version == 0;
    int rc = slu_delta_apply(s->applier, m->bytes, m->len, &err);

    if (rc < 0) {
        refused(s, m->offset, &err);
        return;
    }
    if (rc == 0)
        return;
    s->refusal[0] = 0;
    model_store_reached(s->store, m->offset + 1);
    if (!s->dirty_since_us)
        s->dirty_since_us = now_us();
    if (first)
        SLU_INFO(COMPONENT, "first model", SLU_U64("version", slu_delta_applier_position(s->applier).version),
                 SLU_U64("rows", slu_model_rows(s->table)));
}

static bool commit_due(const slu_subscriber *s, delta_event last)
{
    if (!model_store_dirty(s->store) || slu_delta_applier_midway(s->applier))
        return false;
    int64_t now = now_us();
    if (now < s->retry_at_us)
        return false;
    return last == DELTA_END || model_store_pending(s->store) >= COMMIT_BYTES ||
           now - s->dirty_since_us >= COMMIT_US;
}

static bool commit(slu_subscriber *s)
{
    slu_error err = SLU_ERROR_INIT;
    if (!model_store_commit(s->store, &err)) {
        if (s->disk[0])
            SLU_INFO(COMPONENT, "the store takes commits again");
        s->disk[0] = 0;
        s->dirty_since_us = s->retry_at_us = 0;
        return true;
    }
    if (!s->disk[0])
        SLU_ERROR(COMPONENT, "the store refused a commit; serving goes on, trying again",
                  SLU_STR("reason", err.message));
    snprintf(s->disk, sizeof s->disk, "%.*s", (int)sizeof s->disk - 1, err.message);
    s->retry_at_us = now_us() + RETRY_US;
    return false;
}

/* While the disk refuses, what waits for it is bounded by not reading on. Within a base the store writes
 * pieces; they are tried again from here. */
static bool too_much_waits(slu_subscriber *s)
{
    if (model_store_pending(s->store) < 4 * COMMIT_BYTES)
        return false;
    if (!slu_delta_applier_midway(s->applier))
        return s->retry_at_us != 0;
    if (now_us() < s->piece_at_us)
        return true;
    slu_error err = SLU_ERROR_INIT;
    if (!model_store_retry(s->store, &err)) {
        s->disk[0] = 0;
        return false;
    }
    if (!s->disk[0])
        SLU_ERROR(COMPONENT, "the store refuses a base; serving goes on, trying again",
                  SLU_STR("reason", err.message));
    snprintf(s->disk, sizeof s->disk, "%.*s", (int)sizeof s->disk - 1, err.message);
    s->piece_at_us = now_us() + RETRY_US;
    return true;
}

static delta_event read_one(slu_subscriber *s)
{
    delta_message m;
    delta_event e = delta_topic_next(s->topic, POLL_MS, &m);
    switch (e) {
    case DELTA_MESSAGE:
        take(s, &m);
        break;
    case DELTA_END:
        s->at_end = true;
        break;
    case DELTA_REWOUND:
        s->at_end = false;
        break;
    case DELTA_NOTHING:
        break;
    }
    return e;
}

/* An operator wants this version and no other, until sluice-store release. Between versions only. */
static bool is_held(slu_subscriber *s)
{
    if (slu_delta_applier_midway(s->applier))
        return false;
    bool held = slu_is_held(slu_store_path(model_store_raw(s->store)));
    if (held != s->held)
        SLU_WARN(COMPONENT, held ? "held at this version" : "released; following the trainer again",
                 SLU_U64("version", slu_delta_applier_position(s->applier).version));
    s->held = held;
    return held;
}

static void *run(void *arg)
{
    slu_subscriber *s = arg;
    /* News may wait a moment, requests may not. What RocksDB has started by now was for loading. */
    pthread_setname_np(pthread_self(), "subscriber");
    slu_background_enter();
    slu_background_adopt("rocksdb:");
    while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
        delta_event e = DELTA_NOTHING;
        if (is_held(s) || too_much_waits(s))
            nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
        else
            e = read_one(s);
        bool committed = commit_due(s, e) && commit(s);
        announce(s);
        update_stats(s, committed);
    }
    if (model_store_dirty(s->store)) {
        slu_delta_applier_free(s->applier); /* drops a base that is only half there */
        s->applier = NULL;
        model_store_commit(s->store, &s->last);
    }
    return NULL;
}

/* ---- start and stop ---- */

static void release(slu_subscriber *s)
{
    slu_keeper_stop(s->keeper);
    slu_delta_applier_free(s->applier);
    delta_topic_close(s->topic);
    model_store_close(s->store);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static int load(slu_subscriber *s, int64_t *offset, slu_error *err)
{
    slu_delta_position at;
    int64_t began = now_us();
    int rc = model_store_load(s->store, s->table, &at, offset, err);
    if (rc)
        return rc;
    slu_delta_applier_resume(s->applier, &at);
    if (at.version)
        SLU_INFO(COMPONENT, "model loaded from the store", SLU_U64("version", at.version),
                 SLU_U64("rows", slu_model_rows(s->table)), SLU_I64("offset", *offset),
                 SLU_F64("seconds", (double)(now_us() - began) * 1e-6));
    else
        SLU_INFO(COMPONENT, "no model yet; reading the delta topic from its beginning");
    return 0;
}

typedef struct opening {
    const slu_options *options;
    int64_t offset;
    delta_topic **topic;
    slu_error *err;
    int rc;
} opening;

static void *open_topic(void *arg)
{
    opening *o = arg;
    slu_background_enter();
    o->rc = delta_topic_open(o->options, o->offset, o->topic, o->err);
    return NULL;
}

/* librdkafka's threads come to be with the topic and stand where the one stands that opens it. */
static int open_topic_in_background(opening o)
{
    pthread_t t;
    if (pthread_create(&t, NULL, open_topic, &o))
        return slu_fail(o.err, SLU_EIO, "no thread can be started to open the delta topic");
    pthread_join(t, NULL);
    return o.rc;
}

int slu_subscriber_start(const slu_options *options, const slu_schema *schema, slu_model_table *table,
                         uint64_t max_delta, slu_subscriber **sp, slu_error *err)
{
    int64_t offset = -1;
    *sp = NULL;
    slu_subscriber *s = calloc(1, sizeof *s);
    if (!s)
        return slu_fail(err, SLU_ENOMEM, "no memory for the subscriber");
    pthread_mutex_init(&s->lock, NULL);
    s->table = table;
    s->applier = slu_delta_applier_new(schema, table);
    int rc = s->applier ? 0 : slu_fail(err, SLU_ENOMEM, "no memory for the subscriber");
    if (!rc) {
        slu_delta_applier_limit(s->applier, max_delta);
        rc = model_store_open(options, schema, table, &s->store, err);
    }
    if (!rc)
        rc = load(s, &offset, err);
    slu_keeper_config keeper = {
        .store = s->store ? model_store_raw(s->store) : NULL,
        .dir = options->backup.path,
        .below = "scorer",
        .every_us = options->backup.every_us,
        .keep = options->backup.keep,
    };
    if (!rc)
        rc = slu_keeper_start(&keeper, &s->keeper, err);
    if (!rc)
        rc = open_topic_in_background((opening){options, offset, &s->topic, err, 0});
    if (!rc) {
        slu_delta_sink sink = model_store_sink(s->store);
        slu_delta_applier_sink(s->applier, &sink);
        update_stats(s, false);
        if (pthread_create(&s->thread, NULL, run, s))
            rc = slu_fail(err, SLU_EIO, "the subscriber's thread cannot be started");
    }
    if (rc) {
        release(s);
        return rc;
    }
    *sp = s;
    return 0;
}

int slu_subscriber_stop(slu_subscriber *s, slu_error *err)
{
    if (!s)
        return 0;
    __atomic_store_n(&s->stop, true, __ATOMIC_RELEASE);
    pthread_join(s->thread, NULL);
    int rc = s->last.code ? slu_fail(err, s->last.code, "%s", s->last.message) : 0;
    release(s);
    return rc;
}
