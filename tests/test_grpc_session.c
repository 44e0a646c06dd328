/* A whole gRPC server session in memory, with an nghttp2 client at the other end. */
#include "tests/grpc_peer.h"

static peer *p;
static slu_grpc_limits limits;

static void setup(void)
{
    limits = peer_limits();
    p = peer_new(&limits, NULL);
}

static void ends(const peer_call *c, int status, const char *part)
{
    ck_assert_int_eq(c->status, status);
    ck_assert(c->closed);
    ck_assert_msg(strstr(c->message, part) != NULL, "message '%s' lacks '%s'", c->message, part);
}

START_TEST(test_ok)
{
    setup();
    peer_call *c = peer_send(p, peer_message(p, 3000, 'x'), "/t.S/Echo");
    peer_call *empty = peer_send(p, peer_message(p, 0, 0), "/t.S/Echo");
    peer_settle(p);
    ends(c, 0, "");
    ends(empty, 0, "");
    ck_assert_int_eq(c->http, 200);
    ck_assert_uint_eq(c->answer.len, 3005);
    ck_assert(!memcmp(c->answer.data, c->body.data, 3005));
    ck_assert_uint_eq(empty->answer.len, 5);
    ck_assert_uint_eq(slu_grpc_session_calls(p->server), 0);
    peer_free(p);
}
END_TEST

START_TEST(test_one_byte_at_a_time)
{
    setup();
    p->piece = 1;
    peer_call *c = peer_send(p, peer_message(p, 300, 'x'), "/t.S/Echo");
    peer_call *f = peer_send(p, peer_message(p, 1, 'x'), "/t.S/Fail");
    peer_settle(p);
    ends(c, 0, "");
    ck_assert_uint_eq(c->answer.len, 305);
    ends(f, SLU_GRPC_FAILED_PRECONDITION, "100% \xc3\xa4\n");
    peer_free(p);
}
END_TEST

START_TEST(test_refused_by_headers)
{
    setup();
    peer_call *unknown = peer_send(p, peer_message(p, 10, 1), "/t.S/Other");
    peer_call *type =
        peer_begin(p, peer_message(p, 10, 1), "POST", "/t.S/Echo", "application/json", NULL, NULL);
    peer_call *web =
        peer_begin(p, peer_message(p, 10, 1), "POST", "/t.S/Echo", "application/grpc-web", NULL, NULL);
    peer_call *json =
        peer_begin(p, peer_message(p, 10, 1), "POST", "/t.S/Echo", "application/grpc+json", NULL, NULL);
    peer_call *proto =
        peer_begin(p, peer_message(p, 10, 1), "POST", "/t.S/Echo", "application/grpc+proto;v=1", NULL, NULL);
    peer_call *get = peer_begin(p, peer_next(p), "GET", "/", "text/html", NULL, NULL);
    peer_call *bad =
        peer_begin(p, peer_message(p, 10, 1), "POST", "/t.S/Echo", "application/grpc", "grpc-timeout", "5");
    peer_settle(p);
    ends(unknown, SLU_GRPC_UNIMPLEMENTED, "/t.S/Other");
    ck_assert_int_eq(unknown->http, 200);
    ends(type, SLU_GRPC_INVALID_ARGUMENT, "content-type");
    ck_assert_int_eq(type->http, 415);
    ck_assert_int_eq(web->http, 415);
    ends(json, SLU_GRPC_UNIMPLEMENTED, "protobuf");
    ends(proto, 0, "");
    ck_assert_int_eq(get->http, 405);
    ends(bad, SLU_GRPC_INVALID_ARGUMENT, "grpc-timeout");
    ck_assert_int_eq(p->handled, 1);
    peer_free(p);
}
END_TEST

START_TEST(test_large_headers)
{
    setup();
    char value[20000];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = 0;
    peer_call *c =
        peer_begin(p, peer_message(p, 1, 1), "POST", "/t.S/Echo", "application/grpc", "x-long", value);
    peer_settle(p);
    ends(c, SLU_GRPC_RESOURCE_EXHAUSTED, "headers");
    ck_assert_int_eq(p->handled, 0);
    peer_free(p);
}
END_TEST

