#include "trainer/joiner.h"
#include "model/loss.h"
#include "trainer/oracle.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Steps that one missing impression may have waiting; more are dead as orphans at once, so that a client that
 * invents impression ids cannot grow a record without bound. */
#define MAX_ORPHANS 16

enum { RECORD_IMPRESSION = 1, RECORD_ORPHANS = 2 };

/* The record of an impression: this header, then the encoded features. Multiples of 8, so both stay aligned
 * in the table. */
typedef struct impression {
    uint8_t kind;      /* RECORD_IMPRESSION */
    uint8_t steps;     /* mask of steps that happened inside their windows */
    uint8_t closed;    /* windows closed so far (policy window) */
    uint8_t predicted; /* logits are valid */
    uint32_t reserved;
    int64_t time_us;
    uint64_t timer;                   /* sequence of its armed timer: other timers for this key are stale */
    uint64_t step_ids[SLU_MAX_STEPS]; /* hash of the event id that a step was taken from */
    float logits[SLU_MAX_STEPS];      /* prediction on arrival */
} impression;

/* Steps that came before their impression: this header, then |bytes| of packed steps. */
typedef struct orphans {
    uint8_t kind; /* RECORD_ORPHANS */
    uint8_t count;
    uint16_t reserved;
    uint32_t bytes;
    uint64_t timer;
} orphans;

struct slu_joiner {
    const slu_options *options;
    const slu_schema *schema;
    slu_join_table *table;
    const struct slu_oracle *oracle;
    slu_joiner_out out;
    uint32_t tasks;
    int64_t last_window_us;
    slu_buf scratch;       /* a record under construction */
    slu_buf waiting_steps; /* copy of orphans while they are handed on */
    uint64_t sequence;     /* of timers, never reused */
    uint64_t waiting;
};

slu_hash128 slu_impression_key(slu_span id)
{
    return slu_hash_128(id.p, id.n, 0);
}

int slu_joiner_new(const slu_options *options, const slu_schema *schema, slu_join_table *table,
                   const struct slu_oracle *oracle, const slu_joiner_out *out, slu_joiner **jp,
                   slu_error *err)
{
    *jp = NULL;
    if (options->training.label_policy == SLU_POLICY_ORACLE && !oracle)
        return slu_fail(
            err, SLU_ECONFIG,
            "training.label_policy: oracle needs to know the future, so it works in sluice-replay only; "
            "use fnw or window");
    slu_joiner *j = calloc(1, sizeof *j);
    if (!j)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the joiner");
    j->options = options;
    j->schema = schema;
    j->table = table;
    j->oracle = oracle;
    j->out = *out;
    j->tasks = options->n_steps;
    j->last_window_us = options->steps[options->n_steps - 1].window_us;
    *jp = j;
    return 0;
}

void slu_joiner_free(slu_joiner *j)
{
    if (!j)
        return;
    slu_buf_free(&j->scratch);
    slu_buf_free(&j->waiting_steps);
    free(j);
}

/* Bit t: all steps 0..t are in |steps|. */
static uint8_t entire_space(uint32_t steps, uint32_t tasks)
{
    uint8_t labels = 0;
    for (uint32_t t = 0; t < tasks && (steps >> t & 1); t++)
        labels |= (uint8_t)(1u << t);
    return labels;
}

static const slu_encoded *encoded_of(const impression *m)
{
    return (const slu_encoded *)(m + 1);
}

static slu_sample sample_of(slu_hash128 key, const impression *m, uint8_t labels)
{
    return (slu_sample){.key = key, .time_us = m->time_us, .labels = labels, .x = encoded_of(m)};
}

static int say(slu_joiner *j, slu_sample *s, uint8_t tasks, uint8_t how, slu_error *err)
{
    for (uint32_t t = 0; t < j->tasks; t++)
        s->say[t] = tasks >> t & 1 ? how : SLU_SAY_NOTHING;
    return j->out.sample(j->out.ctx, s, err);
}

/* ---- what the policies emit ---- */

static int emit_arrival(slu_joiner *j, slu_hash128 key, const impression *m, slu_error *err)
{
    uint8_t all = (uint8_t)((1u << j->tasks) - 1);
    slu_sample s = sample_of(key, m, 0);
    s.arrival = true;
    switch (j->options->training.label_policy) {
    case SLU_POLICY_FNW:
        return say(j, &s, all, SLU_SAY_FNW_NEGATIVE, err);
    case SLU_POLICY_WINDOW:
        return say(j, &s, 0, SLU_SAY_NOTHING, err);
    case SLU_POLICY_ORACLE:
        s.labels = entire_space(slu_oracle_steps(j->oracle, key), j->tasks);
        return say(j, &s, all, SLU_SAY_LABEL, err);
    }
    return 0;
}

