#include "store/outbox.h"
#include "store/state.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = 9 };

/* Of one channel. Sequences start at 1; first <= every waiting sequence < next. */
typedef struct channel {
    uint64_t next;    /* sequence of the next message */
    uint64_t acked;   /* acknowledged up to here */
    uint64_t deleted; /* and deleted in the store up to here */
    uint64_t deleted_by_flush;
    /* Messages of the commit under construction, back to back: u64 length, bytes. The first |flushed|
     * messages, which are |flushed_bytes| long, are in the batch that slu_outbox_flush() filled last. */
    slu_buf pending;
    uint64_t pending_first; /* sequence of the first of them */
    uint64_t flushed;
    size_t flushed_bytes;
    bool flush_open; /* flushed, not yet committed */
    uint64_t sent;   /* handed out up to here; what is committed behind it waits in the store */
    /* Sizes of (acked, sent], a ring by sequence: what an acknowledgement frees. */
    uint32_t *sizes;
    uint64_t mask;
} channel;

struct slu_outbox {
    slu_store *store;
    channel channels[SLU_CHANNELS];
    uint64_t bytes; /* not acknowledged */
    bool (*room)(void *ctx, slu_channel ch, size_t len);
    void *room_ctx;
};

#define MOST_SEQUENCE (UINT64_MAX / 4)

static const char *next_name(slu_channel ch)
{
    return ch == SLU_CHANNEL_DELTAS ? "~outbox.deltas.next" : "~outbox.dead-letters.next";
}

static void make_key(uint8_t key[KEY_BYTES], slu_channel ch, uint64_t sequence)
{
    key[0] = (uint8_t)ch;
    for (int i = 0; i < 8; i++)
        key[1 + i] = (uint8_t)(sequence >> (56 - 8 * i));
}

static bool parse_key(const void *key, size_t len, slu_channel *ch, uint64_t *sequence)
{
    slu_reader r = slu_reader_of(key, len);
    *ch = (slu_channel)slu_get_u8(&r);
    *sequence = slu_get_u64_be(&r);
    return !r.bad && !slu_reader_left(&r) && *ch >= SLU_CHANNEL_DELTAS && *ch < SLU_CHANNELS;
}

typedef struct first_seen {
    bool any, bad;
    uint64_t sequence;
} first_seen;

static bool note_first(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)value, (void)value_len;
    first_seen *f = ctx;
    slu_channel ch;
    f->any = true;
    f->bad = !parse_key(key, key_len, &ch, &f->sequence);
    return false;
}

static int open_channel(slu_outbox *o, slu_channel ch, slu_error *err)
{
    channel *c = &o->channels[ch];
    int rc = slu_state_get_u64(o->store, next_name(ch), 1, &c->next, err);
    if (rc)
        return rc;
    uint8_t from[KEY_BYTES], to = (uint8_t)(ch + 1);
    make_key(from, ch, 0);
    first_seen first = {0};
    rc = slu_store_scan(o->store, SLU_FAMILY_OUTBOX, from, sizeof from, &to, 1, note_first, &first, err);
    if (rc)
        return rc;
    /* No run gets there, and arithmetic with it must not wrap. */
    if (!c->next || c->next > MOST_SEQUENCE)
        return slu_fail(err, SLU_ECORRUPT,
                        "store %s: the counter of outbox channel %d cannot be %llu: restore a backup",
                        slu_store_path(o->store), (int)ch, (unsigned long long)c->next);
    if (first.bad || (first.any && (!first.sequence || first.sequence >= c->next)))
        return slu_fail(err, SLU_ECORRUPT, "store %s: outbox holds a message that its counter does not know",
                        slu_store_path(o->store));
    c->acked = c->deleted = (first.any ? first.sequence : c->next) - 1;
    c->sent = c->acked;
    c->pending_first = c->next;
    return 0;
}

int slu_outbox_open(slu_store *s, slu_outbox **op, slu_error *err)
{
    *op = NULL;
    slu_outbox *o = calloc(1, sizeof *o);
    if (!o)
        return slu_fail(err, SLU_ENOMEM, "store %s: out of memory", slu_store_path(s));
    o->store = s;
    for (int ch = SLU_CHANNEL_DELTAS; ch < SLU_CHANNELS; ch++) {
        int rc = open_channel(o, (slu_channel)ch, err);
        if (rc) {
            slu_outbox_close(o);
            return rc;
        }
    }
    *op = o;
    return 0;
}

void slu_outbox_close(slu_outbox *o)
{
    if (!o)
        return;
    for (int ch = 0; ch < SLU_CHANNELS; ch++) {
        slu_buf_free(&o->channels[ch].pending);
        free(o->channels[ch].sizes);
    }
    free(o);
}