/* Refused at the prefix: the peer is told to stop although it means to send 4 MiB more. */
START_TEST(test_oversize)
{
    setup();
    peer_call *c = peer_send(p, peer_message(p, 4 << 20, 1), "/t.S/Echo");
    peer_settle(p);
    ends(c, SLU_GRPC_RESOURCE_EXHAUSTED, "serving.max_request");
    ck_assert_uint_eq(c->error, NGHTTP2_NO_ERROR);
    ck_assert_uint_lt(c->sent, 1 << 20);
    peer_call *next = peer_send(p, peer_message(p, 4096, 1), "/t.S/Echo");
    peer_settle(p);
    ends(next, 0, "");
    peer_free(p);
}
END_TEST

START_TEST(test_wrong_bodies)
{
    setup();
    peer_call *none = peer_send(p, peer_next(p), "/t.S/Echo");
    peer_call *cut = peer_message(p, 100, 1);
    cut->body.len = 50;
    peer_send(p, cut, "/t.S/Echo");
    peer_call *two = peer_message(p, 10, 1);
    slu_put_bytes(&two->body, "\0\0\0\0\0", 5);
    peer_send(p, two, "/t.S/Echo");
    peer_call *packed = peer_message(p, 10, 1), *unsaid = peer_message(p, 10, 1);
    packed->body.data[0] = unsaid->body.data[0] = 1;
    peer_begin(p, packed, "POST", "/t.S/Echo", "application/grpc", "grpc-encoding", "gzip");
    peer_send(p, unsaid, "/t.S/Echo");
    peer_call *flag = peer_message(p, 10, 1);
    flag->body.data[0] = 9;
    peer_send(p, flag, "/t.S/Echo");
    peer_settle(p);
    ends(none, SLU_GRPC_INTERNAL, "without a request");
    ends(cut, SLU_GRPC_INTERNAL, "45 of 100");
    ends(two, SLU_GRPC_INTERNAL, "more than one");
    ends(packed, SLU_GRPC_UNIMPLEMENTED, "identity");
    ck_assert_str_eq(packed->accept, "identity");
    ends(unsaid, SLU_GRPC_INTERNAL, "grpc-encoding");
    ends(flag, SLU_GRPC_INTERNAL, "0x09");
    ck_assert_int_eq(p->handled, 0);
    peer_free(p);
}
END_TEST

START_TEST(test_deadlines)
{
    setup();
    peer_call *queued =
        peer_begin(p, peer_message(p, 9, 1), "POST", "/t.S/Echo", "application/grpc", "grpc-timeout", "5m");
    peer_call *open = peer_next(p);
    slu_grpc_frame_prefix(&open->body, 10);
    open->keep_open = true;
    peer_begin(p, open, "POST", "/t.S/Echo", "application/grpc", "grpc-timeout", "5m");
    peer_call *past =
        peer_begin(p, peer_message(p, 9, 1), "POST", "/t.S/Echo", "application/grpc", "grpc-timeout", "0u");
    peer_up(p);
    p->now += 6000;
    const char *why = "";
    ck_assert_int_eq(slu_grpc_session_tick(p->server, p->now, &why), 0);
    peer_settle(p);
    ends(queued, SLU_GRPC_DEADLINE_EXCEEDED, "6000 us");
    ends(open, SLU_GRPC_DEADLINE_EXCEEDED, "deadline");
    ends(past, SLU_GRPC_DEADLINE_EXCEEDED, "before");
    ck_assert_int_eq(p->handled, 0);
    peer_free(p);
}
END_TEST

START_TEST(test_queue_limit_spares_health)
{
    setup();
    peer_call *c[6];
    peer_settle(p); /* settings are exchanged */
    for (int i = 0; i < 6; i++)
        c[i] = peer_send(p, peer_message(p, 1, 1), "/t.S/Echo");
    peer_call *health = peer_send(p, peer_message(p, 0, 0), "/grpc.health.v1.Health/Check");
    peer_up(p);
    ck_assert_uint_eq(slu_grpc_core_waiting(p->core), 4);
    peer_down(p);
    ends(c[4], SLU_GRPC_RESOURCE_EXHAUSTED, "serving.max_queue");
    ends(c[5], SLU_GRPC_RESOURCE_EXHAUSTED, "serving.max_queue");
    ends(health, 0, "");
    peer_settle(p);
    for (int i = 0; i < 4; i++)
        ends(c[i], 0, "");
    peer_free(p);
}
END_TEST