/* A step changed the labels from |before| to |after|. */
static int emit_step(slu_joiner *j, slu_hash128 key, const impression *m, uint8_t before, uint8_t after,
                     slu_error *err)
{
    uint8_t fresh = after & (uint8_t)~before;
    if (j->options->training.label_policy != SLU_POLICY_FNW || !fresh)
        return 0;
    slu_sample s = sample_of(key, m, fresh);
    return say(j, &s, fresh, SLU_SAY_FNW_POSITIVE, err);
}

static int emit_window(slu_joiner *j, slu_hash128 key, const impression *m, uint32_t task, slu_error *err)
{
    slu_sample s = sample_of(key, m, entire_space(m->steps, j->tasks));
    return say(j, &s, (uint8_t)(1u << task), SLU_SAY_LABEL, err);
}

/* ---- timers ---- */

static int arm(slu_joiner *j, int64_t deadline_us, uint64_t *timer, slu_hash128 key, slu_error *err)
{
    *timer = ++j->sequence;
    return slu_join_timer_add(j->table, deadline_us < 0 ? 0 : deadline_us, *timer, key, err);
}

/* When the record has something to do next. */
static int64_t next_deadline(const slu_joiner *j, const impression *m)
{
    if (j->options->training.label_policy == SLU_POLICY_WINDOW)
        return m->time_us + j->options->steps[m->closed].window_us;
    return m->time_us + j->last_window_us;
}

/* ---- steps ---- */

static slu_dead_reason take_step(slu_joiner *j, impression *m, uint32_t step, int64_t time_us,
                                 uint64_t id_hash)
{
    if (m->steps >> step & 1)
        return m->step_ids[step] == id_hash ? SLU_DEAD_DUPLICATE : SLU_DEAD_REPEATED;
    if (time_us < m->time_us || time_us > m->time_us + j->options->steps[step].window_us)
        return SLU_DEAD_OUTSIDE_WINDOW;
    /* Its label was learned when the window closed: taking it now would make what is settled untrue. */
    if (j->options->training.label_policy == SLU_POLICY_WINDOW && step < m->closed)
        return SLU_DEAD_LATE;
    m->steps |= (uint8_t)(1u << step);
    m->step_ids[step] = id_hash;
    return SLU_DEAD_NONE;
}

/* An event without an id of its own is known by what it says. */
static uint64_t step_id_hash(slu_span id, uint32_t step)
{
    return id.n ? slu_hash64(id.p, id.n, 1) : 0x9e3779b97f4a7c15ULL + step;
}

static int join_step(slu_joiner *j, slu_hash128 key, impression *m, uint32_t step, int64_t time_us,
                     slu_span id, slu_dead_reason *why, slu_error *err)
{
    uint8_t before = entire_space(m->steps, j->tasks);
    *why = take_step(j, m, step, time_us, step_id_hash(id, step));
    if (*why != SLU_DEAD_NONE)
        return 0;
    int rc = slu_join_table_touch(j->table, key);
    return rc ? rc : emit_step(j, key, m, before, entire_space(m->steps, j->tasks), err);
}

/* ---- orphans ---- */

static void put_orphan(slu_buf *b, const slu_event *e)
{
    slu_put_varint(b, e->step);
    slu_put_u64(b, (uint64_t)e->time_us);
    slu_put_str(b, e->id.p, e->id.n);
    slu_put_str(b, e->impression_id.p, e->impression_id.n);
}

static slu_dead_step get_orphan(slu_reader *r)
{
    slu_dead_step s;
    s.step = (uint32_t)slu_get_varint(r);
    s.time_us = (int64_t)slu_get_u64(r);
    s.id.p = (const char *)slu_get_str(r, &s.id.n);
    s.impression_id.p = (const char *)slu_get_str(r, &s.impression_id.n);
    return s;
}

/* True when |o| already holds this very event. */
static bool holds_orphan(const orphans *o, const slu_event *e)
{
    slu_reader r = slu_reader_of(o + 1, o->bytes);
    for (uint8_t i = 0; i < o->count; i++) {
        slu_dead_step s = get_orphan(&r);
        if (s.step == e->step && s.id.n == e->id.n &&
            memcmp(s.id.p ? s.id.p : "", e->id.p ? e->id.p : "", s.id.n) == 0)
            return true;
    }
    return false;
}

static void put_padded_record(slu_buf *b)
{
    while (b->len % 8)
        slu_put_u8(b, 0);
}