static channel *channel_of(slu_outbox *o, slu_channel ch)
{
    assert(ch >= SLU_CHANNEL_DELTAS && ch < SLU_CHANNELS);
    return &o->channels[ch];
}

uint64_t slu_outbox_add(slu_outbox *o, slu_channel ch, const void *message, size_t len)
{
    channel *c = channel_of(o, ch);
    slu_put_u64(&c->pending, len);
    slu_put_bytes(&c->pending, message, len);
    o->bytes += len;
    return c->next++;
}

static void flush_channel(channel *c, slu_channel ch, slu_commit *commit)
{
    uint8_t key[KEY_BYTES];
    slu_reader r = slu_reader_of(c->pending.data, c->pending.len);
    uint64_t sequence = c->pending_first;
    while (slu_reader_left(&r)) {
        size_t len = (size_t)slu_get_u64(&r);
        const uint8_t *p = slu_get_bytes(&r, len);
        make_key(key, ch, sequence++);
        slu_commit_put(commit, SLU_FAMILY_OUTBOX, key, sizeof key, p, len);
    }
    assert(!r.bad && sequence == c->next);
    c->flushed = sequence - c->pending_first;
    c->flushed_bytes = c->pending.len;
    /* Never deletes what this very commit writes: it has not been sent yet. */
    for (uint64_t s = c->deleted + 1; s <= c->acked; s++) {
        make_key(key, ch, s);
        slu_commit_delete(commit, SLU_FAMILY_OUTBOX, key, sizeof key);
    }
    c->deleted_by_flush = c->acked;
    slu_state_put_u64(commit, next_name(ch), c->next);
    c->flush_open = true;
}

int slu_outbox_flush(slu_outbox *o, slu_commit *commit)
{
    for (int ch = SLU_CHANNEL_DELTAS; ch < SLU_CHANNELS; ch++) {
        channel *c = &o->channels[ch];
        if (c->pending.len || c->acked > c->deleted)
            flush_channel(c, (slu_channel)ch, commit);
    }
    return 0;
}

typedef void send_fn(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len);

static void note_size(channel *c, size_t len)
{
    if (c->sent - c->acked > c->mask || !c->sizes) {
        uint64_t mask = c->sizes ? 2 * c->mask + 1 : 1023;
        uint32_t *sizes = malloc((mask + 1) * sizeof *sizes);
        if (!sizes)
            abort(); /* four bytes a message under way: the gate bounds them */
        for (uint64_t s = c->acked + 1; s < c->sent; s++)
            sizes[s & mask] = c->sizes[s & c->mask];
        free(c->sizes);
        c->sizes = sizes;
        c->mask = mask;
    }
    c->sizes[c->sent & c->mask] = (uint32_t)len;
}

/* Hands out the message when it is its turn and there is room; else it stays in the store. */
static bool hand_out(slu_outbox *o, slu_channel ch, uint64_t sequence, const void *p, size_t len,
                     send_fn *send, void *ctx)
{
    channel *c = &o->channels[ch];
    if (sequence != c->sent + 1 || (o->room && !o->room(o->room_ctx, ch, len)))
        return false;
    c->sent = sequence;
    note_size(c, len);
    if (send)
        send(ctx, ch, sequence, p, len);
    return true;
}

static void commit_channel(slu_outbox *o, slu_channel ch, send_fn *send, void *ctx)
{
    channel *c = &o->channels[ch];
    slu_reader r = slu_reader_of(c->pending.data, c->flushed_bytes);
    for (uint64_t i = 0; i < c->flushed; i++) {
        size_t len = (size_t)slu_get_u64(&r);
        const uint8_t *p = slu_get_bytes(&r, len);
        hand_out(o, ch, c->pending_first + i, p, len, send, ctx);
    }
    /* Messages that were added after the flush wait for the next commit. */
    size_t rest = c->pending.len - c->flushed_bytes;
    if (rest)
        memmove(c->pending.data, c->pending.data + c->flushed_bytes, rest);
    c->pending.len = rest;
    c->pending_first += c->flushed;
    c->deleted = c->deleted_by_flush;
    c->flushed = 0;
    c->flushed_bytes = 0;
    c->flush_open = false;
}

void slu_outbox_committed(slu_outbox *o, send_fn *send, void *ctx)
{
    for (int ch = SLU_CHANNEL_DELTAS; ch < SLU_CHANNELS; ch++)
        if (o->channels[ch].flush_open)
            commit_channel(o, (slu_channel)ch, send, ctx);
}

typedef struct recovering {
    slu_outbox *outbox;
    send_fn *send;
    void *ctx;
    uint64_t expected[SLU_CHANNELS];
    int rc;
    slu_error *err;
} recovering;

