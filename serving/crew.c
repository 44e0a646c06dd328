#include "serving/crew.h"
#include "base/cache_line.h"
#include <assert.h>
#include <unistd.h>

/* On cache lines of its own. */
typedef struct member {
    _Alignas(SLU_CACHE_LINE) slu_pieces pieces; /* of its run */
    atomic_bool asleep;
    int wake;
} member;

struct slu_crew {
    _Atomic uint32_t asleep; /* how many */
    _Atomic uint32_t runs;   /* that are on */
    uint32_t n;
    _Alignas(SLU_CACHE_LINE) member members[];
};

slu_crew *slu_crew_new(uint32_t members)
{
    slu_crew *c = slu_cache_lines_alloc(sizeof *c + members * sizeof *c->members);
    if (!c)
        return NULL;
    *c = (slu_crew){.n = members};
    for (uint32_t i = 0; i < members; i++) {
        c->members[i] = (member){.wake = -1};
        slu_pieces_init(&c->members[i].pieces);
    }
    return c;
}

void slu_crew_free(slu_crew *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; i < c->n; i++)
        slu_pieces_clear(&c->members[i].pieces);
    free(c);
}

void slu_crew_enlist(slu_crew *c, uint32_t i, int wake)
{
    assert(i < c->n);
    c->members[i].wake = wake;
}

/* ---- hands ---- */

static slu_pieces *open_run(slu_crew *c, uint32_t i)
{
    if (!atomic_load(&c->runs))
        return NULL;
    for (uint32_t k = 1; k < c->n; k++) {
        slu_pieces *p = &c->members[(i + k) % c->n].pieces;
        if (slu_pieces_open(p))
            return p;
    }
    return NULL;
}

/* Who wakes it and who wakes by itself may meet: one of them counts. */
static bool take_from_sleep(slu_crew *c, member *m)
{
    if (!atomic_exchange(&m->asleep, false))
        return false;
    atomic_fetch_sub(&c->asleep, 1);
    return true;
}

bool slu_crew_sleep(slu_crew *c, uint32_t i)
{
    atomic_store(&c->members[i].asleep, true);
    atomic_fetch_add(&c->asleep, 1);
    /* Said before looking: who begins a run looks for sleepers after that. */
    if (!open_run(c, i))
        return true;
    take_from_sleep(c, &c->members[i]);
    return false;
}

void slu_crew_awake(slu_crew *c, uint32_t i)
{
    take_from_sleep(c, &c->members[i]);
}

bool slu_crew_help(slu_crew *c, uint32_t i)
{
    slu_pieces *p = open_run(c, i);
    return p && slu_pieces_do(p, i);
}

/* ---- who has the work ---- */

uint32_t slu_crew_idle(slu_crew *c)
{
    return atomic_load(&c->asleep);
}

static void wake(slu_crew *c, uint32_t i, uint32_t hands)
{
    for (uint32_t k = 1; k < c->n && hands && slu_crew_idle(c); k++) {
        member *m = &c->members[(i + k) % c->n];
        if (!atomic_load(&m->asleep) || !take_from_sleep(c, m))
            continue;
        hands--;
        (void)!write(m->wake, &(uint64_t){1}, sizeof(uint64_t));
    }
}

void slu_crew_run(slu_crew *c, uint32_t i, slu_pieces_fn fn, void *ctx, uint32_t n)
{
    slu_pieces *p = &c->members[i].pieces;
    slu_pieces_begin(p, fn, ctx, n);
    atomic_fetch_add(&c->runs, 1);
    wake(c, i, n - 1);
    while (slu_pieces_do(p, i))
        ;
    atomic_fetch_sub(&c->runs, 1);
    slu_pieces_wait(p);
}
