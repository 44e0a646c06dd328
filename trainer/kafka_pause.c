/* Pausing single partitions: trainer/pace.h tells why, this file how. What comes of a paused partition is put
 * on its shelf (trainer/kafka_shelf.h). Only when the shelves are full librdkafka is told to stop, since
 * going on then costs a new fetch and, with it, about a tenth of a second. */
#include "base/log.h"
#include "trainer/kafka_source_state.h"

#define PROGRESS_US (10 * SLU_SECOND_US)  /* nobody waits longer for one that delivers nothing */
#define OUTAGE_US   (300 * SLU_SECOND_US) /* but in trouble with the broker, which is no fault of its own */
#define STALL_US    (5 * SLU_SECOND_US)   /* it was we who did not ask */
#define LIVE_US     (10 * SLU_SECOND_US)
#define MANY        1000
#define SHELF_RUN   64 /* records of one shelf before the next one has its turn */

static int64_t now_us(void)
{
    return slu_mono_us(&slu_system_clock);
}

void slu_kafka_asked(slu_kafka_source *s)
{
    int64_t now = now_us();
    if (now - s->asked_us > STALL_US)
        s->asked_again_us = now;
    s->asked_us = now;
}

/* A partition is read at its living end although messages wait in it, when they are few and have just been
 * written: its events may be late by nature, and waiting for it would never end. */
static bool has_backlog(slu_kafka_source *s, const slu_kafka_partition *p)
{
    int64_t low, high;
    if (p->at_end)
        return false;
    if (rd_kafka_get_watermark_offsets(s->rk, slu_kafka_topic(s, p->topic), p->number, &low, &high) ||
        high < 0)
        return true; /* nothing was fetched yet */
    int64_t lag = high - (p->at.next >= 0 ? p->at.next : low);
    return lag > MANY || (lag > 0 && p->stamp_us < slu_steady_clock_now(&s->clock) - LIVE_US);
}

/* Connections fail, or have just come back. */
static bool in_trouble(const slu_kafka_source *s)
{
    int64_t newest = s->trouble.newest_us > s->proved_us ? s->trouble.newest_us : s->proved_us;
    return newest && now_us() - newest < PROGRESS_US;
}

slu_reading slu_kafka_reading(slu_source *base, uint32_t i)
{
    slu_kafka_source *s = (slu_kafka_source *)base;
    const slu_kafka_partition *p = &s->parts[i];
    int64_t since = p->active_us > s->asked_again_us ? p->active_us : s->asked_again_us;
    bool delivers = now_us() - since < (in_trouble(s) ? OUTAGE_US : PROGRESS_US);
    return (slu_reading){.backlog = !p->paused && delivers && has_backlog(s, p), .paused = p->paused};
}

/* What has to prove itself, or is to be read again, must be free to do so. */
static bool can_pause(const slu_kafka_partition *p)
{
    return !p->at.wanted && !p->reread && p->at.next >= 0;
}

/* Where to fetch on: behind what is here already. */
static int64_t fetched_to(const slu_kafka_partition *p)
{
    return p->shelf.n ? p->shelf.next : p->at.next;
}

static void add(const slu_kafka_source *s, const slu_kafka_partition *p, int64_t offset,
                rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_topic_partition_list_add(list, slu_kafka_topic(s, p->topic), p->number)->offset = offset;
}

static void goes_on(slu_kafka_partition *p)
{
    p->paused = false;
    if (p->shelf.n || p->stopped)
        p->at_end = false; /* told behind what is read now */
    p->active_us = now_us();
}

void slu_kafka_pause(slu_source *base, const bool *pause, uint32_t n)
{
    slu_kafka_source *s = (slu_kafka_source *)base;
    for (uint32_t i = 0; i < n && i < s->n; i++) {
        slu_kafka_partition *p = &s->parts[i];
        if (pause[i] && can_pause(p))
            p->paused = true;
        else if (!pause[i] && p->paused)
            goes_on(p);
    }
}

/* ---- what comes meanwhile ---- */

/* The shelves are full: nothing more is fetched. What librdkafka has of it already it drops itself, and what
 * we get of it is passed over, all of it: a later message must not be used when an earlier one was dropped.
 */
