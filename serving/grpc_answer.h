/* serving/grpc_answer.h - what a server says on a stream: headers, messages, the status; and how that becomes
 * bytes of the session.
 *
 * Frames are made straight into session->out, so that a loop round sends all answers of a connection with one
 * write, and only while less than SLU_GRPC_OUTPUT bytes wait there: the rest stays in st->out until the
 * socket has taken some.
 *
 * A status before any message is one header block that ends the stream; after messages it is the trailer
 * behind the last of them. @thread the loop's */
#pragma once
#include "serving/grpc_stream.h"

/* Has nghttp2 send by the callbacks of this file. */
void slu_grpc_answer_setup(nghttp2_session_callbacks *callbacks);
/* Sends headers if that did not happen and lets st->out flow. */
void slu_grpc_answer_flow(slu_grpc_stream *st);
/* Sends the decided status: alone, or after what is in st->out. */
void slu_grpc_answer_end(slu_grpc_stream *st);
