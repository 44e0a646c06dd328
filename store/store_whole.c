#include "base/clock.h"
#include "store/store_files.h"
#include "store/store_inside.h"
#include "store/store_logs.h"
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define SETTLED_US (5 * SLU_SECOND_US)

const char STORE_COMMITS_KEY[] = "~commits", STORE_ID_KEY[] = "~store";

static int read_number(slu_store *s, const char *key, uint64_t *out, slu_error *err)
{
    slu_buf b = SLU_BUF_INIT;
    int rc = slu_store_get(s, SLU_FAMILY_META, key, strlen(key), &b, err);
    slu_reader r = slu_reader_of(b.data, b.len);
    *out = rc ? 0 : slu_get_u64(&r);
    slu_buf_free(&b);
    return rc == SLU_ENOTFOUND ? 0 : rc;
}

int store_read_commits(slu_store *s, uint64_t *commits, slu_error *err)
{
    return read_number(s, STORE_COMMITS_KEY, commits, err);
}

int store_read_counts(slu_store *s, slu_error *err)
{
    int rc = read_number(s, STORE_COMMITS_KEY, &s->commits, err);
    if (!rc)
        rc = read_number(s, STORE_ID_KEY, &s->id, err);
    while (!rc && !s->id)
        if (getrandom(&s->id, sizeof s->id, 0) != sizeof s->id)
            s->id = (uint64_t)slu_wall_us(&slu_system_clock);
    return rc;
}

int store_lost_commits(const slu_store *s, uint64_t held, uint64_t acknowledged, slu_error *err)
{
    char logs[300];
    store_list_files(s->path, ".log", logs, sizeof logs);
    return slu_fail(
        err, SLU_ECORRUPT,
        "store %s: holds commit %llu, but commit %llu was acknowledged: a log (%s) or the MANIFEST "
        "is damaged, cut short or of another time; restore a backup (sluice-store restore; a "
        "scorer's store can be deleted)",
        s->path, (unsigned long long)held, (unsigned long long)acknowledged,
        logs[0] ? logs : "none is there");
}

int store_compare_with_mark(slu_store *s, const slu_mark *m, slu_error *err)
{
    uint64_t commits, id;
    int rc = read_number(s, STORE_COMMITS_KEY, &commits, err);
    if (!rc)
        rc = read_number(s, STORE_ID_KEY, &id, err);
    if (!rc && id && id != m->store)
        rc = slu_fail(
            err, SLU_ECORRUPT,
            "store %s: its logs or tables are of another store (id %016llx, the file " SLU_MARK_FILE
            " says %016llx): files of two stores were mixed; restore a backup (sluice-store restore)",
            s->path, (unsigned long long)id, (unsigned long long)m->store);
    return !rc && commits < m->commits ? store_lost_commits(s, commits, m->commits, err) : rc;
}

static int check_copy(const slu_store *s, const slu_mark *m, bool copied, slu_error *err)
{
    if (!copied || m->closed)
        return 0;
    return slu_fail(err, SLU_ECORRUPT,
                    "store %s: is a copy of a store that was in use, so its files may be of different "
                    "moments; make copies with sluice-store backup. If certainly nothing wrote to the "
                    "original meanwhile, remove the file " SLU_MARK_FILE " from the copy",
                    s->path);
}

static int check_manifest(const slu_store *s, const slu_mark *m, slu_error *err)
{
    uint64_t number, size;
    slu_mark_manifest(s->path, &number, &size);
    if (!m->manifest || number > m->manifest || (number == m->manifest && size >= m->manifest_size))
        return 0;
    return slu_fail(err, SLU_ECORRUPT,
                    "store %s: MANIFEST-%06llu had %llu bytes, but CURRENT leads to MANIFEST-%06llu of %llu: "
                    "damaged or of another time; restore a backup (sluice-store restore)",
                    s->path, (unsigned long long)m->manifest, (unsigned long long)m->manifest_size,
                    (unsigned long long)number, (unsigned long long)size);
}

int store_look_before_opening(slu_store *s, slu_error *err)
{
    bool copied;
    int rc = slu_mark_read(s->path, &s->noted, &copied, err);
    if (rc == SLU_ENOTFOUND)
        return 0;
    if (!rc)
        rc = check_copy(s, &s->noted, copied, err);
    if (!rc)
        rc = check_manifest(s, &s->noted, err);
    if (!rc)
        rc = store_check_logs(s->path, err);
    if (rc)
        return rc;
    s->read_only = true;
    rc = store_open_db(s, err);
    if (!rc)
        rc = store_compare_with_mark(s, &s->noted, err);
    store_close_db(s);
    s->read_only = false;
    return rc;
}

/* ---- marking ---- */

int store_begin_marking(slu_store *s, slu_error *err)
{
    int rc = s->mark ? 0 : slu_mark_open(s->path, true, &s->mark, err);
    s->noted.store = s->id;
    s->noted.commits = s->sync ? s->commits : 0;
    s->noted.closed = false;
    s->seen_at_us = slu_mono_us(&slu_system_clock);
    slu_mark_manifest(s->path, &s->seen_manifest, &s->seen_size);
    return rc ? rc : slu_mark_write(s->mark, &s->noted, true, err);
}

/* A MANIFEST may be seen before RocksDB has synced it, so what is noted is what was there for a while. */
static void look_at_manifest(slu_store *s)
{
    int64_t now = slu_mono_us(&slu_system_clock);
    if (now - s->seen_at_us < SETTLED_US)
        return;
    s->noted.manifest = s->seen_manifest;
    s->noted.manifest_size = s->seen_size;
    slu_mark_manifest(s->path, &s->seen_manifest, &s->seen_size);
    s->seen_at_us = now;
}

/* When the note cannot be written the commit is durable all the same, only less is known about it. */
void store_note_commit(slu_store *s, uint64_t commits)
{
    s->commits = commits;
    if (!s->mark)
        return;
    look_at_manifest(s);
    s->noted.commits = s->sync ? commits : 0;
    slu_mark_write(s->mark, &s->noted, false, NULL);
}

void store_end_marking(slu_store *s)
{
    if (s->mark && s->marking && !s->broken) {
        s->noted.closed = true;
        slu_mark_manifest(s->path, &s->noted.manifest, &s->noted.manifest_size);
        slu_mark_write(s->mark, &s->noted, true, NULL);
    }
    slu_mark_close(s->mark);
}
