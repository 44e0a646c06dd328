#include "trainer/watermark.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry {
    char *topic;
    int32_t partition;
    int64_t newest_us;   /* INT64_MIN: nothing yet */
    int64_t next_offset; /* -1: unknown */
    uint64_t mark;       /* of the record before it, 0 unknown */
    bool idle;
    int64_t arrival_us; /* of its last message, 0: unknown */
    int64_t usable_us;  /* of its last usable one */
    int64_t end_us;     /* our clock when it was last read to its end, 0: never told */
} entry;

struct slu_watermark {
    int64_t lateness_us, max_behind_us;
    int64_t clock_us; /* ours, as last told; INT64_MAX: never */
    entry *entries;   /* (n) in order of first announcement */
    uint32_t n, cap;
    uint32_t *by_index; /* (n_index) source's number -> entry, UINT32_MAX unknown */
    uint32_t n_index;
    int64_t now_us, newest_us;
    bool stale; /* a partition holds again since the last look at all of them */
};

slu_watermark *slu_watermark_new(int64_t allowed_lateness_us, int64_t max_behind_us)
{
    slu_watermark *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->lateness_us = allowed_lateness_us;
    w->max_behind_us = max_behind_us;
    w->clock_us = INT64_MAX;
    w->now_us = w->newest_us = INT64_MIN;
    return w;
}

static void forget_entries(slu_watermark *w)
{
    for (uint32_t i = 0; i < w->n; i++)
        free(w->entries[i].topic);
    w->n = 0;
}

void slu_watermark_free(slu_watermark *w)
{
    if (!w)
        return;
    forget_entries(w);
    free(w->entries);
    free(w->by_index);
    free(w);
}

/* Partitions are few: without memory for one the process is lost anyway, see base/bytes.h. */
static void *checked(void *p)
{
    if (!p)
        abort();
    return p;
}

/* Partitions are few and announced rarely: a linear search is fine. */
static uint32_t find_or_add(slu_watermark *w, const char *topic, size_t len, int32_t partition)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (w->entries[i].partition == partition && strlen(w->entries[i].topic) == len &&
            memcmp(w->entries[i].topic, topic, len) == 0)
            return i;
    if (w->n == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 16;
        w->entries = checked(realloc(w->entries, w->cap * sizeof *w->entries));
    }
    w->entries[w->n] = (entry){.topic = checked(strndup(topic, len)),
                               .partition = partition,
                               .newest_us = INT64_MIN,
                               .next_offset = -1};
    return w->n++;
}

static entry *of_index(const slu_watermark *w, uint32_t index)
{
    assert(index < w->n_index && w->by_index[index] != UINT32_MAX);
    return &w->entries[w->by_index[index]];
}

/* Up to where the partition lets event time go; INT64_MIN: nowhere yet. */
static int64_t hold_of(const slu_watermark *w, const entry *e)
{
    if (e->newest_us != INT64_MIN)
        return e->newest_us + (e->arrival_us > e->usable_us ? e->arrival_us - e->usable_us : 0);
    /* Nothing usable has come, but what will cannot be older than this, or it would be behind. */
    return w->max_behind_us && e->arrival_us ? e->arrival_us - w->max_behind_us : INT64_MIN;
}

static bool is_behind(const slu_watermark *w, const entry *e)
{
    return w->max_behind_us && e->usable_us && e->newest_us != INT64_MIN &&
           e->usable_us - e->newest_us > w->max_behind_us;
}

/* An active partition that has delivered and whose clock can be believed. */
static bool any_sound(const slu_watermark *w)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (!w->entries[i].idle && w->entries[i].newest_us != INT64_MIN && !is_behind(w, &w->entries[i]))
            return true;
    return false;
}

/* The lowest hold of all that hold; INT64_MAX: none does. */
static int64_t slowest(const slu_watermark *w)
{
    int64_t least = INT64_MAX;
    bool sound = any_sound(w);
    for (uint32_t i = 0; i < w->n; i++) {
        const entry *e = &w->entries[i];
        int64_t hold = hold_of(w, e);
        if (!e->idle && !(sound && is_behind(w, e)) && hold < least)
            least = hold;
    }
    return least;
}

static void recompute(slu_watermark *w)
{
    int64_t least = slowest(w);
    w->stale = false;
    if (least == INT64_MAX || least == INT64_MIN) /* all idle, or somebody has yet to deliver */
        return;
    if (least - w->lateness_us > w->now_us)
        w->now_us = least - w->lateness_us;
}

