/* Small values come back with their type, or say why not. */
#include "store/state.h"
#include "tests/store_sample.h"

START_TEST(test_round_trip)
{
    slu_store *s = sample_open();
    slu_error err = SLU_ERROR_INIT;
    uint64_t u = 0;
    int64_t offset = 0;
    slu_buf b = SLU_BUF_INIT;
    float v[4] = {1, -2, 3.5f, 1e-30f}, back[4] = {0};
    ck_assert(!slu_state_get_u64(s, "version", 42, &u, &err) && u == 42);
    ck_assert(!slu_state_get_offset(s, "clicks", 3, &offset, &err) && offset == -1);
    ck_assert_int_eq(slu_state_get_bytes(s, "blob", &b, &err), SLU_ENOTFOUND);
    ck_assert_uint_eq(b.len, 0);
    ck_assert_int_eq(slu_state_get_floats(s, "tower", back, 4, &err), SLU_ENOTFOUND);
    slu_commit *c = slu_commit_begin(s);
    slu_state_put_u64(c, "version", UINT64_MAX - 1);
    slu_state_put_offset(c, "clicks", 3, 1ll << 40);
    slu_state_put_offset(c, "clicks", 31, 7);
    slu_state_put_bytes(c, "blob", "a\0b", 3);
    slu_state_put_floats(c, "tower", v, 4);
    slu_state_put_floats(c, "empty", v, 0);
    sample_write(c);
    slu_store_close(s);
    s = sample_open();
    ck_assert(!slu_state_get_u64(s, "version", 42, &u, &err) && u == UINT64_MAX - 1);
    ck_assert(!slu_state_get_offset(s, "clicks", 3, &offset, &err) && offset == 1ll << 40);
    ck_assert(!slu_state_get_offset(s, "clicks", 31, &offset, &err) && offset == 7);
    ck_assert_int_eq(slu_state_get_bytes(s, "blob", &b, &err), 0);
    ck_assert(b.len == 3 && !memcmp(b.data, "a\0b", 3));
    ck_assert_msg(!slu_state_get_floats(s, "tower", back, 4, &err), "%s", err.message);
    ck_assert_mem_eq(v, back, sizeof v);
    ck_assert_int_eq(slu_state_get_floats(s, "empty", back, 0, &err), 0);
    c = slu_commit_begin(s);
    slu_state_delete(c, "blob");
    sample_write(c);
    ck_assert_int_eq(slu_state_get_bytes(s, "blob", &b, &err), SLU_ENOTFOUND);
    slu_buf_free(&b);
    slu_store_close(s);
}
END_TEST

static int floats_code(slu_store *s, const slu_buf *b)
{
    slu_commit *c = slu_commit_begin(s);
    slu_commit_put(c, SLU_FAMILY_DENSE, "x", 1, b->data, b->len);
    sample_write(c);
    slu_commit_abandon(c);
    float v[3];
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_state_get_floats(s, "x", v, 3, &err);
    ck_assert(!rc || (strstr(err.message, "'x'") && strstr(err.message, sample_path)));
    return rc;
}

