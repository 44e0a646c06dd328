#include "trainer/order.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 2, OLDEST_FORMAT = 1, KIND_SHIFT = 1, PLACE_SHIFT = 3, KIND_MASK = 3, JUMP = 1 };
#define NOWHERE UINT32_MAX

/* ---- recording ---- */

struct slu_order {
    slu_buf names, entries; /* of this value */
    uint32_t n;             /* partitions in |names| */
    uint32_t *places;       /* (cap) source's number -> place in |names|, NOWHERE */
    int64_t *next;          /* (cap) by source's number: behind its last run in this value, -1 none */
    uint32_t cap;
    slu_order_run run; /* being gathered; place is the source's number here. count 0: none */
};

slu_order *slu_order_new(void)
{
    return calloc(1, sizeof(slu_order));
}

void slu_order_free(slu_order *o)
{
    if (!o)
        return;
    slu_buf_free(&o->names);
    slu_buf_free(&o->entries);
    free(o->places);
    free(o->next);
    free(o);
}

static void grow(slu_order *o, uint32_t index)
{
    if (index < o->cap)
        return;
    uint32_t cap = index < 16 ? 32 : 2 * index;
    o->places = realloc(o->places, cap * sizeof *o->places);
    o->next = realloc(o->next, cap * sizeof *o->next);
    if (!o->places || !o->next)
        abort(); /* as slu_buf: a few bytes per partition */
    for (; o->cap < cap; o->cap++) {
        o->places[o->cap] = NOWHERE;
        o->next[o->cap] = -1;
    }
}

static void put_name(slu_order *o, const slu_partition *part)
{
    slu_put_str(&o->names, part->topic, strlen(part->topic) + 1);
    slu_put_varint(&o->names, (uint32_t)part->partition);
}

/* Place of the source's partition |index| in this value. */
static uint32_t place_of(slu_order *o, uint32_t index, const slu_partition *part)
{
    if (index == SLU_ORDER_UNNUMBERED) {
        put_name(o, part); /* perhaps once more: names may repeat */
        return o->n++;
    }
    grow(o, index);
    if (o->places[index] != NOWHERE)
        return o->places[index];
    put_name(o, part);
    return o->places[index] = o->n++;
}

static void put_tag(slu_order *o, uint32_t place, slu_record_kind kind, bool jump)
{
    slu_put_varint(&o->entries,
                   (uint64_t)place << PLACE_SHIFT | (uint64_t)kind << KIND_SHIFT | (jump ? JUMP : 0));
}

static void end_run(slu_order *o)
{
    const slu_order_run *run = &o->run;
    if (!run->count)
        return;
    bool jump = o->next[run->place] != run->start;
    put_tag(o, o->places[run->place], SLU_RECORD_EVENT, jump);
    if (jump)
        slu_put_varint(&o->entries, (uint64_t)run->start);
    slu_put_varint(&o->entries, run->count);
    o->next[run->place] = run->start + (int64_t)run->count;
    o->run.count = 0;
}

static void put_other(slu_order *o, const slu_record *r, const slu_partition *part)
{
    bool timed = r->kind == SLU_RECORD_CLOCK || r->kind == SLU_RECORD_END;
    slu_record_kind kind = r->kind;
    if (timed)
        kind = r->kind == SLU_RECORD_CLOCK ? SLU_RECORD_FLUSH : SLU_RECORD_IDLE;
    put_tag(o, place_of(o, r->partition, part), kind, timed);
    if (timed)
        slu_put_varint(&o->entries, (uint64_t)r->arrival_us);
}

void slu_order_add(slu_order *o, const slu_record *r, const slu_partition *part)
{
    slu_order_run *run = &o->run;
    if (r->kind != SLU_RECORD_EVENT) {
        end_run(o);
        put_other(o, r, part);
        return;
    }
    assert(r->offset >= 0);
    if (run->count && run->place == r->partition && run->start + (int64_t)run->count == r->offset) {
        run->count++;
        return;
    }
    end_run(o);
    place_of(o, r->partition, part);
    *run = (slu_order_run){.kind = SLU_RECORD_EVENT, .place = r->partition, .start = r->offset, .count = 1};
}

void slu_order_save(slu_order *o, slu_buf *out)
{
    end_run(o);
    slu_put_u8(out, FORMAT);
    slu_put_varint(out, o->n);
    slu_put_bytes(out, o->names.data, o->names.len);
    slu_put_bytes(out, o->entries.data, o->entries.len);
}