/* What would wait too long is refused when it comes, what has waited too long when its turn comes; neither is
 * handled. Health never waits. */
START_TEST(test_wait_limit)
{
    limits = peer_limits();
    limits.max_wait_us = 20000;
    limits.max_queue = 100;
    p = peer_new(&limits, NULL);
    peer_call *c[5];
    peer_settle(p);
    p->cost_us = 8000;
    ck_assert_int_eq(peer_send(p, peer_message(p, 9, 1), "/t.S/Echo")->status, -1);
    peer_settle(p); /* now it is known what a call takes */
    for (int i = 0; i < 5; i++)
        c[i] = peer_send(p, peer_message(p, 9, 1), "/t.S/Echo");
    peer_call *health = peer_send(p, peer_message(p, 0, 0), "/grpc.health.v1.Health/Check");
    peer_up(p);
    ck_assert_uint_eq(slu_grpc_core_waiting(p->core), 3); /* waits of 0, 8 and 16 ms */
    peer_down(p);
    ends(c[3], SLU_GRPC_RESOURCE_EXHAUSTED, "would wait 24 ms for its turn (serving.max_wait)");
    ends(c[4], SLU_GRPC_RESOURCE_EXHAUSTED, "serving.max_wait");
    ends(health, 0, "");
    p->now += 13000; /* something held the loop up */
    peer_settle(p);
    ends(c[0], 0, "");
    ends(c[1], SLU_GRPC_RESOURCE_EXHAUSTED, "has waited 21 ms for its turn (serving.max_wait)");
    ends(c[2], SLU_GRPC_RESOURCE_EXHAUSTED, "has waited");
    ck_assert_int_eq(p->handled, 2);
    c[0] = peer_send(p, peer_message(p, 9, 1), "/t.S/Echo"); /* the queue is empty: all is well again */
    peer_settle(p);
    ends(c[0], 0, "");
    peer_free(p);
}
END_TEST

START_TEST(test_streams_limit)
{
    setup();
    peer_settle(p);
    ck_assert_uint_eq(nghttp2_session_get_remote_settings(p->client, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS),
                      8);
    for (int i = 0; i < 12; i++) { /* the client keeps what is over the limit to itself */
        peer_call *c = peer_next(p);
        c->keep_open = true;
        peer_send(p, c, "/t.S/Echo");
    }
    peer_settle(p);
    ck_assert_uint_eq(slu_grpc_session_calls(p->server), 8);
    peer_free(p);
}
END_TEST

START_TEST(test_reset_while_queued)
{
    setup();
    peer_call *c = peer_send(p, peer_message(p, 1, 1), "/t.S/Echo");
    peer_up(p);
    ck_assert_uint_eq(slu_grpc_core_waiting(p->core), 1);
    nghttp2_submit_rst_stream(p->client, NGHTTP2_FLAG_NONE, c->id, NGHTTP2_CANCEL);
    peer_up(p);
    ck_assert_uint_eq(slu_grpc_core_waiting(p->core), 0);
    peer_settle(p);
    ck_assert_int_eq(p->handled, 0);
    ck_assert_uint_eq(slu_grpc_session_calls(p->server), 0);
    peer_free(p);
}
END_TEST

START_TEST(test_rapid_resets)
{
    setup();
    peer_settle(p);
    for (int i = 0; i < 300 && !p->goaways; i++) {
        peer_call *c = peer_send(p, peer_message(p, 1, 1), "/t.S/Echo");
        peer_up(p);
        nghttp2_submit_rst_stream(p->client, NGHTTP2_FLAG_NONE, c->id, NGHTTP2_CANCEL);
        peer_up(p);
        peer_down(p);
    }
    ck_assert_int_eq(p->goaways, 1);
    ck_assert_uint_eq(p->goaway_error, NGHTTP2_ENHANCE_YOUR_CALM);
    ck_assert_int_eq(p->n_calls, 201);
    ck_assert(slu_grpc_session_done(p->server));
    peer_free(p);
}
END_TEST

