#include "trainer/steady_clock.h"
#include "base/log.h"
#include <stdlib.h>

static int64_t wall_ahead(const slu_clock *c)
{
    return slu_wall_us(c) - slu_mono_us(c);
}

slu_steady_clock slu_steady_clock_start(const slu_clock *clock)
{
    return (slu_steady_clock){.clock = clock, .ahead_us = wall_ahead(clock)};
}

/* Each step once: the difference has changed since the last line by more than clocks drift. */
static void mention(slu_steady_clock *c, int64_t step_us, const char *what)
{
    if (llabs(step_us - c->said_us) < SLU_CLOCK_STEP_US)
        return;
    c->said_us = step_us;
    SLU_WARN("trainer", what, SLU_F64("seconds", (double)step_us / 1e6));
}

int64_t slu_steady_clock_now(slu_steady_clock *c)
{
    int64_t step = wall_ahead(c->clock) - c->ahead_us;
    if (step > 0) {
        c->said_us = 0;
        mention(c, step, "this machine's clock was set ahead; arrivals follow it");
        c->ahead_us += step;
        c->said_us = 0;
    } else {
        mention(c, step, "this machine's clock is behind what it was; arrivals go on without it");
    }
    return slu_mono_us(c->clock) + c->ahead_us;
}

int64_t slu_steady_clock_off(const slu_steady_clock *c)
{
    return wall_ahead(c->clock) - c->ahead_us;
}
