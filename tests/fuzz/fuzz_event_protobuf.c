/* Events in protobuf from anywhere: a valid event that survives re-encoding, or a reason; never a crash. And
 * the two readers say the same of the same bytes. */
#include "tests/event_readers.h"
#include "tests/fuzz/fuzz_event_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_event *f = fuzz_event_get();
    REQUIRE(event_readers_agree(f->schema, size % 2 ? SLU_UNKNOWN_REJECT : SLU_UNKNOWN_IGNORE, data, size,
                                f->arena, f->second) >= 0);
    fuzz_event_run(SLU_ENCODING_PROTOBUF, data, size);
    return 0;
}
