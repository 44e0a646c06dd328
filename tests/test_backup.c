/* A backup is whole or refused, is made while the store is written to, and comes back as the commit that it
 * was. */
#include "base/clock.h"
#include "base/digest.h"
#include "store/backup.h"
#include "store/keeper.h"
#include "store/state.h"
#include "store/verify.h"
#include "tests/store_sample.h"
#include "tests/suite.h"
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

static char dir[400];
static slu_error err;

static void begin(void)
{
    sample_setup();
    snprintf(dir, sizeof dir, "%s/backups", sample_root);
    err = (slu_error)SLU_ERROR_INIT;
}

/* Version |v| of something that looks like a trainer's store: row i holds v, all of one commit. */
static void put_version(slu_commit *c, uint64_t v)
{
    uint8_t key[12] = {0}, value[10] = {1};
    for (int i = 0; i < 50; i++) {
        key[11] = (uint8_t)i;
        memcpy(value + 2, &v, 4);
        slu_commit_put(c, SLU_FAMILY_ROWS, key, sizeof key, value, sizeof value);
    }
    slu_state_put_u64(c, "~version", v);
    slu_state_put_u64(c, "~lineage", 77);
    slu_state_put_offset(c, "events", 0, (int64_t)v * 10);
    sample_write(c);
}

static uint64_t number(slu_store *s, const char *name)
{
    uint64_t v;
    ck_assert_int_eq(slu_state_get_u64(s, name, 0, &v, &err), 0);
    return v;
}

typedef struct row_view {
    uint64_t n, low, high;
} row_view;

static bool look_at_row(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)key, (void)key_len, (void)value_len;
    row_view *r = ctx;
    uint32_t v;
    memcpy(&v, (const uint8_t *)value + 2, 4);
    r->low = r->n++ && r->low < v ? r->low : v;
    r->high = r->high > v ? r->high : v;
    return true;
}

/* Everything in it is of one version. */
static uint64_t version_in(const char *path)
{
    slu_store_config config = sample_config();
    row_view r = {0};
    int64_t offset;
    config.path = path;
    config.read_only = true;
    slu_store *s = sample_open_as(config);
    uint64_t v = number(s, "~version");
    ck_assert_int_eq(slu_store_scan(s, SLU_FAMILY_ROWS, NULL, 0, NULL, 0, look_at_row, &r, &err), 0);
    ck_assert_int_eq(slu_state_get_offset(s, "events", 0, &offset, &err), 0);
    ck_assert(r.n == 50 && r.low == v && r.high == v && offset == (int64_t)v * 10);
    slu_store_close(s);
    return v;
}

typedef struct writing {
    slu_store *s;
    atomic_bool stop;
} writing;

static void *keep_writing(void *arg)
{
    writing *w = arg;
    slu_commit *c = slu_commit_begin(w->s);
    for (uint64_t v = 1; !atomic_load(&w->stop); v++)
        put_version(c, v);
    slu_commit_abandon(c);
    return NULL;
}

START_TEST(made_while_it_is_written_to)
{
    begin();
    writing w = {.s = sample_open()};
    slu_backup b = {.version = 0}, c;
    pthread_t t;
    char aside[4096], to[400];
    ck_assert_int_eq(slu_backup_make(w.s, dir, &b, &err), SLU_ENOTFOUND); /* nothing in it yet */
    err = (slu_error)SLU_ERROR_INIT;
    pthread_create(&t, NULL, keep_writing, &w);
    uint64_t last = 0;
    for (int i = 0; i < 5;) {
        slu_error why = SLU_ERROR_INIT;
        if (slu_backup_make(w.s, dir, &b, &why) == SLU_ENOTFOUND)
            continue;
        ck_assert_msg(!why.code, "%s", why.message);
        ck_assert_msg(!slu_backup_check(b.path, &c, &err), "%s", err.message);
        ck_assert(c.version == b.version && c.trainer && c.files == b.files && b.version >= last);
        ck_assert_uint_eq(version_in(b.path), b.version);
        last = b.version;
        i++;
    }
    /* The store is in use, by this very process: not even with --replace. */
    ck_assert_int_eq(slu_backup_restore(b.path, sample_path, false, false, aside, &err), SLU_EINVAL);
    atomic_store(&w.stop, true);
    pthread_join(t, NULL);
    slu_store_close(w.s);
    snprintf(to, sizeof to, "%s/again", sample_root);
    err = (slu_error)SLU_ERROR_INIT;
    ck_assert_msg(!slu_backup_restore(b.path, to, false, false, aside, &err), "%s", err.message);
    ck_assert_uint_eq(version_in(to), b.version);
    sample_teardown();
}
END_TEST

