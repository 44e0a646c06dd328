/* Requests that end where memory ends: behind each message is a page that nobody may read, so that a byte too
 * far is fatal in every build, not only under a sanitizer. */
#include "base/bytes.h"
#include "serving/score_request.h"
#include "tests/suite.h"
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, ROOM = 4 * PAGE, LONGEST = 130, TEXTS_MOST = 8 };
enum { CANDIDATES = 1 << 3, SHARED = 2 << 3 | 2, COLUMN = 3 << 3 | 2, TASK = 4 << 3 | 2 }; /* tags */
enum { NAME = 1 << 3 | 2, TEXT = 2 << 3 | 2, INTEGER = 3 << 3, NUMBER = 4 << 3 | 1 };

static uint8_t *end; /* of what may be read */
static slu_arena *arena;
static score_request request;

static void set_up_memory(void)
{
    uint8_t *p = mmap(NULL, ROOM + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(p != MAP_FAILED);
    ck_assert_int_eq(mprotect(p + ROOM, PAGE, PROT_NONE), 0);
    end = p + ROOM;
    arena = slu_arena_new(64 << 10, 16 << 20);
    ck_assert_ptr_nonnull(arena);
}

/* Decodes |n| bytes that lie right before the page. */
static int decode(const void *bytes, size_t n)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_uint_le(n, ROOM);
    memcpy(end - n, bytes, n);
    slu_arena_reset(arena);
    return score_request_decode(end - n, n, arena, &request, &err);
}

static uint8_t nth_byte(uint32_t text, uint32_t i)
{
    return (uint8_t)(text * 37 + i * 11 + 1);
}

static void put_text(slu_buf *b, uint32_t text, uint32_t length)
{
    slu_put_u8(b, TEXT);
    slu_put_varint(b, length);
    for (uint32_t i = 0; i < length; i++)
        slu_put_u8(b, nth_byte(text, i));
}

/* The texts of |f| are those of these lengths, to the last byte. */
static void expect_texts(const score_feature *f, const uint32_t *lengths, uint32_t n)
{
    if (f->n != n)
        ck_abort_msg("%u texts instead of %u", f->n, n);
    for (uint32_t k = 0; k < n; k++) {
        const slu_value *v = &f->v[k];
        if (v->kind != SLU_VALUE_TEXT || v->v.text.n != lengths[k])
            ck_abort_msg("text %u has %zu bytes instead of %u", k, v->v.text.n, lengths[k]);
        for (uint32_t i = 0; i < lengths[k]; i++)
            if ((uint8_t)v->v.text.p[i] != nth_byte(k, i))
                ck_abort_msg("byte %u of text %u of %u is wrong", i, k, lengths[k]);
    }
}

/* A message of one feature that holds the first |n| bytes of |feature|. */
static int decode_feature(int tag, const slu_buf *feature, size_t n)
{
    slu_buf b = {0};
    slu_put_u8(&b, (uint8_t)tag);
    slu_put_varint(&b, n);
    slu_put_bytes(&b, feature->data, n);
    int rc = decode(b.data, b.len);
    slu_buf_free(&b);
    return rc;
}

/* Each length at the very end, with others before it. */
START_TEST(test_a_text_ends_where_memory_ends)
{
    set_up_memory();
    for (uint32_t length = 0; length <= LONGEST; length++)
        for (uint32_t n = 1; n <= 4; n++) {
            const uint32_t before[] = {3, 0, 127};
            uint32_t lengths[4];
            slu_buf f = {0};
            for (uint32_t k = 0; k < n; k++) {
                lengths[k] = k + 1 < n ? before[k] : length;
                put_text(&f, k, lengths[k]);
            }
            ck_assert_int_eq(decode_feature(COLUMN, &f, f.len), 0);
            ck_assert_uint_eq(request.n_columns, 1);
            expect_texts(&request.columns[0], lengths, n);
            ck_assert_int_eq(decode_feature(SHARED, &f, f.len), 0);
            ck_assert_uint_eq(request.n_shared, 1);
            expect_texts(&request.shared[0], lengths, n);
            slu_buf_free(&f);
        }
}
END_TEST

/* Texts of these lengths, cut after every byte: what is whole is read, a rest is malformed. */
static void cut_everywhere(const uint32_t *lengths, uint32_t n)
{
    slu_buf f = {0};
    size_t ends[TEXTS_MOST + 1] = {0};
    for (uint32_t k = 0; k < n; k++) {
        put_text(&f, k, lengths[k]);
        ends[k + 1] = f.len;
    }
    for (size_t cut = 0, whole = 0; cut <= f.len; cut++) {
        while (whole < n && ends[whole + 1] <= cut)
            whole++;
        const int rc = decode_feature(COLUMN, &f, cut), want = ends[whole] == cut ? 0 : SLU_EINVAL;
        if (rc != want)
            ck_abort_msg("cut after %zu of %zu bytes: %d instead of %d", cut, f.len, rc, want);
        if (!rc)
            expect_texts(&request.columns[0], lengths, (uint32_t)whole);
    }
    slu_buf_free(&f);
}

