/* serving/grpc_http2.h - what a peer sends, as nghttp2 tells it: headers and messages of calls, their ends,
 * and who may send how much more.
 *
 * nghttp2 gives no window back by itself: unary bytes are given back at once (they are bounded by
 * max_buffered), those of a bidirectional stream when its message was used. @thread the loop's */
#pragma once
#include "serving/grpc_stream.h"

/* Callbacks and options of all sessions of |c|; 0 or SLU_ENOMEM. */
int slu_grpc_http2_setup(slu_grpc_core *c);
/* BIDI: the peer may send |n| more bytes. */
void slu_grpc_http2_consumed(slu_grpc_stream *st, size_t n);
