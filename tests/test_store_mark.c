/* The note of what a store must hold survives torn slots, tells copies, and keeps a second writer out. */
#include "store/store_mark.h"
#include "tests/store_sample.h"
#include "tests/suite.h"
#include <fcntl.h>
#include <sys/stat.h>

static void write_at(const char *name, off_t at, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", sample_path, name);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    ck_assert_int_eq(pwrite(fd, text, strlen(text), at), (ssize_t)strlen(text));
    close(fd);
}

START_TEST(newest_whole_slot_counts)
{
    sample_setup();
    ck_assert(!mkdir(sample_path, 0755));
    slu_mark_file *f, *g;
    slu_mark m = {.store = 7, .manifest = 5, .manifest_size = 99}, got;
    slu_error err = SLU_ERROR_INIT;
    bool copied;
    ck_assert_int_eq(slu_mark_read(sample_path, &got, &copied, &err), SLU_ENOTFOUND);
    ck_assert_int_eq(slu_mark_open(sample_path, false, &f, &err), SLU_ENOTFOUND);
    ck_assert_int_eq(slu_mark_open(sample_path, true, &f, &err), 0);
    ck_assert_int_eq(slu_mark_read(sample_path, &got, &copied, &err), SLU_ENOTFOUND); /* made, no note yet */
    ck_assert_int_eq(slu_mark_open(sample_path, true, &g, &err), SLU_EAGAIN);
    for (m.commits = 1; m.commits <= 5; m.commits++)
        ck_assert_int_eq(slu_mark_write(f, &m, false, &err), 0);
    ck_assert_int_eq(slu_mark_read(sample_path, &got, &copied, &err), 0);
    ck_assert(got.commits == 5 && got.store == 7 && got.manifest_size == 99 && !got.closed && !copied);
    write_at(SLU_MARK_FILE, 256 + 60, "#"); /* the fifth is in the second slot */
    ck_assert_int_eq(slu_mark_read(sample_path, &got, &copied, &err), 0);
    ck_assert_uint_eq(got.commits, 4);
    write_at(SLU_MARK_FILE, 60, "#");
    ck_assert_int_eq(slu_mark_read(sample_path, &got, &copied, &err), SLU_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(err.message, sample_path));
    slu_mark_close(f);
    ck_assert_int_eq(slu_mark_open(sample_path, true, &g, &err), 0);
    m.closed = true;
    ck_assert_int_eq(slu_mark_write(g, &m, true, &err), 0);
    slu_mark_close(g);
    ck_assert_int_eq(slu_mark_read(sample_path, &got, &copied, &err), 0);
    ck_assert(got.closed && !copied);
    sample_teardown();
}
END_TEST

START_TEST(copies_are_told)
{
    sample_setup();
    char command[1000];
    slu_error err = SLU_ERROR_INIT;
    slu_mark got;
    bool copied;
    slu_store *s = sample_open();
    snprintf(command, sizeof command, "cp -r %s %s.copy", sample_path, sample_path);
    ck_assert_int_eq(system(command), 0);
    slu_store_close(s);
    char copy[400];
    snprintf(copy, sizeof copy, "%s.copy", sample_path);
    ck_assert_int_eq(slu_mark_read(copy, &got, &copied, &err), 0);
    ck_assert(copied && !got.closed);
    slu_store_config config = sample_config();
    config.path = copy;
    ck_assert_int_eq(slu_store_open(&config, &s, &err), SLU_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(err.message, "is a copy of a store that was in use"));
    ck_assert_int_eq(slu_mark_read(sample_path, &got, &copied, NULL), 0);
    ck_assert(!copied && got.closed);
    sample_teardown();
}
END_TEST

START_TEST(manifest_is_found)
{
    sample_setup();
    ck_assert(!mkdir(sample_path, 0755));
    uint64_t number, size;
    slu_mark_manifest(sample_path, &number, &size);
    ck_assert(!number && !size);
    write_at("CURRENT", 0, "MANIFEST-000012\n");
    write_at("MANIFEST-000012", 0, "0123456789");
    slu_mark_manifest(sample_path, &number, &size);
    ck_assert(number == 12 && size == 10);
    sample_teardown();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {newest_whole_slot_counts, copies_are_told, manifest_is_found, NULL};
    return run_suite("store_mark", tests);
}
