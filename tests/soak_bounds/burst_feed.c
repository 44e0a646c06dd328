/* burst_feed BROKERS TOPIC PARTITIONS SEED: a producer on command. Each line of standard input is a number of
 * events to send as fast as the broker takes them; the answer is the number sent so far, once all are
 * acknowledged. Events are impressions with ids of users and items that hardly ever repeat, a click for one
 * in ten and broken messages here and there. Every third burst goes to one partition alone. */
#include "base/rng.h"
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define USERS 50000000
#define ITEMS 5000000

static slu_rng rng;
static uint64_t sent, failed;

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    (void)rk, (void)opaque;
    failed += m->err != 0;
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* One in ten answers one of the last impressions. */
static int event(char *out, size_t size, uint64_t n)
{
    if (slu_rng_below(&rng, 20000) == 0)
        return snprintf(out, size, "no event at all");
    if (n > 100 && slu_rng_below(&rng, 10) == 0)
        return snprintf(out, size,
                        "{\"step\":{\"id\":\"c%" PRIu64 "\",\"step\":\"click\",\"impression_id\":\"i%" PRIu64
                        "\",\"time_us\":%" PRId64 "}}",
                        n, n - 1 - slu_rng_below(&rng, 100), now_us());
    /* Low numbers come more often, so that some are admitted. */
    uint64_t spread = slu_rng_below(&rng, 10) ? USERS : 5000;
    return snprintf(out, size,
                    "{\"impression\":{\"id\":\"i%" PRIu64 "\",\"time_us\":%" PRId64
                    ",\"features\":{\"user\":\"u%" PRIu64 "\",\"item\":\"p%" PRIu64 "\",\"price\":%d}}}",
                    n, now_us(), slu_rng_below(&rng, spread),
                    slu_rng_below(&rng, spread == USERS ? ITEMS : 500), (int)slu_rng_below(&rng, 100));
}

static rd_kafka_t *connect_to(const char *brokers)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    const char *const settings[][2] = {{"bootstrap.servers", brokers},
                                       {"linger.ms", "20"},
                                       {"compression.codec", "lz4"},
                                       {"acks", "1"},
                                       {"queue.buffering.max.kbytes", "32768"}};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (rd_kafka_conf_set(conf, settings[i][0], settings[i][1], why, sizeof why))
            exit(2);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    return rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
}

static void burst(rd_kafka_t *rk, const char *topic, int partitions, uint64_t n, bool lonely)
{
    char text[512];
    int32_t one = (int32_t)slu_rng_below(&rng, (uint64_t)partitions);
    for (uint64_t i = 0; i < n; i++, sent++) {
        int len = event(text, sizeof text, sent);
        int32_t partition = lonely ? one : (int32_t)(i % (uint64_t)partitions);
        while (rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition),
                                 RD_KAFKA_V_VALUE(text, (size_t)len),
                                 RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                 RD_KAFKA_V_END) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
            rd_kafka_poll(rk, 50);
        rd_kafka_poll(rk, 0);
    }
    rd_kafka_flush(rk, 120000);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    slu_rng_seed(&rng, strtoull(argv[4], NULL, 10));
    rd_kafka_t *rk = connect_to(argv[1]);
    char line[64];
    for (int k = 0; rk && fgets(line, sizeof line, stdin); k++) {
        burst(rk, argv[2], atoi(argv[3]), strtoull(line, NULL, 10), k % 3 == 2);
        if (failed)
            return 1;
        printf("%" PRIu64 "\n", sent);
        fflush(stdout);
    }
    if (rk)
        rd_kafka_destroy(rk);
    return 0;
}