START_TEST(restored_with_a_new_lineage_and_the_old_kept)
{
    begin();
    slu_backup b;
    char aside[4096];
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    put_version(c, 5);
    ck_assert_msg(!slu_backup_make(s, dir, &b, &err), "%s", err.message);
    put_version(c, 6);
    slu_store_close(s);
    ck_assert_int_eq(slu_backup_restore(b.path, sample_path, false, false, aside, &err), SLU_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.message, "--replace"));
    ck_assert_uint_eq(version_in(sample_path), 6);
    err = (slu_error)SLU_ERROR_INIT;
    ck_assert_msg(!slu_backup_restore(b.path, sample_path, true, true, aside, &err), "%s", err.message);
    ck_assert_uint_eq(version_in(sample_path), 5);
    ck_assert_uint_eq(version_in(aside), 6);
    ck_assert(slu_is_held(sample_path) && !slu_hold(sample_path, false, &err) && !slu_is_held(sample_path));
    s = sample_open(); /* and it may be written to */
    ck_assert_uint_ne(number(s, "~lineage"), 77);
    put_version(slu_commit_begin(s), 6);
    slu_store_close(s);
    ck_assert_uint_eq(version_in(b.path), 5); /* the backup is not touched by that */
    ck_assert_msg(!slu_backup_check(b.path, &b, &err), "%s", err.message);
    sample_teardown();
}
END_TEST

START_TEST(damage_is_found)
{
    begin();
    slu_backup b, x;
    char aside[4096], to[400], name[5000];
    slu_store *s = sample_open();
    put_version(slu_commit_begin(s), 3);
    snprintf(to, sizeof to, "%s/to", sample_root);
    for (int round = 0;; round++) {
        ck_assert_msg(!slu_backup_make(s, dir, &b, &err), "%s", err.message);
        DIR *d = opendir(b.path);
        struct dirent *e;
        int i = 0;
        while ((e = readdir(d)) && (e->d_name[0] == '.' || i++ < round))
            ;
        if (!e) {
            closedir(d);
            ck_assert_int_ge(round, 5);
            break;
        }
        snprintf(name, sizeof name, "%s/%s", b.path, e->d_name);
        struct stat st;
        ck_assert(!stat(name, &st));
        char command[21000];
        /* Hard links: the store must not be hurt by this. */
        snprintf(command, sizeof command, "cp %s %s.x && mv %s.x %s", name, name, name, name);
        ck_assert_int_eq(system(command), 0);
        if (st.st_size) {
            int fd = open(name, O_RDWR);
            uint8_t byte;
            ck_assert_int_eq(pread(fd, &byte, 1, st.st_size / 2), 1);
            byte ^= 4;
            ck_assert_int_eq(pwrite(fd, &byte, 1, st.st_size / 2), 1);
            close(fd);
        } else {
            ck_assert(!unlink(name));
        }
        closedir(d);
        ck_assert_msg(slu_backup_check(b.path, &x, &err) < 0, "%s: not found", name);
        ck_assert_msg(strstr(err.message, b.path) != NULL, "%s", err.message);
        ck_assert_int_lt(slu_backup_restore(b.path, to, false, false, aside, NULL), 0);
        ck_assert_int_ne(access(to, F_OK), 0);
        err = (slu_error)SLU_ERROR_INIT;
    }
    snprintf(name, sizeof name, "%s/more.sst", b.path);
    close(open(name, O_CREAT | O_WRONLY, 0600));
    ck_assert_int_eq(slu_backup_check(b.path, &x, &err), SLU_ECORRUPT);
    err = (slu_error)SLU_ERROR_INIT;
    ck_assert_int_eq(slu_backup_check(sample_path, &x, &err), SLU_ENOTFOUND);
    slu_store_close(s);
    sample_teardown();
}
END_TEST

