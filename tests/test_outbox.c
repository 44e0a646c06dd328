/* A message is sent only after its commit, again after a crash, and never after its acknowledgement was
 * committed. */
#include "store/outbox.h"
#include "tests/store_sample.h"

static char sent[2000];

static void record_sent(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len)
{
    (void)ctx;
    size_t n = strlen(sent);
    snprintf(sent + n, sizeof sent - n, "%d.%llu=%.*s ", (int)ch, (unsigned long long)sequence, (int)len,
             (const char *)message);
}

static slu_outbox *open_outbox(slu_store *s)
{
    slu_error err = SLU_ERROR_INIT;
    slu_outbox *o;
    ck_assert_msg(!slu_outbox_open(s, &o, &err), "%s", err.message);
    return o;
}

static void add(slu_outbox *o, slu_channel ch, const char *text)
{
    slu_outbox_add(o, ch, text, strlen(text));
}

static void flush_and_write(slu_store *s, slu_outbox *o)
{
    slu_commit *c = slu_commit_begin(s);
    ck_assert_int_eq(slu_outbox_flush(o, c), 0);
    sample_write(c);
    slu_commit_abandon(c);
}

static void expect_sent(const char *text)
{
    ck_assert_str_eq(sent, text);
    sent[0] = 0;
}

static void expect_recovered(slu_outbox *o, const char *text)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_outbox_recover(o, record_sent, NULL, &err), "%s", err.message);
    expect_sent(text);
}

START_TEST(test_life_of_a_message)
{
    slu_store *s = sample_open();
    slu_outbox *o = open_outbox(s);
    expect_recovered(o, "");
    ck_assert_uint_eq(slu_outbox_add(o, SLU_CHANNEL_DELTAS, "a", 1), 1);
    ck_assert_uint_eq(slu_outbox_add(o, SLU_CHANNEL_DELTAS, "", 0), 2);
    ck_assert_uint_eq(slu_outbox_add(o, SLU_CHANNEL_DEAD_LETTERS, "z", 1), 1);
    ck_assert_uint_eq(slu_outbox_waiting(o, SLU_CHANNEL_DELTAS), 2);
    flush_and_write(s, o);
    add(o, SLU_CHANNEL_DELTAS, "later"); /* not of this commit */
    expect_sent("");
    slu_outbox_committed(o, record_sent, NULL);
    expect_sent("1.1=a 1.2= 2.1=z ");
    slu_outbox_ack(o, SLU_CHANNEL_DELTAS, 1);
    slu_outbox_ack(o, SLU_CHANNEL_DELTAS, 1);
    ck_assert_uint_eq(slu_outbox_waiting(o, SLU_CHANNEL_DELTAS), 2);
    slu_outbox_close(o); /* "later" and the acknowledgement were not committed */
    o = open_outbox(s);
    ck_assert_uint_eq(slu_outbox_waiting(o, SLU_CHANNEL_DELTAS), 2);
    expect_recovered(o, "1.1=a 1.2= 2.1=z ");
    slu_outbox_ack(o, SLU_CHANNEL_DELTAS, 2);
    add(o, SLU_CHANNEL_DELTAS, "b");
    flush_and_write(s, o);
    slu_outbox_committed(o, record_sent, NULL);
    expect_sent("1.3=b ");
    slu_outbox_close(o);
    o = open_outbox(s);
    expect_recovered(o, "1.3=b 2.1=z ");
    slu_outbox_ack(o, SLU_CHANNEL_DELTAS, 3);
    slu_outbox_ack(o, SLU_CHANNEL_DEAD_LETTERS, 1);
    flush_and_write(s, o);
    slu_outbox_committed(o, record_sent, NULL);
    slu_outbox_close(o);
    slu_store_close(s);
    s = sample_open(); /* empty, and sequences go on */
    o = open_outbox(s);
    expect_recovered(o, "");
    ck_assert_uint_eq(slu_outbox_waiting(o, SLU_CHANNEL_DELTAS), 0);
    ck_assert_uint_eq(slu_outbox_add(o, SLU_CHANNEL_DELTAS, "c", 1), 4);
    ck_assert_uint_eq(slu_outbox_add(o, SLU_CHANNEL_DEAD_LETTERS, "y", 1), 2);
    slu_outbox_close(o);
    slu_store_close(s);
}
END_TEST