static int wait_for_impression(slu_joiner *j, slu_hash128 key, const slu_event *e, const orphans *old,
                               int64_t watermark_us, slu_dead_reason *why, slu_error *err)
{
    int64_t deadline = e->time_us + j->options->join.orphan_wait_us;
    if (deadline <= watermark_us || (old && old->count == MAX_ORPHANS)) {
        *why = SLU_DEAD_ORPHAN;
        return 0;
    }
    if (old && holds_orphan(old, e)) {
        *why = SLU_DEAD_DUPLICATE;
        return 0;
    }
    slu_buf_clear(&j->scratch);
    orphans head = {.kind = RECORD_ORPHANS};
    if (old)
        head = *old;
    slu_put_bytes(&j->scratch, &head, sizeof head);
    if (old)
        slu_put_bytes(&j->scratch, old + 1, old->bytes);
    put_orphan(&j->scratch, e);
    head.count++;
    head.bytes = (uint32_t)(j->scratch.len - sizeof head);
    put_padded_record(&j->scratch);
    /* One timer for the group: the first step's. When it fires the others go on waiting. */
    if (!old) {
        int rc = arm(j, deadline, &head.timer, key, err);
        if (rc)
            return rc;
    }
    memcpy(j->scratch.data, &head, sizeof head);
    int rc = slu_join_table_put(j->table, key, j->scratch.data, j->scratch.len, NULL, err);
    if (rc)
        return rc;
    j->waiting++;
    *why = SLU_DEAD_NONE;
    return 0;
}

static int find_record(slu_joiner *j, slu_hash128 key, uint8_t **data, slu_error *err);

/* The impression has come: its waiting steps join it, in the order they came. */
static int adopt_orphans(slu_joiner *j, slu_hash128 key, uint8_t count, slu_error *err)
{
    slu_reader r = slu_reader_of(j->waiting_steps.data, j->waiting_steps.len);
    for (uint8_t i = 0; i < count; i++) {
        slu_dead_step s = get_orphan(&r);
        slu_dead_reason why = SLU_DEAD_NONE;
        /* Each emission may run a training step, which notes predictions in the table: look the record up
         * again. */
        uint8_t *data;
        int rc = find_record(j, key, &data, err);
        if (!rc)
            rc = join_step(j, key, (impression *)data, s.step, s.time_us, s.id, &why, err);
        if (!rc && why != SLU_DEAD_NONE) {
            j->waiting--;
            rc = j->out.dead_step(j->out.ctx, why, &s, err);
        }
        if (rc)
            return rc;
    }
    return 0;
}

/* A step that waits, as the event it came as. */
static slu_event event_of(const slu_dead_step *s)
{
    return (slu_event){.kind = SLU_EVENT_STEP,
                       .id = s->id,
                       .impression_id = s->impression_id,
                       .step = s->step,
                       .time_us = s->time_us};
}

/* The record of a group's steps that may still wait, in |scratch|. */
static int keep_waiting(slu_joiner *j, slu_hash128 key, int64_t deadline_us, uint8_t count, slu_error *err)
{
    orphans head = {.kind = RECORD_ORPHANS, .count = count};
    head.bytes = (uint32_t)(j->scratch.len - sizeof head);
    put_padded_record(&j->scratch);
    int rc = arm(j, deadline_us, &head.timer, key, err);
    if (rc)
        return rc;
    memcpy(j->scratch.data, &head, sizeof head);
    return slu_join_table_put(j->table, key, j->scratch.data, j->scratch.len, NULL, err);
}

/* The group's timer has fired: steps that have waited long enough die, the others go on. */
static int bury_orphans(slu_joiner *j, slu_hash128 key, const orphans *o, int64_t watermark_us,
                        slu_error *err)
{
    const int64_t wait = j->options->join.orphan_wait_us;
    uint8_t count = o->count, kept = 0;
    int64_t deadline = INT64_MAX;
    slu_buf_clear(&j->waiting_steps);
    slu_put_bytes(&j->waiting_steps, o + 1, o->bytes);
    slu_buf_clear(&j->scratch);
    slu_put_bytes(&j->scratch, &(orphans){0}, sizeof(orphans));
    slu_reader r = slu_reader_of(j->waiting_steps.data, j->waiting_steps.len);
    for (uint8_t i = 0; i < count; i++) {
        slu_dead_step s = get_orphan(&r);
        if (s.time_us + wait <= watermark_us)
            continue;
        slu_event e = event_of(&s);
        put_orphan(&j->scratch, &e);
        kept++;
        if (s.time_us + wait < deadline)
            deadline = s.time_us + wait;
    }
    int rc = kept ? keep_waiting(j, key, deadline, kept, err) : slu_join_table_delete(j->table, key, err);
    r = slu_reader_of(j->waiting_steps.data, j->waiting_steps.len);
    for (uint8_t i = 0; !rc && i < count; i++) {
        slu_dead_step s = get_orphan(&r);
        if (s.time_us + wait > watermark_us)
            continue;
        j->waiting--;
        rc = j->out.dead_step(j->out.ctx, SLU_DEAD_ORPHAN, &s, err);
    }
    return rc;
}