/* The note of |b| with |line| put in before its seal, sealed again. */
static void forge_note(const slu_backup *b, const char *line)
{
    static char text[20000];
    char name[5000], seal[33];
    snprintf(name, sizeof name, "%s/BACKUP", b->path);
    FILE *f = fopen(name, "r+");
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    char *end = strstr(text, "\nend ");
    ck_assert_ptr_nonnull(end);
    strcpy(end + 1, line);
    slu_digest *d = slu_digest_new();
    slu_digest_add(d, text, strlen(text));
    slu_digest_hex(d, seal);
    slu_digest_free(d);
    rewind(f);
    fprintf(f, "%send %s\n", text, seal);
    ck_assert(!ftruncate(fileno(f), ftell(f)));
    fclose(f);
}

/* The seal is no signature: whoever makes a note can make it fit. Nothing outside the two folders is read or
 * written for what it says. */
START_TEST(forged_notes_reach_nothing_outside)
{
    static const char *const lines[] = {"file ../outside 4 00\n", "file zz/../../outside 4 00\n",
                                        "file .. 0 00\n",         "file /etc/passwd 1 00\n",
                                        "file BACKUP 1 00\n",     "file 0first 1 00\n"};
    begin();
    slu_backup b, x;
    char aside[4096], to[400], name[5000];
    slu_store *s = sample_open();
    put_version(slu_commit_begin(s), 3);
    slu_store_close(s);
    snprintf(to, sizeof to, "%s/deep/to", sample_root);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        s = sample_open();
        ck_assert_msg(!slu_backup_make(s, dir, &b, &err), "%s", err.message);
        slu_store_close(s);
        snprintf(name, sizeof name, "%s/outside", dir);
        FILE *f = fopen(name, "w");
        fputs("mine", f);
        fclose(f);
        ck_assert_msg(!slu_backup_check(b.path, &x, &err), "%s", err.message);
        forge_note(&b, lines[i]);
        ck_assert_int_eq(slu_backup_check(b.path, &x, &err), SLU_ECORRUPT);
        ck_assert_msg(strstr(err.message, "/BACKUP is damaged") != NULL, "%s: %s", lines[i], err.message);
        err = (slu_error)SLU_ERROR_INIT;
        ck_assert_int_eq(slu_backup_restore(b.path, to, false, false, aside, NULL), SLU_ECORRUPT);
        snprintf(name, sizeof name, "%s/deep/outside", sample_root);
        ck_assert_int_ne(access(name, F_OK), 0);
    }
    sample_teardown();
}
END_TEST

static int count_backups(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] == 'v';
    if (d)
        closedir(d);
    return n;
}

START_TEST(keeper_makes_them_when_asked_and_by_the_clock)
{
    begin();
    char path[4096], base[400], elsewhere[400];
    snprintf(base, sizeof base, "%s", dir);
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", sample_root);
    snprintf(dir, sizeof dir, "%.300s/trainer", base);
    ck_assert_int_eq(slu_keeper_ask(sample_path, NULL, path, &err), SLU_ENOTFOUND);
    slu_store *s = sample_open();
    slu_keeper *k;
    put_version(slu_commit_begin(s), 9);
    slu_keeper_config config = {.store = s, .dir = base, .below = "trainer", .keep = 3};
    ck_assert_msg(!slu_keeper_start(&config, &k, &err), "%s", err.message);
    char control[400];
    struct stat st;
    snprintf(control, sizeof control, "%s/control", sample_path);
    ck_assert(!stat(control, &st) && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600);
    for (int i = 0; i < 5; i++)
        ck_assert_msg(!slu_keeper_ask(sample_path, NULL, path, &err), "%s", err.message);
    ck_assert_int_eq(count_backups(), 3);
    ck_assert_uint_eq(version_in(path), 9);
    ck_assert_msg(!slu_keeper_ask(sample_path, elsewhere, path, &err), "%s", err.message);
    ck_assert_int_eq(strncmp(path, elsewhere, strlen(elsewhere)), 0);
    ck_assert_int_eq(slu_keeper_ask(sample_path, "/proc/nothing", path, &err), SLU_EIO);
    ck_assert_ptr_nonnull(strstr(err.message, "/proc/nothing"));
    err = (slu_error)SLU_ERROR_INIT;
    slu_keeper_stop(k);
    ck_assert_int_ne(access(control, F_OK), 0);
    sample_remove(dir);
    config.every_us = SLU_SECOND_US / 20;
    ck_assert_msg(!slu_keeper_start(&config, &k, &err), "%s", err.message);
    for (int i = 0; i < 3000 && count_backups() < 3; i++)
        usleep(10000);
    slu_keeper_stop(k);
    ck_assert_int_eq(count_backups(), 3);
    slu_store_close(s);
    sample_teardown();
}
END_TEST