START_TEST(test_flush_in_vain)
{
    slu_store *s = sample_open();
    slu_outbox *o = open_outbox(s);
    add(o, SLU_CHANNEL_DELTAS, "a");
    slu_commit *c = slu_commit_begin(s);
    slu_outbox_flush(o, c);
    slu_commit_abandon(c);
    add(o, SLU_CHANNEL_DELTAS, "b");
    flush_and_write(s, o);
    slu_outbox_committed(o, record_sent, NULL);
    expect_sent("1.1=a 1.2=b ");
    slu_outbox_committed(o, record_sent, NULL); /* nothing twice */
    expect_sent("");
    slu_outbox_close(o);
    o = open_outbox(s);
    expect_recovered(o, "1.1=a 1.2=b ");
    slu_outbox_close(o);
    slu_store_close(s);
}
END_TEST

/* Commits that fail, acknowledgements that lag, restarts: every message is sent at least once and in order.
 */
START_TEST(test_random)
{
    slu_rng rng;
    slu_rng_seed(&rng, sample_seed(31));
    slu_store *s = sample_open();
    slu_outbox *o = open_outbox(s);
    uint64_t next = 1, next_committed = 1, acked = 0, acked_committed = 0;
    for (int i = 0; i < 3000; i++) {
        switch (slu_rng_below(&rng, 8)) {
        case 0:
        case 1:
        case 2:
            ck_assert_uint_eq(slu_outbox_add(o, SLU_CHANNEL_DELTAS, &next, sizeof next), next);
            next++;
            break;
        case 3:
            if (next_committed - 1 > acked) {
                acked += 1 + slu_rng_below(&rng, next_committed - 1 - acked);
                slu_outbox_ack(o, SLU_CHANNEL_DELTAS, acked);
            }
            break;
        case 4:
        case 5:
            flush_and_write(s, o);
            slu_outbox_committed(o, NULL, NULL);
            next_committed = next;
            acked_committed = acked;
            break;
        case 6:;
            slu_commit *c = slu_commit_begin(s);
            slu_outbox_flush(o, c);
            slu_commit_abandon(c);
            break;
        case 7:
            if (slu_rng_below(&rng, 10))
                break;
            slu_outbox_close(o);
            o = open_outbox(s);
            next = next_committed;
            acked = acked_committed;
            sent[0] = 0;
            slu_error err = SLU_ERROR_INIT;
            ck_assert_msg(!slu_outbox_recover(o, record_sent, NULL, &err), "%s", err.message);
            char first[40];
            snprintf(first, sizeof first, "1.%llu=", (unsigned long long)acked + 1);
            ck_assert_msg(next == acked + 1 ? !*sent : !strncmp(sent, first, strlen(first)), "%.40s", sent);
            break;
        }
        ck_assert_uint_eq(slu_outbox_waiting(o, SLU_CHANNEL_DELTAS), next - 1 - acked);
    }
    slu_outbox_close(o);
    slu_store_close(s);
}
END_TEST

