/* serving/grpc_frame.h - the five bytes before each gRPC message: a compression flag and a big-endian length.
 *
 * The reader takes bytes in pieces of any size. It looks at the length before it keeps anything, and its
 * buffer grows with the bytes that really came, so a large announced length costs nothing by itself. */
#pragma once
#include "base/bytes.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLU_GRPC_PREFIX 5

typedef struct slu_grpc_frame {
    uint8_t prefix[SLU_GRPC_PREFIX];
    uint8_t have;    /* bytes of prefix that are here */
    uint32_t want;   /* length of the message, once have is 5 */
    slu_buf message; /* what came of it */
} slu_grpc_frame;

typedef enum slu_grpc_frame_state {
    SLU_FRAME_MORE,       /* all bytes taken, the message is not whole */
    SLU_FRAME_WHOLE,      /* frame.message is a message; slu_grpc_frame_next() before more is read */
    SLU_FRAME_TOO_LARGE,  /* frame.want is over the limit; nothing was kept */
    SLU_FRAME_COMPRESSED, /* the flag is set; nothing was kept */
    SLU_FRAME_BAD_FLAG,   /* the flag is neither 0 nor 1 */
} slu_grpc_frame_state;

/* Takes bytes from |p| (n) until a message of at most |max| bytes is whole or they run out; |*taken| says how
 * many. After one of the three refusals the frame is of no further use. */
slu_grpc_frame_state slu_grpc_frame_read(slu_grpc_frame *f, const uint8_t *p, size_t n, uint32_t max,
                                         size_t *taken);
/* Forgets the message, keeps its buffer. */
void slu_grpc_frame_next(slu_grpc_frame *f);
/* True between messages: the stream may end here. */
static inline bool slu_grpc_frame_empty(const slu_grpc_frame *f)
{
    return !f->have;
}

/* Appends the prefix of an uncompressed message of |len| bytes. */
void slu_grpc_frame_prefix(slu_buf *out, uint32_t len);