/* ---- stored records ---- */

static bool time_valid(int64_t us)
{
    return us > 0 && us <= SLU_MAX_TIME_US;
}

static bool impression_valid(const slu_joiner *j, const impression *m, size_t len)
{
    return !(m->steps >> j->tasks) && m->closed <= j->tasks && m->predicted <= 1 && time_valid(m->time_us) &&
           slu_encoded_valid(j->schema, m + 1, len - sizeof *m);
}

static bool orphans_valid(const slu_joiner *j, const orphans *o, size_t len)
{
    if (!o->count || o->count > MAX_ORPHANS || o->bytes > len - sizeof *o)
        return false;
    slu_reader r = slu_reader_of(o + 1, o->bytes);
    for (uint8_t i = 0; i < o->count; i++) {
        slu_dead_step s = get_orphan(&r);
        if (r.bad || s.step >= j->tasks || !time_valid(s.time_us) || s.id.n > SLU_MAX_ID_BYTES ||
            s.impression_id.n > SLU_MAX_ID_BYTES || !slu_utf8_valid(s.id.p, s.id.n) ||
            !slu_utf8_valid(s.impression_id.p, s.impression_id.n))
            return false;
    }
    return !slu_reader_left(&r);
}

static int damaged(size_t len, slu_error *err)
{
    return slu_fail(err, SLU_ECORRUPT,
                    "a stored join record of %zu bytes is damaged: restore the store from a backup", len);
}

/* Bytes that came back from disk: what passes here can be used without another look. */
static int check_record(const slu_joiner *j, const uint8_t *data, size_t len, slu_error *err)
{
    bool ok = false;
    if (len >= sizeof(impression) && data[0] == RECORD_IMPRESSION)
        ok = impression_valid(j, (const impression *)data, len);
    else if (len >= sizeof(orphans) && data[0] == RECORD_ORPHANS)
        ok = orphans_valid(j, (const orphans *)data, len);
    return ok ? 0 : damaged(len, err);
}

static int find_record(slu_joiner *j, slu_hash128 key, uint8_t **data, slu_error *err)
{
    size_t len;
    int rc = slu_join_table_get(j->table, key, data, &len, err);
    return rc ? rc : check_record(j, *data, len, err);
}

/* ---- events ---- */

int slu_joiner_impression(slu_joiner *j, const slu_event *e, const slu_encoded *x, int64_t watermark_us,
                          slu_dead_reason *why, slu_error *err)
{
    slu_hash128 key = slu_impression_key(e->id);
    uint8_t *data;
    int rc = find_record(j, key, &data, err);
    if (rc && rc != SLU_ENOTFOUND)
        return rc;
    if (!rc && data[0] == RECORD_IMPRESSION) {
        *why = SLU_DEAD_DUPLICATE;
        return 0;
    }
    if (e->time_us + j->last_window_us <= watermark_us) {
        *why = SLU_DEAD_LATE;
        return 0;
    }
    uint8_t orphan_count = 0;
    if (!rc) {
        const orphans *o = (const orphans *)data;
        orphan_count = o->count;
        slu_buf_clear(&j->waiting_steps);
        slu_put_bytes(&j->waiting_steps, o + 1, o->bytes);
    }
    impression head = {.kind = RECORD_IMPRESSION, .time_us = e->time_us};
    rc = arm(j, next_deadline(j, &head), &head.timer, key, err);
    if (rc)
        return rc;
    slu_buf_clear(&j->scratch);
    slu_put_bytes(&j->scratch, &head, sizeof head);
    slu_put_bytes(&j->scratch, x, x->bytes);
    uint8_t *stored;
    rc = slu_join_table_put(j->table, key, j->scratch.data, j->scratch.len, &stored, err);
    if (rc)
        return rc;
    j->waiting++;
    *why = SLU_DEAD_NONE;
    rc = emit_arrival(j, key, (const impression *)stored, err);
    return rc ? rc : adopt_orphans(j, key, orphan_count, err);
}

