#include "store/row_expiry.h"
#include "base/clock.h"
#include "base/log.h"
#include "store/row_scan.h"
#include "store/state.h"
#include "store/timers.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A timer's deadline is seconds and table in one number, its sequence the row's id: so timers are unique, and
 * due ones come by deadline, table and id. */
enum { TABLE_BITS = 20, MEMORY_BYTES = 4 << 20, PIECE_BYTES = 4 << 20, TOGETHER = 256 };
#define TABLE_MASK ((1u << TABLE_BITS) - 1)

static const char COUNT_NAME[] = "rows.expiry";
/* META: the times to live (u64 us each) that the timers were made for; absent: none; anything else: they are
 * not complete. */
static const char MADE_FOR[] = "rows.ttl";

struct slu_row_expiry {
    slu_row_table *rows;
    slu_timers *timers;
    uint32_t *ttl; /* (n_tables) seconds */
    uint32_t n_tables;
    /* Those that are looked at together, of one table. */
    uint64_t ids[TOGETHER];
    slu_row *found[TOGETHER];
};

static int64_t deadline_of(uint32_t seconds, uint32_t ttl, uint32_t table)
{
    return (int64_t)(((uint64_t)seconds + ttl) << TABLE_BITS | table);
}

/* A row lives at least as long as it is told to. */
static uint32_t seconds_of(int64_t ttl_us)
{
    return (uint32_t)((ttl_us + SLU_SECOND_US - 1) / SLU_SECOND_US);
}

bool slu_row_expiry_parse(const void *key, size_t len, uint64_t *deadline_seconds, uint32_t *table,
                          uint64_t *id)
{
    slu_reader r = slu_reader_of(key, len);
    uint64_t deadline = slu_get_u64_be(&r);
    *id = slu_get_u64_be(&r);
    *deadline_seconds = deadline >> TABLE_BITS;
    *table = (uint32_t)deadline & TABLE_MASK;
    return !r.bad && !slu_reader_left(&r);
}

/* ---- making the timers anew ---- */

typedef struct making {
    slu_store *store;
    slu_commit *commit;
    const int64_t *ttl_us; /* (n_tables) */
    uint32_t n_tables;
    uint64_t timers;
    int rc;
    slu_error *err;
} making;

static bool write_piece(making *m)
{
    if (!m->rc && slu_commit_bytes(m->commit) >= PIECE_BYTES)
        m->rc = slu_commit_write(m->commit, m->err);
    return !m->rc;
}

static bool drop_timer(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    making *m = ctx;
    (void)value, (void)value_len;
    slu_commit_delete(m->commit, SLU_FAMILY_EXPIRY, key, key_len);
    return write_piece(m);
}

static bool make_timer(void *ctx, uint32_t table, uint64_t id, uint32_t count, uint32_t last_seen,
                       bool admitted, const float *v, uint32_t floats)
{
    making *m = ctx;
    uint8_t key[SLU_TIMER_KEY_BYTES];
    (void)count, (void)admitted, (void)v, (void)floats;
    if (table >= m->n_tables || !m->ttl_us[table])
        return true;
    slu_timer_key(key, deadline_of(last_seen, seconds_of(m->ttl_us[table]), table), id);
    slu_commit_put(m->commit, SLU_FAMILY_EXPIRY, key, sizeof key, "", 0);
    m->timers++;
    return write_piece(m);
}

static void write_times(const making *m, slu_buf *out)
{
    for (uint32_t i = 0; i < m->n_tables; i++)
        slu_put_u64(out, (uint64_t)m->ttl_us[i]);
}

/* In pieces, which count for nothing until the last one says that they are complete: a process that dies in
 * between begins again. */
static int make_anew(making *m, bool any)
{
    slu_buf times = SLU_BUF_INIT;
    int64_t start = slu_mono_us(&slu_system_clock);
    slu_state_put_bytes(m->commit, MADE_FOR, "incomplete", 10);
    m->rc = slu_commit_write(m->commit, m->err);
    int rc =
        m->rc ? m->rc : slu_store_scan(m->store, SLU_FAMILY_EXPIRY, NULL, 0, NULL, 0, drop_timer, m, m->err);
    if (!rc && !m->rc && any)
        rc = slu_row_scan(m->store, make_timer, m, m->err);
    if (rc || m->rc)
        return rc ? rc : m->rc;
    write_times(m, &times);
    if (any) {
        slu_state_put_bytes(m->commit, MADE_FOR, times.data, times.len);
        slu_state_put_u64(m->commit, COUNT_NAME, m->timers);
    } else {
        slu_state_delete(m->commit, MADE_FOR);
        slu_state_delete(m->commit, COUNT_NAME);
    }
    slu_buf_free(&times);
    rc = slu_commit_write(m->commit, m->err);
    if (!rc && m->timers)
        SLU_INFO("store", "the rows' times to live have changed: all rows were walked",
                 SLU_U64("timers", m->timers),
                 SLU_F64("seconds", (double)(slu_mono_us(&slu_system_clock) - start) / 1e6));
    return rc;
}

