#include "trainer/commit_pace.h"

enum { PART = 4, MOST = 16 };

int64_t slu_commit_interval_us(int64_t commit_every_us, int64_t behind_us)
{
    int64_t wait = behind_us / PART, most = MOST * commit_every_us;
    if (wait < commit_every_us)
        return commit_every_us;
    return wait < most ? wait : most;
}