START_TEST(test_lost_message_is_noticed)
{
    slu_store *s = sample_open();
    slu_outbox *o = open_outbox(s);
    for (int i = 0; i < 3; i++)
        add(o, SLU_CHANNEL_DELTAS, "x");
    flush_and_write(s, o);
    slu_outbox_close(o);
    slu_commit *c = slu_commit_begin(s);
    uint8_t key[9] = {SLU_CHANNEL_DELTAS, 0, 0, 0, 0, 0, 0, 0, 2};
    slu_commit_delete(c, SLU_FAMILY_OUTBOX, key, sizeof key);
    sample_write(c);
    slu_error err = SLU_ERROR_INIT;
    o = open_outbox(s);
    ck_assert_int_eq(slu_outbox_recover(o, record_sent, NULL, &err), SLU_ECORRUPT);
    slu_outbox_close(o);
    slu_error_clear(&err);
    key[8] = 9; /* beyond the counter, and now the first */
    slu_commit_put(c, SLU_FAMILY_OUTBOX, key, sizeof key, "y", 1);
    for (key[8] = 1; key[8] < 4; key[8]++)
        slu_commit_delete(c, SLU_FAMILY_OUTBOX, key, sizeof key);
    sample_write(c);
    ck_assert_int_eq(slu_outbox_open(s, &o, &err), SLU_ECORRUPT);
    ck_assert_ptr_null(o);
    slu_store_close(s);
}
END_TEST

static bool room_for(void *ctx, slu_channel ch, size_t len)
{
    size_t *room = ctx;
    (void)ch;
    if (len > *room)
        return false;
    *room -= len;
    return true;
}

/* A gate that lets some bytes through at a time: order and completeness stay, memory is the gate's. */
START_TEST(test_gate)
{
    size_t room = 2;
    slu_error err = SLU_ERROR_INIT;
    slu_store *s = sample_open();
    slu_outbox *o = open_outbox(s);
    slu_outbox_gate(o, room_for, &room);
    expect_recovered(o, "");
    add(o, SLU_CHANNEL_DELTAS, "a");
    add(o, SLU_CHANNEL_DELTAS, "bb");
    add(o, SLU_CHANNEL_DELTAS, "c"); /* there would be room, but it is not its turn */
    add(o, SLU_CHANNEL_DEAD_LETTERS, "z");
    ck_assert_uint_eq(slu_outbox_bytes(o), 5);
    flush_and_write(s, o);
    slu_outbox_committed(o, record_sent, NULL);
    expect_sent("1.1=a 2.1=z ");
    ck_assert_int_eq(slu_outbox_pump(o, record_sent, NULL, &err), 0);
    expect_sent("");
    slu_outbox_ack(o, SLU_CHANNEL_DELTAS, 1);
    ck_assert_uint_eq(slu_outbox_bytes(o), 4);
    add(o, SLU_CHANNEL_DELTAS, "d");
    flush_and_write(s, o);
    room = 3;
    slu_outbox_committed(o, record_sent, NULL);
    expect_sent(""); /* d comes after bb and c, which are in the store */
    room += 2;       /* the pump asks with a byte before it reads */
    ck_assert_int_eq(slu_outbox_pump(o, record_sent, NULL, &err), 0);
    expect_sent("1.2=bb 1.3=c 1.4=d ");
    slu_outbox_ack(o, SLU_CHANNEL_DELTAS, 4);
    slu_outbox_ack(o, SLU_CHANNEL_DEAD_LETTERS, 1);
    ck_assert_uint_eq(slu_outbox_bytes(o), 0);
    slu_outbox_close(o);

    /* None of it was acknowledged in a commit: a start with no room waits for nothing and still has it all.
     */
    room = 0;
    o = open_outbox(s);
    slu_outbox_gate(o, room_for, &room);
    expect_recovered(o, "");
    ck_assert_uint_eq(slu_outbox_bytes(o), 5); /* the first one's deletion was committed with d */
    room = 100;
    ck_assert_int_eq(slu_outbox_pump(o, record_sent, NULL, &err), 0);
    expect_sent("1.2=bb 1.3=c 1.4=d 2.1=z ");
    slu_outbox_close(o);
    slu_store_close(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("outbox");
    TCase *tc = tcase_create("outbox");
    tcase_add_checked_fixture(tc, sample_setup, sample_teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_life_of_a_message);
    tcase_add_test(tc, test_flush_in_vain);
    tcase_add_test(tc, test_random);
    tcase_add_test(tc, test_gate);
    tcase_add_test(tc, test_lost_message_is_noticed);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
