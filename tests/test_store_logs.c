/* Logs that follow one another are fine, as are a gap and a torn end; a stranger among them is found. */
#include "store/store_logs.h"
#include "tests/store_sample.h"
#include "tests/suite.h"
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static char logs[32][32];
static size_t n_logs;

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Links to what logs there are now: the store deletes its own names in the background, when it has flushed.
 */
static void link_logs(const char *dir)
{
    char from[700], to[700];
    DIR *d = opendir(sample_path);
    for (struct dirent *e; (e = readdir(d));)
        if (strstr(e->d_name, ".log")) {
            snprintf(from, sizeof from, "%.300s/%.40s", sample_path, e->d_name);
            snprintf(to, sizeof to, "%.300s/%.40s", dir, e->d_name);
            ck_assert(!link(from, to) || errno == EEXIST || errno == ENOENT);
        }
    closedir(d);
}

static void list_logs(const char *dir)
{
    DIR *d = opendir(dir);
    n_logs = 0;
    for (struct dirent *e; (e = readdir(d));)
        if (strstr(e->d_name, ".log"))
            snprintf(logs[n_logs++], sizeof logs[0], "%.31s", e->d_name);
    closedir(d);
    qsort(logs, n_logs, sizeof logs[0], by_name);
}

/* Gathers the logs that a store writes, of which there are several, in sample_root/name. */
static void collect_logs(const char *name, uint64_t seed)
{
    char dir[400];
    static uint8_t value[40000];
    snprintf(dir, sizeof dir, "%.300s/%s", sample_root, name);
    ck_assert_int_eq(mkdir(dir, 0755), 0);
    slu_store_config config = sample_config();
    config.write_buffer_bytes = 256 << 10;
    slu_store *s = sample_open_as(config);
    slu_commit *c = slu_commit_begin(s);
    for (uint64_t k = 0; k < 20 + seed; k++) {
        memset(value, (int)k, sizeof value);
        slu_commit_put(c, k % 5 ? SLU_FAMILY_ROWS : SLU_FAMILY_JOIN, &k, sizeof k, value,
                       20000 + 900 * (k % 20));
        sample_write(c);
        link_logs(dir);
    }
    slu_store_close(s);
    sample_remove(sample_path);
    list_logs(dir);
}

static void size_to(const char *dir, const char *log, double share)
{
    char name[700];
    struct stat st;
    snprintf(name, sizeof name, "%s/%s", dir, log);
    ck_assert(!stat(name, &st) && !truncate(name, (off_t)(share * (double)st.st_size)));
}

START_TEST(strangers_are_found)
{
    sample_setup();
    char a[300], b[300], command[1500];
    slu_error err = SLU_ERROR_INIT;
    snprintf(a, sizeof a, "%.250s/a", sample_root);
    snprintf(b, sizeof b, "%.250s/b", sample_root);
    ck_assert_int_eq(store_check_logs(a, &err), 0); /* none at all */
    collect_logs("a", 0);
    ck_assert_uint_ge(n_logs, 3);
    ck_assert_msg(!store_check_logs(a, &err), "%s", err.message);
    snprintf(command, sizeof command, "cp -r %s %s && rm %s/%s", a, b, b, logs[n_logs - 2]);
    ck_assert_int_eq(system(command), 0); /* a gap may be a log that was needed no more */
    ck_assert_msg(!store_check_logs(b, &err), "%s", err.message);
    sample_remove(b);
    size_to(a, logs[n_logs - 1], 0.7); /* what a crash leaves */
    err = (slu_error)SLU_ERROR_INIT;
    ck_assert_msg(!store_check_logs(a, &err), "%s", err.message);
    char last[32];
    snprintf(last, sizeof last, "%s", logs[n_logs - 1]);
    collect_logs("b", 7);
    snprintf(command, sizeof command, "cp %s/%s %s/%s", b, logs[0], a, last);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(store_check_logs(a, &err), SLU_ECORRUPT);
    ck_assert_msg(strstr(err.message, last) && strstr(err.message, a), "%s", err.message);
    sample_teardown();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {strangers_are_found, NULL};
    return run_suite("store_logs", tests);
}