START_TEST(test_damage)
{
    slu_store *s = sample_open();
    slu_error err = SLU_ERROR_INIT;
    float v[3] = {1, 2, 3}, four[4];
    slu_commit *c = slu_commit_begin(s);
    slu_state_put_floats(c, "x", v, 3);
    slu_state_put_bytes(c, "number", "abc", 3);
    slu_state_put_offset(c, "clicks", 1, -2);
    sample_write(c);
    slu_commit_abandon(c);
    uint64_t u;
    int64_t offset = 5;
    ck_assert_int_eq(slu_state_get_u64(s, "number", 0, &u, &err), SLU_ECORRUPT);
    slu_error_clear(&err);
    ck_assert_int_eq(slu_state_get_offset(s, "clicks", 1, &offset, &err), SLU_ECORRUPT);
    ck_assert(strstr(err.message, "offset/clicks/1") && offset == 5);
    slu_error_clear(&err);
    ck_assert_int_eq(slu_state_get_floats(s, "x", four, 4, &err), SLU_EFORMAT);
    slu_buf b = SLU_BUF_INIT;
    slu_error_clear(&err);
    ck_assert_int_eq(slu_store_get(s, SLU_FAMILY_DENSE, "x", 1, &b, &err), 0);
    ck_assert_int_eq(floats_code(s, &b), 0);
    for (size_t i = 1; i < b.len; i++) { /* any flipped bit behind the version */
        b.data[i] ^= 0x10;
        ck_assert_int_eq(floats_code(s, &b), SLU_ECORRUPT);
        b.data[i] ^= 0x10;
    }
    b.data[0] = 9;
    ck_assert_int_eq(floats_code(s, &b), SLU_EFORMAT);
    b.data[0] = 1;
    for (b.len--; b.len; b.len--)
        ck_assert_int_eq(floats_code(s, &b), SLU_ECORRUPT);
    slu_buf_free(&b);
    slu_store_close(s);
}
END_TEST

static void digest_after(slu_store *s, slu_commit *c, char out[33])
{
    slu_error err = SLU_ERROR_INIT;
    sample_write(c);
    ck_assert_int_eq(slu_store_digest(s, SLU_MODEL_FAMILIES, out, &err), 0);
}

/* A model is what it is at its offsets: one event more or less is another digest. A mark adds nothing to
 * that, and stores of before there were any must compare. */
START_TEST(test_offsets_are_in_the_digest)
{
    slu_store *s = sample_open();
    char first[33], other[33], again[33], marked[33];
    slu_commit *c = slu_commit_begin(s);
    slu_state_put_offset(c, "clicks", 3, 700);
    digest_after(s, c, first);
    slu_state_put_offset(c, "clicks", 3, 701);
    digest_after(s, c, other);
    ck_assert_str_ne(first, other);
    slu_state_put_offset(c, "clicks", 3, 700);
    digest_after(s, c, again);
    ck_assert_str_eq(first, again);
    slu_state_put_mark(c, "clicks", 3, 99);
    digest_after(s, c, marked);
    ck_assert_str_eq(first, marked);
    slu_commit_abandon(c);
    slu_store_close(s);
}
END_TEST

START_TEST(test_partitions_of_a_topic)
{
    slu_store *s = sample_open();
    slu_error err = SLU_ERROR_INIT;
    int32_t n = -1;
    uint64_t mark = 1;
    ck_assert(!slu_state_partitions(s, "clicks", &n, &err) && n == 0);
    ck_assert(!slu_state_get_mark(s, "clicks", 9, &mark, &err) && mark == 0);
    slu_commit *c = slu_commit_begin(s);
    slu_state_put_offset(c, "clicks", 9, 1);
    slu_state_put_offset(c, "clicks", 10, 1);
    slu_state_put_offset(c, "click", 70, 1);
    slu_state_put_offset(c, "clicks2", 80, 1);
    slu_state_put_offset(c, "clicks/x", 90, 1); /* a file's path */
    slu_state_put_mark(c, "clicks", 9, UINT64_MAX);
    sample_write(c);
    slu_commit_abandon(c);
    ck_assert(!slu_state_get_mark(s, "clicks", 9, &mark, &err) && mark == UINT64_MAX);
    ck_assert(!slu_state_partitions(s, "clicks", &n, &err));
    ck_assert_int_eq(n, 11);
    slu_store_close(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("state");
    TCase *tc = tcase_create("state");
    tcase_add_checked_fixture(tc, sample_setup, sample_teardown);
    tcase_add_test(tc, test_round_trip);
    tcase_add_test(tc, test_damage);
    tcase_add_test(tc, test_offsets_are_in_the_digest);
    tcase_add_test(tc, test_partitions_of_a_topic);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
