#include "trainer/kafka_scout.h"
#include "base/clock.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EVERY_US   (2 * SLU_SECOND_US) /* when all topics are known */
#define MISSING_US (SLU_SECOND_US / 2) /* while one is missing or no broker answers */
#define TIMEOUT_MS 2000

/* "Where does this partition end now?" One question at a time. */
typedef struct end_question {
    uint32_t topic;
    int32_t partition;
    bool wanted;
    int64_t high, told_us; /* the answer; high -1: none */
} end_question;

struct slu_kafka_scout {
    rd_kafka_t *rk;
    char *const *topics; /* (n) */
    uint32_t n;
    rd_kafka_topic_t **handles; /* (n) */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    int32_t *counts;  /* (n) partitions, 0 unknown */
    int32_t *present; /* (n) the same by the newest answer: 0 no such topic, -1 none yet */
    bool answered, news, stop;
    bool down;       /* the newest question got no answer */
    int64_t back_us; /* when that ended last */
    end_question end;
};

static int64_t now_us(void)
{
    return slu_mono_us(&slu_system_clock);
}

slu_kafka_scout *slu_kafka_scout_new(rd_kafka_t *rk, char *const *topics, uint32_t n)
{
    slu_kafka_scout *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    s->rk = rk;
    s->topics = topics;
    s->n = n;
    s->handles = calloc(n + 1, sizeof *s->handles);
    s->counts = calloc(n + 1, sizeof *s->counts);
    s->present = calloc(n + 1, sizeof *s->present);
    bool complete = s->handles && s->counts && s->present;
    for (uint32_t i = 0; complete && i < n; i++)
        s->present[i] = -1;
    for (uint32_t i = 0; complete && i < n; i++)
        complete = (s->handles[i] = rd_kafka_topic_new(rk, topics[i], NULL)) != NULL;
    if (complete)
        return s;
    slu_kafka_scout_free(s);
    return NULL;
}

void slu_kafka_scout_free(slu_kafka_scout *s)
{
    if (!s)
        return;
    if (s->started) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    for (uint32_t i = 0; s->handles && i < s->n; i++)
        if (s->handles[i])
            rd_kafka_topic_destroy(s->handles[i]);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s->handles);
    free(s->counts);
    free(s->present);
    free(s);
}

/* ---- its thread ---- */

int32_t slu_kafka_scout_ask(slu_kafka_scout *s, uint32_t topic)
{
    const struct rd_kafka_metadata *m = NULL;
    if (rd_kafka_metadata(s->rk, 0, s->handles[topic], &m, TIMEOUT_MS))
        return -1;
    int32_t n = 0;
    if (m->topic_cnt == 1 && m->topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR)
        n = m->topics[0].partition_cnt;
    rd_kafka_metadata_destroy(m);
    return n;
}

/* With the lock. */
static void note_answer(slu_kafka_scout *s, bool answered)
{
    if (s->down && answered)
        s->back_us = now_us();
    s->down = !answered;
    s->answered = s->answered || answered;
}

/* Asks about every topic once. Returns true when all are known. */
static bool ask_all(slu_kafka_scout *s)
{
    bool complete = true, news = false, stop = false;
    for (uint32_t i = 0; i < s->n && !stop; i++) {
        int32_t n = slu_kafka_scout_ask(s, i);
        pthread_mutex_lock(&s->lock);
        note_answer(s, n >= 0);
        if (n > s->counts[i])
            s->counts[i] = n;
        if (n >= 0 && n != s->present[i]) {
            s->present[i] = n;
            news = true;
        }
        complete = complete && s->counts[i] > 0 && n >= 0;
        stop = s->stop;
        pthread_mutex_unlock(&s->lock);
    }
    pthread_mutex_lock(&s->lock);
    s->news = s->news || news;
    pthread_mutex_unlock(&s->lock);
    return complete;
}

/* Called with the lock, which is released while the broker is asked. */
static void answer_end(slu_kafka_scout *s)
{
    end_question q = s->end;
    int64_t low, high, asked_us = now_us();
    pthread_mutex_unlock(&s->lock);
    bool told =
        !rd_kafka_query_watermark_offsets(s->rk, s->topics[q.topic], q.partition, &low, &high, TIMEOUT_MS);
    if (!told)
        usleep(MISSING_US);
    pthread_mutex_lock(&s->lock);
    note_answer(s, told);
    s->end.wanted = false;
    s->end.high = told ? high : -1;
    s->end.told_us = asked_us;
}

static struct timespec deadline(int64_t pause_us)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t ns = t.tv_nsec + pause_us % SLU_SECOND_US * 1000;
    t.tv_sec += pause_us / SLU_SECOND_US + ns / 1000000000;
    t.tv_nsec = ns % 1000000000;
    return t;
}

static void *scout_main(void *arg)
{
    slu_kafka_scout *s = arg;
    bool stop = false;
    while (!stop) {
        struct timespec until = deadline(ask_all(s) ? EVERY_US : MISSING_US);
        int late = 0;
        pthread_mutex_lock(&s->lock);
        while (!s->stop && !late) {
            if (s->end.wanted)
                answer_end(s);
            else
                late = pthread_cond_timedwait(&s->wake, &s->lock, &until);
        }
        stop = s->stop;
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

int slu_kafka_scout_start(slu_kafka_scout *s, slu_error *err)
{
    int e = pthread_create(&s->thread, NULL, scout_main, s);
    s->started = e == 0;
    return e ? slu_fail(err, SLU_ENOMEM, "cannot start a thread: %s", strerror(e)) : 0;
}

/* ---- what it has found ---- */

bool slu_kafka_scout_news(slu_kafka_scout *s)
{
    pthread_mutex_lock(&s->lock);
    bool news = s->news;
    s->news = false;
    pthread_mutex_unlock(&s->lock);
    return news;
}

int32_t slu_kafka_scout_partitions(slu_kafka_scout *s, uint32_t topic)
{
    pthread_mutex_lock(&s->lock);
    int32_t n = s->counts[topic];
    pthread_mutex_unlock(&s->lock);
    return n;
}

int32_t slu_kafka_scout_present(slu_kafka_scout *s, uint32_t topic)
{
    pthread_mutex_lock(&s->lock);
    int32_t n = s->present[topic];
    pthread_mutex_unlock(&s->lock);
    return n;
}

bool slu_kafka_scout_answered(slu_kafka_scout *s)
{
    pthread_mutex_lock(&s->lock);
    bool answered = s->answered;
    pthread_mutex_unlock(&s->lock);
    return answered;
}

int64_t slu_kafka_scout_back(slu_kafka_scout *s)
{
    pthread_mutex_lock(&s->lock);
    int64_t back_us = s->back_us;
    pthread_mutex_unlock(&s->lock);
    return back_us;
}

int64_t slu_kafka_scout_end(slu_kafka_scout *s, uint32_t topic, int32_t partition, int64_t not_before_us)
{
    int64_t high = -1;
    pthread_mutex_lock(&s->lock);
    end_question *q = &s->end;
    if (q->topic == topic && q->partition == partition && q->high >= 0 && q->told_us >= not_before_us) {
        high = q->high;
        q->high = -1;
    } else if (!q->wanted) {
        *q = (end_question){.topic = topic, .partition = partition, .wanted = true, .high = -1};
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    return high;
}