/* Cancelling half of the calls, as hedging clients do, is no attack. */
START_TEST(test_fair_resets)
{
    setup();
    peer_settle(p);
    for (int i = 0; i < 250; i++) {
        peer_call *good = peer_send(p, peer_message(p, 1, 1), "/t.S/Echo");
        peer_settle(p);
        ends(good, 0, "");
        peer_call *c = peer_send(p, peer_message(p, 1, 1), "/t.S/Echo");
        peer_up(p);
        nghttp2_submit_rst_stream(p->client, NGHTTP2_FLAG_NONE, c->id, NGHTTP2_CANCEL);
        peer_settle(p);
    }
    ck_assert_int_eq(p->goaways, 0);
    peer_free(p);
}
END_TEST

START_TEST(test_drain)
{
    setup();
    peer_call *running = peer_send(p, peer_message(p, 1, 1), "/t.S/Echo");
    peer_up(p);
    peer_down(p);
    slu_grpc_session_drain(p->server, p->now);
    peer_down(p);
    ck_assert_int_eq(p->goaways, 1);
    ck_assert_int_eq(p->goaway_last, INT32_MAX);
    ck_assert(!slu_grpc_session_done(p->server));
    peer_up(p); /* the answer to the PING brings the second step */
    peer_down(p);
    ck_assert_int_eq(p->goaways, 2);
    ck_assert_int_eq(p->goaway_last, running->id);
    peer_settle(p);
    ends(running, 0, "");
    ck_assert(slu_grpc_session_done(p->server));
    peer_free(p);
}
END_TEST

/* The last thing that the server says is a GOAWAY without error. nghttp2's client stops listening after the
 * first step, so this looks at the bytes. */
static void says_goodbye(void)
{
    const uint8_t *bytes;
    size_t n = slu_grpc_session_output(p->server, &bytes);
    ck_assert_uint_eq(n, 17);
    ck_assert_uint_eq(bytes[3], NGHTTP2_GOAWAY);
    ck_assert_uint_eq(bytes[16], NGHTTP2_NO_ERROR);
    slu_grpc_session_sent(p->server, n, p->now);
    ck_assert(slu_grpc_session_done(p->server));
}

START_TEST(test_drain_of_a_silent_peer)
{
    setup();
    const char *why = "";
    peer_settle(p);
    slu_grpc_session_drain(p->server, p->now);
    peer_down(p);
    ck_assert_int_eq(p->goaways, 1);
    ck_assert(!slu_grpc_session_done(p->server));
    p->now += 2 * SLU_SECOND_US;
    ck_assert_int_eq(slu_grpc_session_tick(p->server, p->now, &why), 0);
    says_goodbye();
    peer_free(p);
}
END_TEST

START_TEST(test_health_watch)
{
    setup();
    peer_call *watch = peer_send(p, peer_message(p, 0, 0), "/grpc.health.v1.Health/Watch");
    peer_settle(p);
    ck_assert_uint_eq(watch->answer.len, 7);
    ck_assert_uint_eq(watch->answer.data[6], 2); /* NOT_SERVING */
    slu_grpc_core_changed(p->core);              /* nothing changed really: no news */
    peer_settle(p);
    ck_assert_uint_eq(watch->answer.len, 7);
    p->health.serving = true;
    slu_grpc_core_changed(p->core);
    peer_settle(p);
    ck_assert_uint_eq(watch->answer.len, 14);
    ck_assert_uint_eq(watch->answer.data[13], 1); /* SERVING */
    slu_grpc_session_drain(p->server, p->now);
    peer_settle(p);
    ends(watch, SLU_GRPC_UNAVAILABLE, "shutting down");
    peer_free(p);
}
END_TEST

