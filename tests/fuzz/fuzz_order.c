/* Bytes of a stored order, perhaps damaged: whatever is accepted names partitions that end, has offsets that
 * are offsets, and, recorded again record by record, reads the same. */
#include "trainer/order.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(x)                                                                                           \
    do {                                                                                                     \
        if (!(x))                                                                                            \
            abort();                                                                                         \
    } while (0)
#define MOST 5000 /* records that are recorded again */

typedef struct record {
    slu_partition part;
    slu_record_kind kind;
    int64_t offset, time_us;
} record;

/* Fills |out| with up to MOST records; false when refused. */
static bool read_records(slu_order_reader *r, record *out, size_t *n)
{
    slu_order_run run;
    slu_error err = SLU_ERROR_INIT;
    int rc;
    while ((rc = slu_order_next(r, &run, &err)) == 1) {
        REQUIRE(run.place < slu_order_partitions(r) && run.count > 0);
        bool events = run.kind == SLU_RECORD_EVENT;
        REQUIRE(events ? run.start >= 0 && run.count <= (uint64_t)INT64_MAX - (uint64_t)run.start
                       : run.start == -1 && run.count == 1);
        bool timed = run.kind == SLU_RECORD_CLOCK || run.kind == SLU_RECORD_END;
        REQUIRE(timed ? run.time_us > 0 && run.time_us <= SLU_MAX_TIME_US : run.time_us == 0);
        for (uint64_t k = 0; k < run.count && *n < MOST; k++)
            out[(*n)++] = (record){slu_order_partition(r, run.place), run.kind,
                                   events ? run.start + (int64_t)k : -1, run.time_us};
    }
    REQUIRE(rc == err.code);
    return rc == 0;
}

static void record_again(const record *records, size_t n, slu_buf *out)
{
    slu_order *o = slu_order_new();
    REQUIRE(o);
    slu_partition known[MOST];
    uint32_t n_known = 0;
    for (size_t i = 0; i < n; i++) {
        const record *r = &records[i];
        uint32_t k = 0;
        while (k < n_known &&
               (known[k].partition != r->part.partition || strcmp(known[k].topic, r->part.topic) != 0))
            k++;
        if (k == n_known)
            known[n_known++] = r->part;
        slu_order_add(
            o, &(slu_record){.kind = r->kind, .partition = k, .offset = r->offset, .arrival_us = r->time_us},
            &r->part);
    }
    slu_order_save(o, out);
    slu_order_free(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static record once[MOST], twice[MOST];
    slu_order_reader *r, *again;
    slu_error err = SLU_ERROR_INIT;
    if (slu_order_open(data, size, &r, &err))
        return 0;
    size_t n = 0, m = 0;
    for (uint32_t i = 0; i < slu_order_partitions(r); i++)
        REQUIRE(strlen(slu_order_partition(r, i).topic) < size && slu_order_partition(r, i).partition >= 0);
    if (read_records(r, once, &n)) {
        slu_buf value = SLU_BUF_INIT;
        record_again(once, n, &value);
        REQUIRE(!slu_order_open(value.data, value.len, &again, &err));
        REQUIRE(read_records(again, twice, &m) && m == n);
        for (size_t i = 0; i < n; i++)
            REQUIRE(once[i].kind == twice[i].kind && once[i].offset == twice[i].offset &&
                    once[i].time_us == twice[i].time_us &&
                    once[i].part.partition == twice[i].part.partition &&
                    !strcmp(once[i].part.topic, twice[i].part.topic));
        slu_order_close(again);
        slu_buf_free(&value);
    }
    slu_order_close(r);
    return 0;
}
