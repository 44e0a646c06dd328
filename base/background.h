/* base/background.h - threads that work in the time that others leave.
 *
 * A thread that has stepped back runs only while nobody else wants its processor, and gives it up the moment
 * somebody does (SCHED_IDLE). A nice value does less: it lets such a thread finish its slice first, which is
 * milliseconds, and the scheduler owes it a slice in the middle of other threads' work now and then.
 *
 * Behind processors that never rest, threads in the background would stand still. The process looks at them
 * now and then (slu_background_watch) and lets those that starve in at nice 10, a tenth of a processor, until
 * the next look.
 *
 * Whoever waits for a lock that a thread in the background holds waits for that thread's turn: locks between
 * the two kinds of threads must be rare and short.
 *
 * Linux lets a thread return from the background only with CAP_SYS_NICE or with RLIMIT_NICE (10 or more;
 * LimitNICE= of a unit). Without either, stepping back means nice 10 and nothing is watched. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define SLU_BACKGROUND_LOOK_US (500 * 1000)

/* The calling thread, and those that it starts from now on, step back. A thread that has a policy of its own
 * already, and a nicer one, keep what they have. @thread any */
void slu_background_enter(void);
/* The same for threads of this process that are there and whose name begins with |prefix|: those of libraries
 * that start them where they like. @thread any */
void slu_background_adopt(const char *prefix);
/* Between two pieces of a tenth of a millisecond or so: lets go of the processor if somebody waits for it.
 * The scheduler gives the background a turn in the middle of others' work now and then, and looks again only
 * at its next tick, milliseconds later. */
void slu_background_breathe(void);
/* Lets those in that starve, sends those back that were let in; does nothing when the last look was less than
 * SLU_BACKGROUND_LOOK_US ago. Returns how many threads it has let in. What it sees is in the metrics
 * sluice_background_threads and sluice_background_let_in. @thread one, in the foreground */
unsigned slu_background_watch(int64_t now_us);