START_TEST(test_chat)
{
    setup();
    p->piece = 3;
    peer_call *c = peer_next(p);
    for (int i = 0; i < 100; i++) {
        slu_grpc_frame_prefix(&c->body, 40);
        memset(slu_buf_reserve(&c->body, 40), i, 40);
        c->body.len += 40;
    }
    peer_send(p, c, "/t.S/Chat");
    peer_settle(p);
    ends(c, 0, "");
    ck_assert_uint_eq(c->answer.len, 4500);
    ck_assert(!memcmp(c->answer.data, c->body.data, 4500));
    peer_free(p);
}
END_TEST

/* A stream whose answers are not read waits with its questions, and goes on where it was. */
START_TEST(test_chat_with_a_slow_reader)
{
    enum { MESSAGES = 100, BYTES = 4000 };
    setup();
    peer_settle(p);
    peer_call *c = peer_next(p);
    for (int i = 0; i < MESSAGES; i++) {
        slu_grpc_frame_prefix(&c->body, BYTES);
        memset(slu_buf_reserve(&c->body, BYTES), i, BYTES);
        c->body.len += BYTES;
    }
    peer_send(p, c, "/t.S/Chat");
    p->deaf = true;
    for (int i = 0; i < MESSAGES; i++) {
        peer_up(p);
        slu_grpc_core_run(p->core, &p->clock);
    }
    ck_assert_int_gt(p->handled, 1);
    ck_assert_int_lt(p->handled, MESSAGES);
    p->deaf = false;
    for (int i = 0; i < 10 && !c->closed; i++)
        peer_settle(p);
    ends(c, 0, "");
    ck_assert_int_eq(p->handled, MESSAGES);
    ck_assert_uint_eq(c->answer.len, c->body.len);
    ck_assert(!memcmp(c->answer.data, c->body.data, c->body.len));
    peer_free(p);
}
END_TEST

/* A peer that asks and never reads: memory stays bounded, then the connection is given up. */
START_TEST(test_deaf_peer)
{
    limits = peer_limits();
    limits.max_request_bytes = 1 << 20;
    limits.max_unsent = 2 << 20;
    limits.max_streams = 500;
    p = peer_new(&limits, NULL);
    peer_settle(p);
    const uint8_t *bytes;
    p->deaf = true;
    for (int i = 0; i < 60; i++) {
        peer_send(p, peer_message(p, 100000, 1), "/t.S/Echo");
        peer_up(p);
        while (slu_grpc_core_run(p->core, &p->clock))
            ;
        ck_assert_uint_lt(slu_grpc_session_output(p->server, &bytes), SLU_GRPC_OUTPUT + 32768);
    }
    ck_assert_int_lt(p->handled, 60);
    const char *why = "";
    p->now += limits.write_us + 1;
    ck_assert_int_eq(slu_grpc_session_tick(p->server, p->now, &why), SLU_ECLOSED);
    ck_assert_str_eq(why, "the peer does not read its answers");
    peer_free(p);
}
END_TEST

