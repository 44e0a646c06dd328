/* Length-prefixed messages: whole and in order over any cut, refused at their first wrong byte, and nothing
 * kept for a length that is only announced. */
#include "base/rng.h"
#include "serving/grpc_frame.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

#define SEED 4711u

/* Messages of many sizes, cut at random places, come out whole and in order. */
START_TEST(test_any_cut)
{
    printf("seed %u\n", SEED);
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    slu_buf wire = SLU_BUF_INIT;
    for (uint32_t len = 0; len < 200; len++) {
        slu_grpc_frame_prefix(&wire, len);
        memset(slu_buf_reserve(&wire, len + 1), (int)len, len + 1);
        wire.len += len;
    }
    for (int round = 0; round < 50; round++) {
        slu_grpc_frame f = {0};
        uint32_t got = 0;
        size_t most = 1 + slu_rng_below(&rng, round < 10 ? 4 : 700);
        for (size_t at = 0; at < wire.len;) {
            size_t piece = 1 + slu_rng_below(&rng, most), taken, used = 0;
            if (piece > wire.len - at)
                piece = wire.len - at;
            while (used < piece) {
                slu_grpc_frame_state state =
                    slu_grpc_frame_read(&f, wire.data + at + used, piece - used, 199, &taken);
                used += taken;
                if (state == SLU_FRAME_WHOLE) {
                    bool whole = f.message.len == got;
                    for (size_t i = 0; i < got; i++)
                        whole &= f.message.data[i] == got;
                    if (!whole) /* an assertion costs a system call: not per message */
                        ck_abort_msg("round %d: message %u is another one", round, got);
                    got++;
                    slu_grpc_frame_next(&f);
                } else if (state != SLU_FRAME_MORE || used != piece) {
                    ck_abort_msg("round %d: state %d with %zu of %zu bytes taken", round, (int)state, used,
                                 piece);
                }
            }
            at += piece;
        }
        ck_assert_uint_eq(got, 200);
        ck_assert(slu_grpc_frame_empty(&f));
        slu_buf_free(&f.message);
    }
    slu_buf_free(&wire);
}
END_TEST

START_TEST(test_prefix_bytes)
{
    slu_buf out = SLU_BUF_INIT;
    slu_grpc_frame_prefix(&out, 0x01020304);
    slu_grpc_frame_prefix(&out, UINT32_MAX);
    ck_assert_uint_eq(out.len, 2 * SLU_GRPC_PREFIX);
    ck_assert_mem_eq(out.data, "\0\1\2\3\4\0\xff\xff\xff\xff", out.len);
    slu_buf_free(&out);
}
END_TEST

/* One byte of flags decides, before any length is there. */
START_TEST(test_every_flag)
{
    for (int flag = 0; flag < 256; flag++) {
        const uint8_t wire[] = {(uint8_t)flag, 0, 0, 0, 1, 7};
        const slu_grpc_frame_state want = flag == 0   ? SLU_FRAME_WHOLE
                                          : flag == 1 ? SLU_FRAME_COMPRESSED
                                                      : SLU_FRAME_BAD_FLAG;
        size_t taken;
        slu_grpc_frame f = {0};
        ck_assert_int_eq(slu_grpc_frame_read(&f, wire, sizeof wire, 1000, &taken), want);
        ck_assert(flag == 0 || !f.message.data);
        slu_buf_free(&f.message);
        f = (slu_grpc_frame){0};
        ck_assert_int_eq(slu_grpc_frame_read(&f, wire, 1, 1000, &taken), flag ? want : SLU_FRAME_MORE);
        ck_assert_uint_eq(taken, 1);
        ck_assert(!slu_grpc_frame_empty(&f)); /* the stream may not end here */
    }
}
END_TEST