void slu_watermark_partition(slu_watermark *w, uint32_t index, const slu_partition *part)
{
    if (index >= w->n_index) {
        w->by_index = checked(realloc(w->by_index, (index + 1) * sizeof *w->by_index));
        while (w->n_index <= index)
            w->by_index[w->n_index++] = UINT32_MAX;
    }
    if (w->by_index[index] == UINT32_MAX)
        w->by_index[index] = find_or_add(w, part->topic, strlen(part->topic), part->partition);
}

void slu_watermark_event(slu_watermark *w, uint32_t index, int64_t time_us)
{
    entry *e = of_index(w, index);
    bool first = e->newest_us == INT64_MIN;
    /* Only the slowest partition's progress can move the watermark, or that one comes to be believed or not.
     */
    bool held = first || e->newest_us - w->lateness_us <= w->now_us, was_behind = is_behind(w, e);
    /* One that wakes may be the only one: while all were idle the watermark stood behind it. */
    bool woke = e->idle;
    e->idle = false;
    if (time_us > w->newest_us)
        w->newest_us = time_us;
    bool moved = time_us > e->newest_us;
    if (moved)
        e->newest_us = time_us;
    e->usable_us = e->arrival_us;
    if (woke || w->stale || was_behind != is_behind(w, e) || (moved && (held || w->now_us == INT64_MIN)))
        recompute(w);
}

void slu_watermark_clock(slu_watermark *w, int64_t now_us)
{
    w->clock_us = now_us;
}

void slu_watermark_end(slu_watermark *w, uint32_t index, int64_t now_us)
{
    of_index(w, index)->end_us = now_us;
}

int64_t slu_watermark_latest_arrival(const slu_watermark *w)
{
    return w->clock_us == INT64_MAX ? INT64_MAX : w->clock_us + SLU_CLOCK_GRAIN_US;
}

int64_t slu_watermark_arrival(slu_watermark *w, uint32_t index, int64_t stamp_us)
{
    entry *e = of_index(w, index);
    if (stamp_us == 0)
        return 0;
    int64_t arrival = stamp_us;
    if (arrival > slu_watermark_latest_arrival(w))
        arrival = slu_watermark_latest_arrival(w);
    if (arrival < e->end_us)
        arrival = e->end_us;
    if (arrival == SLU_NO_STAMP) /* and nobody told a clock: an order of before there were any */
        return 0;
    e->arrival_us = arrival;
    return arrival;
}

void slu_watermark_unusable(slu_watermark *w, uint32_t index)
{
    entry *e = of_index(w, index);
    bool woke = e->idle;
    e->idle = false;
    if (woke || e->arrival_us > e->usable_us)
        recompute(w);
}

void slu_watermark_hold(slu_watermark *w, uint32_t index)
{
    of_index(w, index)->idle = false;
    w->stale = true; /* looked at with the next event: holding alone moves nothing */
}

void slu_watermark_offset(slu_watermark *w, uint32_t index, int64_t next_offset, uint64_t mark)
{
    of_index(w, index)->next_offset = next_offset;
    of_index(w, index)->mark = mark;
}

void slu_watermark_idle(slu_watermark *w, uint32_t index)
{
    of_index(w, index)->idle = true;
    recompute(w);
}

bool slu_watermark_retire(slu_watermark *w, uint32_t i)
{
    assert(i < w->n);
    if (w->entries[i].idle)
        return false;
    w->entries[i].idle = true;
    recompute(w);
    return true;
}

int64_t slu_watermark_now(const slu_watermark *w)
{
    return w->now_us;
}

int64_t slu_watermark_newest(const slu_watermark *w)
{
    return w->newest_us;
}

uint32_t slu_watermark_count(const slu_watermark *w)
{
    return w->n;
}

void slu_watermark_at(const slu_watermark *w, uint32_t i, slu_partition *part, int64_t *next_offset)
{
    *part = (slu_partition){w->entries[i].topic, w->entries[i].partition};
    *next_offset = w->entries[i].next_offset;
}

uint64_t slu_watermark_mark(const slu_watermark *w, uint32_t i)
{
    return w->entries[i].mark;
}

uint32_t slu_watermark_numbers(const slu_watermark *w)
{
    return w->n_index;
}

int64_t slu_watermark_next_offset(const slu_watermark *w, uint32_t index)
{
    if (index >= w->n_index || w->by_index[index] == UINT32_MAX)
        return -1;
    return w->entries[w->by_index[index]].next_offset;
}