/* Nothing is written when the timers fit the configuration. */
static int fit(making *m, slu_error *err)
{
    slu_buf stored = SLU_BUF_INIT, wanted = SLU_BUF_INIT;
    bool any = false;
    for (uint32_t i = 0; i < m->n_tables; i++)
        any |= m->ttl_us[i] != 0;
    write_times(m, &wanted);
    int rc = slu_state_get_bytes(m->store, MADE_FOR, &stored, err);
    bool fits = rc ? !any : any && stored.len == wanted.len && !memcmp(stored.data, wanted.data, wanted.len);
    if ((!rc || rc == SLU_ENOTFOUND) && fits) {
        rc = 0;
    } else if (!rc || rc == SLU_ENOTFOUND) {
        m->commit = slu_commit_begin(m->store);
        rc = make_anew(m, any);
        slu_commit_abandon(m->commit);
    }
    slu_buf_free(&stored);
    slu_buf_free(&wanted);
    return rc ? slu_error_context(err, "the rows' times to live") : 0;
}

/* ---- life ---- */

int slu_row_expiry_open(slu_store *s, slu_row_table *rows, const int64_t *ttl_us, uint32_t n_tables,
                        slu_row_expiry **ep, slu_error *err)
{
    *ep = NULL;
    making m = {.store = s, .ttl_us = ttl_us, .n_tables = n_tables, .err = err};
    assert(n_tables <= TABLE_MASK);
    int rc = fit(&m, err);
    bool any = false;
    for (uint32_t i = 0; i < n_tables; i++)
        any |= ttl_us[i] != 0;
    if (rc || !any)
        return rc;
    slu_row_expiry *e = calloc(1, sizeof *e);
    if (!e || !(e->ttl = calloc(n_tables, sizeof *e->ttl))) {
        free(e);
        return slu_fail(err, SLU_ENOMEM, "store %s: out of memory", slu_store_path(s));
    }
    e->rows = rows;
    e->n_tables = n_tables;
    for (uint32_t i = 0; i < n_tables; i++)
        e->ttl[i] = seconds_of(ttl_us[i]);
    slu_timers_config timers = {SLU_FAMILY_EXPIRY, COUNT_NAME, false, MEMORY_BYTES};
    rc = slu_timers_open(s, &timers, &e->timers, err);
    if (rc) {
        slu_row_expiry_close(e);
        return rc;
    }
    *ep = e;
    return 0;
}

void slu_row_expiry_close(slu_row_expiry *e)
{
    if (!e)
        return;
    slu_timers_close(e->timers);
    free(e->ttl);
    free(e);
}

bool slu_row_expiry_has(const slu_row_expiry *e, uint32_t table)
{
    return e && e->ttl[table];
}

void slu_row_expiry_born(slu_row_expiry *e, uint32_t table, uint64_t id, uint32_t last_seen)
{
    if (slu_row_expiry_has(e, table))
        slu_timers_add(e->timers, deadline_of(last_seen, e->ttl[table], table), id, (slu_hash128){0});
}

uint64_t slu_row_expiry_count(const slu_row_expiry *e)
{
    return e ? slu_timers_count(e->timers) : 0;
}

/* ---- what is due ---- */

/* Takes due timers while they are of one table; returns how many, 0: none is due. */
static int take_due(slu_row_expiry *e, int64_t now, uint64_t most, uint32_t *table, uint32_t *n,
                    slu_error *err)
{
    *n = 0;
    while (*n < TOGETHER && *n < most) {
        int64_t next = slu_timers_next(e->timers), deadline;
        uint64_t id;
        slu_hash128 none;
        if (next > now || (*n && ((uint64_t)next & TABLE_MASK) != *table))
            return 0;
        int rc = slu_timers_pop(e->timers, now, &deadline, &id, &none, err);
        if (rc)
            return rc;
        *table = (uint32_t)((uint64_t)deadline & TABLE_MASK);
        e->ids[(*n)++] = id;
    }
    return 0;
}

static int look_at(slu_row_expiry *e, int64_t now_seconds, uint32_t table, uint32_t n, slu_error *err)
{
    uint32_t ttl = e->ttl[table];
    int rc = slu_row_table_fetch(e->rows, table, e->ids, n, e->found, err);
    for (uint32_t i = 0; !rc && i < n; i++) {
        slu_row *row = e->found[i];
        if ((int64_t)row->last_seen + ttl <= now_seconds)
            slu_row_delete(e->rows, table, row);
        else
            slu_timers_add(e->timers, deadline_of(row->last_seen, ttl, table), row->id, (slu_hash128){0});
    }
    return rc ? rc : slu_row_table_release(e->rows, err);
}

int slu_row_expiry_run(slu_row_expiry *e, int64_t now_us, uint64_t most, slu_error *err)
{
    if (!e || now_us < 0)
        return 0;
    int64_t now_seconds = now_us / SLU_SECOND_US;
    int64_t now = (int64_t)((uint64_t)now_seconds << TABLE_BITS | TABLE_MASK);
    uint32_t table = 0, n = 0;
    int rc;
    do {
        rc = take_due(e, now, most, &table, &n, err);
        if (!rc && n)
            rc = look_at(e, now_seconds, table, n, err);
        most -= n;
    } while (!rc && n && most);
    return rc;
}

/* ---- committing ---- */

void slu_row_expiry_flush(slu_row_expiry *e, slu_commit *c)
{
    if (e)
        slu_timers_flush(e->timers, c);
}

void slu_row_expiry_committed(slu_row_expiry *e)
{
    if (e)
        slu_timers_committed(e->timers);
}
