#include "serving/grpc_frame.h"

/* The first byte decides alone, so a compressed or foreign stream is refused before its length is read. */
static slu_grpc_frame_state check_prefix(slu_grpc_frame *f, uint32_t max)
{
    if (f->prefix[0] == 1)
        return SLU_FRAME_COMPRESSED;
    if (f->prefix[0])
        return SLU_FRAME_BAD_FLAG;
    if (f->have < SLU_GRPC_PREFIX)
        return SLU_FRAME_MORE;
    f->want = (uint32_t)f->prefix[1] << 24 | (uint32_t)f->prefix[2] << 16 | (uint32_t)f->prefix[3] << 8 |
              f->prefix[4];
    return f->want > max ? SLU_FRAME_TOO_LARGE : SLU_FRAME_MORE;
}

slu_grpc_frame_state slu_grpc_frame_read(slu_grpc_frame *f, const uint8_t *p, size_t n, uint32_t max,
                                         size_t *taken)
{
    size_t i = 0;
    *taken = 0;
    if (f->have < SLU_GRPC_PREFIX) {
        while (i < n && f->have < SLU_GRPC_PREFIX)
            f->prefix[f->have++] = p[i++];
        *taken = i;
        slu_grpc_frame_state state = f->have ? check_prefix(f, max) : SLU_FRAME_MORE;
        if (state != SLU_FRAME_MORE || f->have < SLU_GRPC_PREFIX)
            return state;
    }
    size_t take = f->want - f->message.len;
    if (take > n - i)
        take = n - i;
    if (take)
        slu_put_bytes(&f->message, p + i, take);
    *taken = i + take;
    return f->message.len == f->want ? SLU_FRAME_WHOLE : SLU_FRAME_MORE;
}

void slu_grpc_frame_next(slu_grpc_frame *f)
{
    f->have = 0;
    f->want = 0;
    slu_buf_clear(&f->message);
}

void slu_grpc_frame_prefix(slu_buf *out, uint32_t len)
{
    uint8_t p[SLU_GRPC_PREFIX] = {0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                                  (uint8_t)len};
    slu_put_bytes(out, p, sizeof p);
}