static slu_partition_time time_of(const slu_watermark *w, const entry *e)
{
    int64_t hold = hold_of(w, e);
    bool behind = is_behind(w, e);
    return (slu_partition_time){
        .newest_us = e->newest_us,
        .arrival_us = e->arrival_us,
        .idle = e->idle,
        .behind = behind,
        .held = !e->idle && !behind && (hold == INT64_MIN || hold - w->lateness_us <= w->now_us),
    };
}

slu_partition_time slu_watermark_time(const slu_watermark *w, uint32_t i)
{
    assert(i < w->n);
    return time_of(w, &w->entries[i]);
}

slu_partition_time slu_watermark_time_of(const slu_watermark *w, uint32_t index)
{
    return time_of(w, of_index(w, index));
}

/* Offsets are stored by name elsewhere (store/state.h), where tools look for them. */
void slu_watermark_save(const slu_watermark *w, slu_buf *out)
{
    slu_put_u64(out, (uint64_t)w->now_us);
    slu_put_u64(out, (uint64_t)w->newest_us);
    slu_put_varint(out, w->n);
    for (uint32_t i = 0; i < w->n; i++) {
        const entry *e = &w->entries[i];
        slu_put_str(out, e->topic, strlen(e->topic));
        slu_put_u32(out, (uint32_t)e->partition);
        slu_put_u64(out, (uint64_t)e->newest_us);
        slu_put_u64(out, (uint64_t)e->next_offset);
        slu_put_u8(out, e->idle);
    }
    /* Behind what older versions wrote, which had no arrivals. */
    slu_put_u64(out, (uint64_t)w->clock_us);
    for (uint32_t i = 0; i < w->n; i++) {
        slu_put_u64(out, (uint64_t)w->entries[i].arrival_us);
        slu_put_u64(out, (uint64_t)w->entries[i].usable_us);
        slu_put_u64(out, (uint64_t)w->entries[i].end_us);
    }
}

/* Times as a clock may say them, a wrong one too; sums of a few of them stay in range. */
static bool time_valid(int64_t us)
{
    return us >= -SLU_MAX_TIME_US && us <= SLU_MAX_TIME_US;
}

static bool event_time_valid(int64_t us)
{
    return us == INT64_MIN || time_valid(us);
}

static bool entry_valid(const entry *e)
{
    return event_time_valid(e->newest_us) && e->next_offset >= -1 && e->partition >= 0 &&
           time_valid(e->arrival_us) && time_valid(e->usable_us) && time_valid(e->end_us);
}

/* What was stored can be calculated with. The watermark itself is behind an event by the allowed lateness. */
static bool all_valid(const slu_watermark *w)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (!entry_valid(&w->entries[i]))
            return false;
    return event_time_valid(w->newest_us) &&
           (w->now_us == INT64_MIN || time_valid(w->now_us / 2)) && /* an event's and some arrivals' */
           (w->clock_us == INT64_MAX || time_valid(w->clock_us));
}

static void load_arrivals(slu_watermark *w, slu_reader *r)
{
    w->clock_us = (int64_t)slu_get_u64(r);
    for (uint32_t i = 0; i < w->n && !r->bad; i++) {
        w->entries[i].arrival_us = (int64_t)slu_get_u64(r);
        w->entries[i].usable_us = (int64_t)slu_get_u64(r);
        w->entries[i].end_us = (int64_t)slu_get_u64(r);
    }
}

int slu_watermark_load(slu_watermark *w, const void *p, size_t n, slu_error *err)
{
    slu_reader r = slu_reader_of(p, n);
    forget_entries(w);
    w->n_index = 0;
    w->stale = true;
    w->now_us = (int64_t)slu_get_u64(&r);
    w->newest_us = (int64_t)slu_get_u64(&r);
    uint64_t count = slu_get_varint(&r);
    for (uint64_t i = 0; i < count && !r.bad; i++) {
        size_t len;
        const uint8_t *topic = slu_get_str(&r, &len);
        int32_t partition = (int32_t)slu_get_u32(&r);
        int64_t newest = (int64_t)slu_get_u64(&r), next = (int64_t)slu_get_u64(&r);
        bool idle = slu_get_u8(&r);
        if (r.bad || !len || memchr(topic, 0, len))
            r.bad = true;
        if (r.bad)
            break;
        uint32_t at = find_or_add(w, (const char *)topic, len, partition);
        w->entries[at].newest_us = newest;
        w->entries[at].next_offset = next;
        w->entries[at].idle = idle;
    }
    if (!r.bad && slu_reader_left(&r))
        load_arrivals(w, &r);
    if (r.bad || slu_reader_left(&r) || !all_valid(w))
        return slu_fail(err, SLU_ECORRUPT, "stored watermark is damaged: restore the store from a backup");
    return 0;
}
