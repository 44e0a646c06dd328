/* Events in protobuf from anywhere: a valid event that survives re-encoding, or a reason; never a crash. */
#include "tests/fuzz/fuzz_event_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_event_run(SLU_ENCODING_PROTOBUF, data, size);
    return 0;
}