static void stop(slu_kafka_source *s, slu_kafka_partition *p)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    add(s, p, fetched_to(p), list);
    rd_kafka_pause_partitions(s->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    p->stopped = true;
    s->n_stopped++;
    SLU_DEBUG("kafka", "the shelves are full; a partition is not fetched for",
              SLU_STR("topic", slu_kafka_topic(s, p->topic)), SLU_I64("partition", p->number),
              SLU_U64("bytes", s->shelves.used), SLU_U64("limit", s->shelves.limit));
}

bool slu_kafka_shelve(slu_kafka_source *s, slu_kafka_partition *p, const rd_kafka_message_t *m)
{
    if (!p->paused && !p->stopped && !p->shelf.n)
        return false;
    bool end = m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
    /* A broker that comes back may send again what is here. */
    if (p->stopped || (!end && m->offset < fetched_to(p)))
        return true;
    slu_shelf_item item = end ? (slu_shelf_item){.offset = m->offset, .stamp_us = s->drained_us, .end = true}
                              : slu_kafka_item(m);
    if (end)
        item.bytes = "";
    if (!slu_shelf_put(&p->shelf, &s->shelves, &item))
        stop(s, p);
    return true;
}

void slu_kafka_refill(slu_kafka_source *s)
{
    if (!s->n_stopped)
        return;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    for (uint32_t i = 0; i < s->n; i++) {
        slu_kafka_partition *p = &s->parts[i];
        if (!p->stopped || p->paused || (p->shelf.n && s->shelves.used > s->shelves.limit / 2))
            continue;
        add(s, p, fetched_to(p), list);
        p->stopped = false;
        s->n_stopped--;
    }
    if (list->cnt) {
        /* Where to go on is not left to librdkafka: what it had fetched is gone. */
        rd_kafka_error_t *e = rd_kafka_seek_partitions(s->rk, list, 0);
        if (e)
            rd_kafka_error_destroy(e);
        rd_kafka_resume_partitions(s->rk, list);
    }
    rd_kafka_topic_partition_list_destroy(list);
}

/* ---- and goes on from there ---- */

static bool take_shelved(slu_kafka_source *s, slu_kafka_partition *p, slu_record *out)
{
    slu_shelf_item item;
    while (slu_shelf_first(&p->shelf, &s->shelves, &item)) {
        if (slu_kafka_pass_over(s, p))
            return false;
        if (!item.end) {
            if (slu_kafka_hand_out(s, p, &item, out))
                slu_shelf_shift(&p->shelf);
            return true;
        }
        p->at_end = true;
        p->end = item.offset;
        p->end_us = item.stamp_us;
        slu_shelf_shift(&p->shelf);
    }
    return false;
}

bool slu_kafka_next_shelved(slu_kafka_source *s, slu_record *out)
{
    for (uint32_t tries = 0; s->shelves.used && tries <= s->n; tries++) {
        slu_kafka_partition *p = &s->parts[s->shelf_at];
        bool turn = s->shelf_run++ < SHELF_RUN && !p->paused;
        if (turn && take_shelved(s, p, out))
            return true;
        s->shelf_at = (s->shelf_at + 1) % s->n;
        s->shelf_run = 0;
    }
    return false;
}

bool slu_kafka_shelf_waits(const slu_kafka_source *s)
{
    for (uint32_t i = 0; s->shelves.used && i < s->n; i++)
        if (s->parts[i].shelf.n && !s->parts[i].paused)
            return true;
    return false;
}

void slu_kafka_empty_shelf(slu_kafka_source *s, slu_kafka_partition *p)
{
    slu_shelf_clear(&p->shelf, &s->shelves);
}

void slu_kafka_resume_sought(slu_kafka_source *s)
{
    rd_kafka_topic_partition_list_t *go = rd_kafka_topic_partition_list_new(8);
    for (uint32_t i = 0; i < s->n; i++) {
        slu_kafka_partition *p = &s->parts[i];
        if (p->stopped)
            add(s, p, p->at.next, go);
        if (p->stopped || p->paused || p->shelf.n) {
            p->at_end = false; /* told anew */
            goes_on(p);
        }
        p->stopped = false;
        slu_kafka_empty_shelf(s, p);
    }
    s->n_stopped = 0;
    if (go->cnt)
        rd_kafka_resume_partitions(s->rk, go);
    rd_kafka_topic_partition_list_destroy(go);
}