static bool recover_one(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    recovering *r = ctx;
    slu_channel ch;
    uint64_t sequence;
    if (!parse_key(key, key_len, &ch, &sequence)) {
        r->rc = slu_fail(r->err, SLU_ECORRUPT, "store %s: outbox has a key of %zu bytes that is none",
                         slu_store_path(r->outbox->store), key_len);
        return false;
    }
    if (sequence <= r->outbox->channels[ch].acked)
        return true; /* acknowledged since; its deletion is on the way */
    if (sequence != r->expected[ch]) {
        r->rc = slu_fail(r->err, SLU_ECORRUPT, "store %s: outbox channel %d lacks message %llu",
                         slu_store_path(r->outbox->store), (int)ch, (unsigned long long)r->expected[ch]);
        return false;
    }
    r->expected[ch]++;
    r->outbox->bytes += value_len;
    hand_out(r->outbox, ch, sequence, value, value_len, r->send, r->ctx);
    return true;
}

int slu_outbox_recover(slu_outbox *o, send_fn *send, void *ctx, slu_error *err)
{
    recovering r = {.outbox = o, .send = send, .ctx = ctx, .err = err};
    for (int ch = SLU_CHANNEL_DELTAS; ch < SLU_CHANNELS; ch++)
        r.expected[ch] = o->channels[ch].acked + 1;
    int rc = slu_store_scan(o->store, SLU_FAMILY_OUTBOX, NULL, 0, NULL, 0, recover_one, &r, err);
    for (int ch = SLU_CHANNEL_DELTAS; ch < SLU_CHANNELS && !rc && !r.rc; ch++)
        if (r.expected[ch] < o->channels[ch].pending_first)
            r.rc = slu_fail(err, SLU_ECORRUPT, "store %s: outbox channel %d lacks message %llu",
                            slu_store_path(o->store), ch, (unsigned long long)r.expected[ch]);
    return rc ? rc : r.rc;
}

void slu_outbox_ack(slu_outbox *o, slu_channel ch, uint64_t sequence)
{
    channel *c = channel_of(o, ch);
    assert(sequence <= c->sent); /* only what was sent can be acknowledged */
    while (c->acked < sequence) {
        uint32_t len = c->sizes[++c->acked & c->mask];
        o->bytes -= len < o->bytes ? len : o->bytes;
    }
}

void slu_outbox_gate(slu_outbox *o, bool (*room)(void *ctx, slu_channel ch, size_t len), void *ctx)
{
    o->room = room;
    o->room_ctx = ctx;
}

typedef struct pumping {
    slu_outbox *outbox;
    send_fn *send;
    void *ctx;
    slu_channel ch;
    bool next; /* the next message was there, sent or not */
} pumping;

static bool pump_one(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    pumping *p = ctx;
    slu_channel ch;
    uint64_t sequence;
    p->next = parse_key(key, key_len, &ch, &sequence) && ch == p->ch &&
              sequence == p->outbox->channels[ch].sent + 1;
    return p->next && hand_out(p->outbox, ch, sequence, value, value_len, p->send, p->ctx);
}

int slu_outbox_pump(slu_outbox *o, send_fn *send, void *ctx, slu_error *err)
{
    int rc = 0;
    for (int ch = SLU_CHANNEL_DELTAS; !rc && ch < SLU_CHANNELS; ch++) {
        channel *c = &o->channels[ch];
        uint8_t from[KEY_BYTES], to[KEY_BYTES];
        if (c->sent + 1 >= c->pending_first || (o->room && !o->room(o->room_ctx, (slu_channel)ch, 1)))
            continue;
        pumping p = {o, send, ctx, (slu_channel)ch, false};
        make_key(from, (slu_channel)ch, c->sent + 1);
        make_key(to, (slu_channel)ch, c->pending_first);
        rc = slu_store_scan(o->store, SLU_FAMILY_OUTBOX, from, sizeof from, to, sizeof to, pump_one, &p, err);
        if (!rc && !p.next)
            rc = slu_fail(err, SLU_ECORRUPT, "store %s: outbox channel %d lacks message %llu",
                          slu_store_path(o->store), ch, (unsigned long long)c->sent + 1);
    }
    return rc;
}

uint64_t slu_outbox_bytes(const slu_outbox *o)
{
    return o->bytes;
}

uint64_t slu_outbox_waiting(const slu_outbox *o, slu_channel ch)
{
    assert(ch >= SLU_CHANNEL_DELTAS && ch < SLU_CHANNELS);
    const channel *c = &o->channels[ch];
    return c->next - 1 - c->acked;
}