START_TEST(test_texts_are_cut)
{
    set_up_memory();
    cut_everywhere((const uint32_t[]){0, 1, 2, 3, 18, 0, 0, 5}, 8); /* 18: as long as the tag is high */
    cut_everywhere((const uint32_t[]){125, 126, 127, 128, 129, 130}, 6);
    cut_everywhere((const uint32_t[]){130, 0, 128, 1, 127, 18}, 6);
    for (uint32_t length = 0; length <= LONGEST; length++)
        cut_everywhere(&length, 1);
}
END_TEST

/* A text that says that it is a byte longer than what is there, or all the way to what a length can say. */
START_TEST(test_lengths_lie)
{
    static const uint32_t more[] = {1, 2, 100, 127, 128, 1u << 20, UINT32_MAX - 200};
    set_up_memory();
    for (uint32_t length = 0; length <= LONGEST; length++)
        for (int m = 0; m < 7; m++) {
            slu_buf f = {0};
            put_text(&f, 0, 2);
            slu_put_u8(&f, TEXT);
            slu_put_varint(&f, length + more[m]);
            for (uint32_t i = 0; i < length; i++)
                slu_put_u8(&f, TEXT); /* looks like the next one */
            if (decode_feature(COLUMN, &f, f.len) != SLU_EINVAL)
                ck_abort_msg("%u bytes that say %u are taken", length, length + more[m]);
            slu_buf_free(&f);
        }
}
END_TEST

static void put_feature(slu_buf *b, int tag, const slu_buf *f)
{
    slu_put_u8(b, (uint8_t)tag);
    slu_put_varint(b, f->len);
    slu_put_bytes(b, f->data, f->len);
}

/* A whole request with everything in it, cut after every byte: fine between two of its fields. */
START_TEST(test_requests_are_cut)
{
    slu_buf b = {0}, f = {0};
    size_t ends[8] = {0};
    int n = 0, whole = 0;
    set_up_memory();
    slu_put_u8(&b, CANDIDATES);
    slu_put_varint(&b, 300);
    ends[++n] = b.len;
    slu_put_u8(&f, NAME);
    slu_put_varint(&f, 4);
    slu_put_bytes(&f, "item", 4);
    put_text(&f, 0, 7);
    put_text(&f, 1, 0);
    put_feature(&b, COLUMN, &f);
    ends[++n] = b.len;
    slu_buf_clear(&f);
    put_text(&f, 0, 129);
    slu_put_u8(&f, INTEGER);
    slu_put_varint(&f, 77);
    slu_put_u8(&f, NUMBER);
    slu_put_bytes(&f, "\0\0\0\0\0\0\xf0\x3f", 8);
    put_text(&f, 1, 5);
    put_feature(&b, SHARED, &f);
    ends[++n] = b.len;
    slu_put_u8(&b, TASK);
    slu_put_varint(&b, 3);
    slu_put_bytes(&b, "ctr", 3);
    ends[++n] = b.len;
    for (size_t cut = 0; cut <= b.len; cut++) {
        whole += whole < n && ends[whole + 1] == cut;
        ck_assert_int_eq(decode(b.data, cut), ends[whole] == cut ? 0 : SLU_EINVAL);
    }
    ck_assert_uint_eq(request.candidates, 300);
    ck_assert_uint_eq(request.n_columns, 1);
    ck_assert_uint_eq(request.n_shared, 1);
    ck_assert_uint_eq(request.n_tasks, 1);
    ck_assert(!memcmp(request.columns[0].name.p, "item", 4) && request.columns[0].name.n == 4);
    expect_texts(&request.columns[0], (const uint32_t[]){7, 0}, 2);
    const score_feature *mixed = &request.shared[0]; /* text, then integers, then numbers */
    ck_assert_uint_eq(mixed->n, 4);
    ck_assert_uint_eq(mixed->v[0].v.text.n, 129);
    ck_assert_uint_eq(mixed->v[1].v.text.n, 5);
    ck_assert_int_eq(mixed->v[2].v.integer, -39);
    ck_assert(mixed->v[3].v.number == 1);
    ck_assert(!memcmp(request.tasks[0].p, "ctr", 3));
    slu_buf_free(&b);
    slu_buf_free(&f);
}
END_TEST

int main(void)
{
    return run_suite("score_request",
                     (const TTest *[]){test_a_text_ends_where_memory_ends, test_texts_are_cut,
                                       test_lengths_lie, test_requests_are_cut, NULL});
}