/* Many clients that never read, or never finish what they send: all of them together are bounded, too. */
START_TEST(test_memory_of_all)
{
    enum { PEERS = 40 };
    limits = peer_limits();
    limits.max_request_bytes = 1 << 20;
    limits.max_queue = 1000;
    limits.max_held = 1 << 20;
    p = peer_new(&limits, NULL);
    slu_grpc_session *own = p->server;
    peer *others[PEERS];
    size_t most = 0;
    uint32_t handled = 0;
    for (int i = 0; i < PEERS; i++) { /* they share the core of the first */
        others[i] = peer_new(&limits, NULL);
        slu_grpc_session_free(others[i]->server);
        others[i]->server = slu_grpc_session_new(p->core, others[i], p->now);
        others[i]->deaf = true;
    }
    for (int round = 0; round < 8; round++)
        for (int i = 0; i < PEERS; i++) {
            peer *o = others[i];
            peer_call *c = peer_message(o, 50000, 1);
            if (i % 2) { /* says 50000 and sends half of it */
                c->body.len /= 2;
                c->keep_open = true;
            }
            peer_send(o, c, "/t.S/Echo");
            peer_up(o);
            while (slu_grpc_core_run(p->core, &p->clock))
                ;
            const uint8_t *bytes;
            slu_grpc_session_output(o->server, &bytes);
            size_t held = slu_grpc_core_held(p->core);
            most = held > most ? held : most;
        }
    handled = (uint32_t)p->handled;
    ck_assert_uint_gt(handled, 3);
    ck_assert_uint_lt(handled, 40); /* of 160 whole requests */
    ck_assert_uint_le(most, 3 * limits.max_held);
    peer_settle(p); /* one that behaves is told */
    peer_call *c = peer_send(p, peer_message(p, 9, 1), "/t.S/Echo");
    peer_settle(p);
    ends(c, SLU_GRPC_RESOURCE_EXHAUSTED, "serving.memory");
    for (int i = 0; i < PEERS; i++) { /* and served when they are gone */
        slu_grpc_session_free(others[i]->server);
        others[i]->server = NULL;
        peer_free(others[i]);
    }
    c = peer_send(p, peer_message(p, 9, 1), "/t.S/Echo");
    peer_settle(p);
    ends(c, 0, "");
    ck_assert_ptr_eq(p->server, own);
    peer_free(p);
}
END_TEST

START_TEST(test_strangers)
{
    static const char *const texts[] = {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX",
                                        "\x16\x03\x01"};
    for (int i = 0; i < 3; i++) {
        setup();
        const uint8_t *bytes;
        ck_assert_int_eq(
            slu_grpc_session_feed(p->server, (const uint8_t *)texts[i], strlen(texts[i]), p->now),
            SLU_EFORMAT);
        size_t n = slu_grpc_session_output(p->server, &bytes);
        if (i < 2)
            ck_assert(n > 20 && !memcmp(bytes, "HTTP/1.1 400 ", 13));
        else
            ck_assert_uint_eq(n, 0);
        slu_grpc_session_sent(p->server, n, p->now);
        ck_assert(slu_grpc_session_done(p->server));
        peer_free(p);
    }
}
END_TEST

START_TEST(test_time_outs)
{
    setup();
    const char *why = "";
    ck_assert_int_eq(slu_grpc_session_tick(p->server, p->now + limits.greeting_us + 1, &why), SLU_ECLOSED);
    peer_free(p);
    setup();
    peer_call *c = peer_next(p);
    slu_grpc_frame_prefix(&c->body, 10);
    c->keep_open = true;
    peer_send(p, c, "/t.S/Echo");
    peer_settle(p);
    p->now += limits.request_us + 1;
    ck_assert_int_eq(slu_grpc_session_tick(p->server, p->now, &why), 0);
    peer_settle(p);
    ends(c, SLU_GRPC_DEADLINE_EXCEEDED, "whole");
    p->now += limits.idle_us + 1;
    ck_assert_int_eq(slu_grpc_session_tick(p->server, p->now, &why), 0);
    peer_down(p);
    ck_assert_int_eq(p->goaways, 1);
    p->now += 2 * SLU_SECOND_US;
    ck_assert_int_eq(slu_grpc_session_tick(p->server, p->now, &why), 0);
    says_goodbye();
    peer_free(p);
}
END_TEST

int main(void)
{
    return run_suite("grpc_session", (const TTest *[]){test_ok,
                                                       test_one_byte_at_a_time,
                                                       test_refused_by_headers,
                                                       test_large_headers,
                                                       test_oversize,
                                                       test_wrong_bodies,
                                                       test_deadlines,
                                                       test_queue_limit_spares_health,
                                                       test_wait_limit,
                                                       test_streams_limit,
                                                       test_reset_while_queued,
                                                       test_rapid_resets,
                                                       test_fair_resets,
                                                       test_drain,
                                                       test_drain_of_a_silent_peer,
                                                       test_health_watch,
                                                       test_chat,
                                                       test_chat_with_a_slow_reader,
                                                       test_deaf_peer,
                                                       test_memory_of_all,
                                                       test_strangers,
                                                       test_time_outs,
                                                       NULL});
}