static char said[8000];

static void note_line(void *ctx, bool bad, const char *line)
{
    (void)ctx, (void)bad;
    if (strlen(said) < sizeof said / 2)
        snprintf(said + strlen(said), sizeof said / 2, "%s\n", line);
}

static int verify_now(slu_store *s)
{
    slu_verify v = {.say = note_line};
    said[0] = 0;
    return slu_verify_store(s, &v, &err);
}

START_TEST(verify_finds_what_contradicts)
{
    begin();
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    uint8_t key[16] = {1}, value[16] = {0}, message[9] = {1};
    slu_buf counts = SLU_BUF_INIT;
    for (int i = 0; i < 3; i++)
        slu_put_varint(&counts, i == 0 ? 30 : 10); /* received 30 = learned 10 + waiting 10 + dead 10 */
    slu_state_put_bytes(c, "counts", counts.data, counts.len);
    slu_buf_clear(&counts);
    slu_put_u64(&counts, 5);
    slu_put_u64(&counts, 10);
    slu_state_put_bytes(c, "joiner", counts.data, counts.len);
    slu_state_put_u64(c, "join.records", 1);
    slu_state_put_u64(c, "join.timers", 1);
    slu_commit_put(c, SLU_FAMILY_JOIN, value, 16, "record", 6);
    slu_commit_put(c, SLU_FAMILY_TIMERS, key, 16, value, 16);
    slu_state_put_u64(c, "~outbox.deltas.next", 4);
    for (message[8] = 2; message[8] < 4; message[8]++)
        slu_commit_put(c, SLU_FAMILY_OUTBOX, message, 9, "m", 1);
    put_version(c, 2);
    ck_assert_msg(verify_now(s) == 0, "%s%s", said, err.message);
    /* The timer of steps that waited for an impression, which came and is settled: told, nothing wrong. */
    slu_commit_delete(c, SLU_FAMILY_JOIN, value, 16);
    slu_commit_put(c, SLU_FAMILY_JOIN, key, 16, "record", 6);
    sample_write(c);
    ck_assert_msg(verify_now(s) == 0, "%s%s", said, err.message);
    ck_assert_msg(strstr(said, "timers: 1 lead to no record") != NULL, "%s", said);
    static const struct {
        const char *wrong;
        int what;
    } cases[] = {{"events: received 31", 0},
                 {"join: 1 entries, 3 counted", 1},
                 {"messages before it are missing", 2},
                 {"rows: key ", 3},
                 {"dense: key ", 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        slu_buf_clear(&counts);
        if (cases[i].what == 0) {
            slu_put_varint(&counts, 31);
            slu_put_varint(&counts, 10);
            slu_put_varint(&counts, 10);
            slu_state_put_bytes(c, "counts", counts.data, counts.len);
        } else if (cases[i].what == 1) {
            slu_state_put_u64(c, "join.records", 3);
        } else if (cases[i].what == 2) {
            message[8] = 7;
            slu_commit_put(c, SLU_FAMILY_OUTBOX, message, 9, "m", 1);
        } else if (cases[i].what == 3) {
            slu_commit_put(c, SLU_FAMILY_ROWS, key, 12, "short", 5);
        } else {
            slu_commit_put(c, SLU_FAMILY_DENSE, "w", 1, "not floats", 10);
        }
        sample_write(c);
        ck_assert_int_ge(verify_now(s), (int)i + 1);
        ck_assert_msg(strstr(said, cases[i].wrong) != NULL, "no '%s' in %s", cases[i].wrong, said);
    }
    slu_buf_free(&counts);
    slu_store_close(s);
    sample_teardown();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {made_while_it_is_written_to,
                                  restored_with_a_new_lineage_and_the_old_kept,
                                  damage_is_found,
                                  forged_notes_reach_nothing_outside,
                                  keeper_makes_them_when_asked_and_by_the_clock,
                                  verify_finds_what_contradicts,
                                  NULL};
    return run_suite("backup", tests);
}