int slu_joiner_step(slu_joiner *j, const slu_event *e, int64_t watermark_us, slu_dead_reason *why,
                    slu_error *err)
{
    slu_hash128 key = slu_impression_key(e->impression_id);
    uint8_t *data;
    int rc = find_record(j, key, &data, err);
    if (rc && rc != SLU_ENOTFOUND)
        return rc;
    if (rc == SLU_ENOTFOUND || data[0] == RECORD_ORPHANS)
        return wait_for_impression(j, key, e, rc ? NULL : (const orphans *)data, watermark_us, why, err);
    rc = join_step(j, key, (impression *)data, e->step, e->time_us, e->id, why, err);
    if (!rc && *why == SLU_DEAD_NONE)
        j->waiting++;
    return rc;
}

static int settle(slu_joiner *j, slu_hash128 key, const impression *m, slu_error *err)
{
    impression last = *m;
    uint32_t events = 1 + (uint32_t)__builtin_popcount(last.steps);
    int rc = slu_join_table_delete(j->table, key, err);
    if (rc)
        return rc;
    j->waiting -= events;
    return j->out.settled(j->out.ctx, last.time_us, last.steps, last.predicted ? last.logits : NULL, events,
                          err);
}

/* One window of |key| has closed (policy window), or its last one. */
static int close_window(slu_joiner *j, slu_hash128 key, impression *m, slu_error *err)
{
    if (j->options->training.label_policy != SLU_POLICY_WINDOW)
        return settle(j, key, m, err);
    if (m->closed == j->tasks) /* only while its last window is being closed, never on disk */
        return damaged(sizeof *m, err);
    uint32_t task = m->closed;
    m->closed++;
    bool last = m->closed == j->tasks;
    int rc = slu_join_table_touch(j->table, key);
    if (!rc && !last)
        rc = arm(j, next_deadline(j, m), &m->timer, key, err);
    if (!rc)
        rc = emit_window(j, key, m, task, err);
    if (rc || !last)
        return rc;
    /* The emission may have run a training step that noted this very impression's prediction. */
    uint8_t *data;
    rc = find_record(j, key, &data, err);
    return rc ? rc : settle(j, key, (impression *)data, err);
}

int slu_joiner_advance(slu_joiner *j, int64_t watermark_us, uint32_t most, slu_error *err)
{
    for (uint32_t n = 0; n < most || most == SLU_JOINER_ALL; n++) {
        int64_t deadline;
        uint64_t sequence;
        slu_hash128 key;
        int rc = slu_join_timer_pop(j->table, watermark_us, &deadline, &sequence, &key, err);
        if (rc)
            return rc == SLU_ENOTFOUND ? 0 : rc;
        uint8_t *data;
        rc = find_record(j, key, &data, err);
        if (rc == SLU_ENOTFOUND)
            continue; /* stale: its record was settled */
        if (rc)
            return rc;
        if (data[0] == RECORD_ORPHANS && ((orphans *)data)->timer == sequence)
            rc = bury_orphans(j, key, (orphans *)data, watermark_us, err);
        else if (data[0] == RECORD_IMPRESSION && ((impression *)data)->timer == sequence)
            rc = close_window(j, key, (impression *)data, err);
        if (rc)
            return rc;
    }
    return 0;
}

int slu_joiner_predicted(slu_joiner *j, slu_hash128 key, const float *logits, slu_error *err)
{
    uint8_t *data;
    int rc = find_record(j, key, &data, err);
    if (rc == SLU_ENOTFOUND || (!rc && data[0] != RECORD_IMPRESSION))
        return 0; /* settled before its batch was learned: nobody waits for the prediction */
    if (rc)
        return rc;
    impression *m = (impression *)data;
    memcpy(m->logits, logits, j->tasks * sizeof *logits);
    m->predicted = 1;
    return slu_join_table_touch(j->table, key);
}

uint64_t slu_joiner_waiting(const slu_joiner *j)
{
    return j->waiting;
}

void slu_joiner_save(const slu_joiner *j, slu_buf *out)
{
    slu_put_u64(out, j->sequence);
    slu_put_u64(out, j->waiting);
}

int slu_joiner_load(slu_joiner *j, const void *p, size_t n, slu_error *err)
{
    slu_reader r = slu_reader_of(p, n);
    j->sequence = slu_get_u64(&r);
    j->waiting = slu_get_u64(&r);
    if (r.bad || slu_reader_left(&r))
        return slu_fail(err, SLU_ECORRUPT,
                        "stored joiner counters are damaged: restore the store from a backup");
    return 0;
}