void slu_order_clear(slu_order *o)
{
    slu_buf_clear(&o->names);
    slu_buf_clear(&o->entries);
    o->n = 0;
    o->run.count = 0;
    for (uint32_t i = 0; i < o->cap; i++) {
        o->places[i] = NOWHERE;
        o->next[i] = -1;
    }
}

/* ---- reading ---- */

typedef struct place {
    slu_partition part;
    int64_t next; /* behind its last run, -1 none */
} place;

struct slu_order_reader {
    slu_reader in;
    uint32_t n;
    place places[]; /* (n) */
};

static int damaged(slu_error *err)
{
    return slu_fail(err, SLU_ECORRUPT,
                    "a stored order of records is damaged: restore the store from a backup");
}

static bool read_name(slu_reader *in, slu_partition *part)
{
    size_t len;
    const uint8_t *topic = slu_get_str(in, &len);
    uint64_t number = slu_get_varint(in);
    if (in->bad || !len || topic[len - 1] || memchr(topic, 0, len - 1) || number > INT32_MAX)
        return false;
    *part = (slu_partition){(const char *)topic, (int32_t)number};
    return true;
}

int slu_order_open(const void *value, size_t len, slu_order_reader **rp, slu_error *err)
{
    *rp = NULL;
    slu_reader in = slu_reader_of(value, len);
    uint8_t format = slu_get_u8(&in);
    if (!in.bad && (format < OLDEST_FORMAT || format > FORMAT))
        return slu_fail(
            err, SLU_EFORMAT,
            "a stored order of records has format %u, this program knows formats %d to %d; use the "
            "matching version",
            format, OLDEST_FORMAT, FORMAT);
    uint64_t n = slu_get_varint(&in);
    if (in.bad || n > slu_reader_left(&in)) /* a name has more than one byte */
        return damaged(err);
    slu_order_reader *r = calloc(1, sizeof *r + n * sizeof *r->places);
    if (!r)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the order of records");
    r->n = (uint32_t)n;
    for (uint32_t i = 0; i < r->n; i++) {
        r->places[i].next = -1;
        if (!read_name(&in, &r->places[i].part)) {
            free(r);
            return damaged(err);
        }
    }
    r->in = in;
    *rp = r;
    return 0;
}

void slu_order_close(slu_order_reader *r)
{
    free(r);
}

uint32_t slu_order_partitions(const slu_order_reader *r)
{
    return r->n;
}

slu_partition slu_order_partition(const slu_order_reader *r, uint32_t place)
{
    assert(place < r->n);
    return r->places[place].part;
}

static int read_events(slu_order_reader *r, bool jump, slu_order_run *out, slu_error *err)
{
    place *p = &r->places[out->place];
    uint64_t start = jump ? slu_get_varint(&r->in) : (uint64_t)p->next;
    uint64_t count = slu_get_varint(&r->in);
    /* Without a jump there must have been a run; -1 is not below the limit. */
    if (r->in.bad || !count || start >= INT64_MAX || count > INT64_MAX - start)
        return damaged(err);
    out->start = (int64_t)start;
    out->count = count;
    p->next = (int64_t)(start + count);
    return 1;
}

static int read_time(slu_order_reader *r, slu_order_run *out, slu_error *err)
{
    uint64_t time_us = slu_get_varint(&r->in);
    if (r->in.bad || !time_us || time_us > SLU_MAX_TIME_US || out->kind == SLU_RECORD_PARTITION)
        return damaged(err);
    out->kind = out->kind == SLU_RECORD_FLUSH ? SLU_RECORD_CLOCK : SLU_RECORD_END;
    out->time_us = (int64_t)time_us;
    return 1;
}

int slu_order_next(slu_order_reader *r, slu_order_run *out, slu_error *err)
{
    if (!slu_reader_left(&r->in))
        return 0;
    uint64_t tag = slu_get_varint(&r->in), place = tag >> PLACE_SHIFT;
    bool jump = tag & JUMP;
    if (r->in.bad || place >= r->n)
        return damaged(err);
    *out = (slu_order_run){.kind = (slu_record_kind)(tag >> KIND_SHIFT & KIND_MASK),
                           .place = (uint32_t)place,
                           .start = -1,
                           .count = 1};
    if (out->kind == SLU_RECORD_EVENT)
        return read_events(r, jump, out, err);
    return jump ? read_time(r, out, err) : 1;
}
