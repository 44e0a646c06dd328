/* serving/crew.h - loop threads that have nothing to do help one that has a large request.
 *
 * A connection belongs to one loop thread, and so do its requests, so a client with one connection would keep
 * one core busy however many there are. A handler that has much to do (serving/score.c: many candidates) cuts
 * it into pieces and lets the crew do them: it wakes as many sleeping loops as there are pieces for, works
 * itself, and returns when all are done. A loop that was woken does one piece, looks at its own sockets, does
 * the next. Under load nobody sleeps, and everybody does his own requests as ever.
 *
 * Nothing is allocated by a run. Only who has taken a piece is waited for: a helper that is late is late for
 * nothing.
 *
 * @thread each member calls with its own number; new and free: before the first and after the last of them */
#pragma once
#include "base/pieces.h"

typedef struct slu_crew slu_crew;

slu_crew *slu_crew_new(uint32_t members); /* NULL: out of memory */
void slu_crew_free(slu_crew *c);          /* NULL is fine */

/* How to wake |member|: a write of 8 bytes to |wake|, an eventfd that lives as long as the crew is used. */
void slu_crew_enlist(slu_crew *c, uint32_t member, int wake);

/* Around a wait of a member that has nothing to do. Sleep is false when there are pieces to do, then it is
 * not to wait. Awake is for after a sleep that was true. */
bool slu_crew_sleep(slu_crew *c, uint32_t member);
void slu_crew_awake(slu_crew *c, uint32_t member);
/* Does one piece of another member's run; false: there is none. */
bool slu_crew_help(slu_crew *c, uint32_t member);

/* Members that sleep now: as many hands are free. A guess by the time it is used. */
uint32_t slu_crew_idle(slu_crew *c);
/* fn(ctx, who, 0) ... fn(ctx, who, n - 1), each once; |who| is the member that does it. Returns when all are
 * done. @thread |member|, which is not in a run already */
void slu_crew_run(slu_crew *c, uint32_t member, slu_pieces_fn fn, void *ctx, uint32_t n);