/* Both sides of the limit, with the prefix whole and byte by byte. */
START_TEST(test_limit)
{
    static const uint32_t limits[] = {0, 1, 255, 256, 65535, 65536, 0x01000000, UINT32_MAX - 1};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        for (size_t piece = 1; piece <= SLU_GRPC_PREFIX; piece += SLU_GRPC_PREFIX - 1)
            for (uint32_t over = 0; over < 2; over++) {
                slu_buf wire = SLU_BUF_INIT;
                slu_grpc_frame f = {0};
                slu_grpc_frame_state state = SLU_FRAME_MORE;
                size_t taken;
                slu_grpc_frame_prefix(&wire, limits[i] + over);
                for (size_t at = 0; at < wire.len; at += piece) {
                    ck_assert_int_eq(state, SLU_FRAME_MORE);
                    state = slu_grpc_frame_read(&f, wire.data + at, piece, limits[i], &taken);
                    ck_assert_uint_eq(taken, piece);
                }
                ck_assert_int_eq(state, over         ? SLU_FRAME_TOO_LARGE
                                        : !limits[i] ? SLU_FRAME_WHOLE
                                                     : SLU_FRAME_MORE);
                ck_assert_uint_eq(f.want, limits[i] + over);
                ck_assert_ptr_null(f.message.data); /* it is only announced */
                slu_buf_free(&wire);
            }
}
END_TEST

/* Of four gigabytes that were announced there is what came, and little more. */
START_TEST(test_memory_is_for_what_came)
{
    static const uint8_t piece[1000];
    slu_buf prefix = SLU_BUF_INIT;
    slu_grpc_frame f = {0};
    size_t taken;
    slu_grpc_frame_prefix(&prefix, UINT32_MAX);
    slu_grpc_frame_read(&f, prefix.data, prefix.len, UINT32_MAX, &taken);
    for (size_t come = sizeof piece; come <= 100 * sizeof piece; come += sizeof piece) {
        ck_assert_int_eq(slu_grpc_frame_read(&f, piece, sizeof piece, UINT32_MAX, &taken), SLU_FRAME_MORE);
        ck_assert_uint_eq(f.message.len, come);
        ck_assert_uint_le(f.message.cap, 2 * come + 4096);
    }
    slu_buf_free(&prefix);
    slu_buf_free(&f.message);
}
END_TEST

/* What follows a message stays for the next one, which uses the same buffer. */
START_TEST(test_stops_between_messages)
{
    static const uint8_t wire[] = "\0\0\0\0\3abc\0\0\0\0\2de\0\0\0\0\0";
    const size_t n = sizeof wire - 1;
    slu_grpc_frame f = {0};
    size_t taken;
    ck_assert_int_eq(slu_grpc_frame_read(&f, wire, 0, 3, &taken), SLU_FRAME_MORE);
    ck_assert_uint_eq(taken, 0);
    ck_assert(slu_grpc_frame_empty(&f));
    ck_assert_int_eq(slu_grpc_frame_read(&f, wire, n, 3, &taken), SLU_FRAME_WHOLE);
    ck_assert_uint_eq(taken, 8);
    ck_assert_mem_eq(f.message.data, "abc", 3);
    const uint8_t *buffer = f.message.data;
    slu_grpc_frame_next(&f);
    ck_assert(slu_grpc_frame_empty(&f));
    ck_assert_ptr_eq(f.message.data, buffer);
    ck_assert_int_eq(slu_grpc_frame_read(&f, wire + 8, n - 8, 3, &taken), SLU_FRAME_WHOLE);
    ck_assert_uint_eq(taken, 7);
    ck_assert_uint_eq(f.message.len, 2);
    ck_assert_mem_eq(f.message.data, "de", 2);
    ck_assert_ptr_eq(f.message.data, buffer);
    slu_grpc_frame_next(&f);
    ck_assert_int_eq(slu_grpc_frame_read(&f, wire + 15, n - 15, 3, &taken), SLU_FRAME_WHOLE);
    ck_assert_uint_eq(taken, SLU_GRPC_PREFIX);
    ck_assert_uint_eq(f.message.len, 0); /* an empty message is one */
    slu_buf_free(&f.message);
}
END_TEST

int main(void)
{
    return run_suite("grpc_frame",
                     (const TTest *[]){test_any_cut, test_prefix_bytes, test_every_flag, test_limit,
                                       test_memory_is_for_what_came, test_stops_between_messages, NULL});
}
