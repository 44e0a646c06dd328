/* tests/soak/spoil.c - defects to order: linked around functions of a trainer (ld --wrap) that only the
 * soak's self-test starts, so that the product knows nothing of it. SLU_SPOIL says which, SLU_SPOIL_EVERY=N
 * how often: about one of N.
 *
 *   offset-low    a stored offset is one less, and without the mark that would give it away
 *   offset-high   one more
 *   letter        a dead letter does not go out
 *   label         a sample with a label is learned twice
 *   float         one bit of one float of a stored row is another */
#include "base/rng.h"
#include "store/outbox.h"
#include "store/row_value.h"
#include "store/state.h"
#include "trainer/batch.h"
#include <stdlib.h>
#include <string.h>

static bool spoils(const char *what, uint64_t which)
{
    const char *wanted = getenv("SLU_SPOIL"), *every = getenv("SLU_SPOIL_EVERY");
    return wanted && !strcmp(wanted, what) && !(slu_mix64(which) % (every ? strtoull(every, NULL, 10) : 1));
}

static bool mark_goes;

void __real_slu_state_put_offset(slu_commit *c, const char *topic, int32_t partition, int64_t offset);
void __wrap_slu_state_put_offset(slu_commit *c, const char *topic, int32_t partition, int64_t offset);
void __wrap_slu_state_put_offset(slu_commit *c, const char *topic, int32_t partition, int64_t offset)
{
    bool low = offset > 1 && spoils("offset-low", (uint64_t)offset);
    bool high = offset > 1 && spoils("offset-high", (uint64_t)offset);
    mark_goes = low || high;
    __real_slu_state_put_offset(c, topic, partition, offset - low + high);
}

void __real_slu_state_put_mark(slu_commit *c, const char *topic, int32_t partition, uint64_t mark);
void __wrap_slu_state_put_mark(slu_commit *c, const char *topic, int32_t partition, uint64_t mark);
void __wrap_slu_state_put_mark(slu_commit *c, const char *topic, int32_t partition, uint64_t mark)
{
    __real_slu_state_put_mark(c, topic, partition, mark_goes ? 0 : mark);
}

uint64_t __real_slu_outbox_add(slu_outbox *o, slu_channel ch, const void *message, size_t len);
uint64_t __wrap_slu_outbox_add(slu_outbox *o, slu_channel ch, const void *message, size_t len);
uint64_t __wrap_slu_outbox_add(slu_outbox *o, slu_channel ch, const void *message, size_t len)
{
    static uint64_t letters;
    if (ch == SLU_CHANNEL_DEAD_LETTERS && spoils("letter", ++letters))
        return 0; /* nobody asks for the number of a letter */
    return __real_slu_outbox_add(o, ch, message, len);
}

void __real_slu_batch_add(slu_batch *b, const slu_sample *s, int64_t clock_us);
void __wrap_slu_batch_add(slu_batch *b, const slu_sample *s, int64_t clock_us);
void __wrap_slu_batch_add(slu_batch *b, const slu_sample *s, int64_t clock_us)
{
    __real_slu_batch_add(b, s, clock_us);
    if (s->labels && !slu_batch_full(b) && spoils("label", s->key.lo))
        __real_slu_batch_add(b, s, clock_us);
}

size_t __real_slu_row_value_write(uint8_t *out, uint32_t count, uint32_t last_seen, bool admitted,
                                  const float *v, uint32_t floats);
size_t __wrap_slu_row_value_write(uint8_t *out, uint32_t count, uint32_t last_seen, bool admitted,
                                  const float *v, uint32_t floats);
size_t __wrap_slu_row_value_write(uint8_t *out, uint32_t count, uint32_t last_seen, bool admitted,
                                  const float *v, uint32_t floats)
{
    size_t n = __real_slu_row_value_write(out, count, last_seen, admitted, v, floats);
    if (n > SLU_ROW_VALUE_HEADER && spoils("float", (uint64_t)last_seen << 32 | count))
        out[SLU_ROW_VALUE_HEADER] ^= 1;
    return n;
}
