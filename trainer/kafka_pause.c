/* Pausing single partitions: trainer/pace.h tells why, this file how. */
#include "trainer/kafka_source_state.h"

#define PROGRESS_US (10 * SLU_SECOND_US) /* nobody waits longer for one that delivers nothing */
#define STALL_US    (5 * SLU_SECOND_US)  /* it was we who did not ask */
#define LIVE_US     (10 * SLU_SECOND_US)
#define MANY        1000

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

slu_reading slu_kafka_reading(slu_source *base, uint32_t i)
{
    slu_kafka_source *s = (slu_kafka_source *)base;
    const slu_kafka_partition *p = &s->parts[i];
    int64_t since = p->active_us > s->asked_again_us ? p->active_us : s->asked_again_us;
    bool delivers = now_us() - since < PROGRESS_US;
    return (slu_reading){.backlog = !p->paused && delivers && has_backlog(s, p), .paused = p->paused};
}

/* What has to prove itself, or is to be read again, must be free to do so. */
static bool can_pause(const slu_kafka_partition *p)
{
    return !p->at.wanted && !p->reread && p->at.next >= 0;
}

static void add(const slu_kafka_source *s, const slu_kafka_partition *p,
                rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_topic_partition_list_add(list, slu_kafka_topic(s, p->topic), p->number)->offset = p->at.next;
}

static void goes_on(slu_kafka_partition *p)
{
    p->paused = false;
    p->at_end = false; /* told anew */
    p->active_us = now_us();
}

/* Where to go on is not left to librdkafka: what it had fetched is gone, and what of it we had taken only we
 * know. */
static void resume(slu_kafka_source *s, rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_error_t *e = rd_kafka_seek_partitions(s->rk, list, 0);
    if (e)
        rd_kafka_error_destroy(e);
    rd_kafka_resume_partitions(s->rk, list);
}

/* What librdkafka has fetched of paused partitions it drops itself, what we have of them comes again. All of
 * it at once: a later message must not be used when an earlier one was dropped. */
static void drop_paused(slu_kafka_source *s)
{
    size_t kept = s->at;
    for (size_t i = s->at; i < s->n_batch; i++) {
        rd_kafka_message_t *m = s->batch[i];
        bool ordinary = !m->err || m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
        const slu_kafka_partition *p = slu_kafka_find(s, m);
        if (ordinary && p && p->paused)
            rd_kafka_message_destroy(m);
        else
            s->batch[kept++] = m;
    }
    s->n_batch = kept;
}

void slu_kafka_pause(slu_source *base, const bool *pause, uint32_t n)
{
    slu_kafka_source *s = (slu_kafka_source *)base;
    rd_kafka_topic_partition_list_t *stop = NULL, *go = NULL;
    for (uint32_t i = 0; i < n && i < s->n; i++) {
        slu_kafka_partition *p = &s->parts[i];
        if (pause[i] == p->paused || (pause[i] && !can_pause(p)))
            continue;
        rd_kafka_topic_partition_list_t **list = pause[i] ? &stop : &go;
        if (!*list)
            *list = rd_kafka_topic_partition_list_new(8);
        add(s, p, *list);
        if (pause[i])
            p->paused = true;
        else
            goes_on(p);
    }
    if (stop) {
        rd_kafka_pause_partitions(s->rk, stop);
        drop_paused(s);
        rd_kafka_topic_partition_list_destroy(stop);
    }
    if (go) {
        resume(s, go);
        rd_kafka_topic_partition_list_destroy(go);
    }
}

void slu_kafka_resume_sought(slu_kafka_source *s)
{
    rd_kafka_topic_partition_list_t *go = rd_kafka_topic_partition_list_new(8);
    for (uint32_t i = 0; i < s->n; i++) {
        if (!s->parts[i].paused)
            continue;
        add(s, &s->parts[i], go);
        goes_on(&s->parts[i]);
    }
    if (go->cnt)
        rd_kafka_resume_partitions(s->rk, go);
    rd_kafka_topic_partition_list_destroy(go);
}
