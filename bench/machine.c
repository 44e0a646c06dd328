/* machine: what this machine does to short work, whoever asks for it: how much slower the same work is after
 * a gap, in which others have had the processor's caches, and how long a thread takes to wake on another
 * processor. Both are parts of every call of a scorer that is not busy (docs/performance.md, bench/serve),
 * and neither is sluice's.
 *
 *   machine        prints two tables; about 12 s
 *
 * Work runs on CPU 0, back to back and with gaps of 2.4 ms, TURNS times each, ROUNDS times in turn. */
#include "bench/measure.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { TURNS = 400, ROUNDS = 3, GAP_NS = 2400000, WAKES = 2000, WAKE_GAP_NS = 2000000 };
#define MIB ((size_t)1 << 20)

static double now_us(void)
{
    return wall_seconds() * 1e6;
}

static void nap(long ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

static bool stay_on(int cpu)
{
    cpu_set_t s;
    CPU_ZERO(&s);
    CPU_SET(cpu, &s);
    return sched_setaffinity(0, sizeof s, &s) == 0;
}

/* ---- work ---- */

static unsigned char *memory; /* (8 MiB) */
static volatile double sink;

/* Eight chains, so that it is not waiting for one. */
static void compute(void)
{
    double v[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (int i = 0; i < 160000; i++)
        for (int k = 0; k < 8; k++)
            v[k] = v[k] * 0.999 + 0.001;
    sink = v[0] + v[1] + v[2] + v[3] + v[4] + v[5] + v[6] + v[7];
}

static void read_lines(size_t bytes, int times)
{
    uint64_t sum = 0;
    for (; times > 0; times--)
        for (size_t i = 0; i < bytes; i += 64)
            sum += *(volatile unsigned char *)&memory[i];
    sink = (double)sum;
}

static void small(void)
{
    read_lines(MIB, 8);
}

static void large(void)
{
    read_lines(8 * MIB, 1);
}

static double median_us(void (*work)(void), bool gaps)
{
    static double us[TURNS];
    for (int i = 0; i < TURNS; i++) {
        if (gaps)
            nap(GAP_NS);
        double begin = now_us();
        work();
        us[i] = now_us() - begin;
    }
    return median_of(us, TURNS);
}

static void work_after_gaps(void)
{
    static const struct {
        const char *name;
        void (*work)(void);
    } kinds[] = {{"arithmetic in registers", compute},
                 {"1 MiB, read eight times", small},
                 {"8 MiB, read once", large}};
    printf("| work on CPU 0, median us | back to back | with gaps of 2.4 ms |\n|---|---|---|\n");
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        double us[2][ROUNDS];
        for (int r = 0; r < ROUNDS; r++)
            for (int gaps = 0; gaps < 2; gaps++)
                us[gaps][r] = median_us(kinds[k].work, gaps);
        for (int gaps = 0; gaps < 2; gaps++)
            qsort(us[gaps], ROUNDS, sizeof **us, measure_ascending);
        printf("| %s | %.0f to %.0f | %.0f to %.0f |\n", kinds[k].name, us[0][0], us[0][ROUNDS - 1], us[1][0],
               us[1][ROUNDS - 1]);
    }
}

/* ---- waking ---- */

static struct {
    int fd;
    atomic_bool awake;
    double sent, us[WAKES];
} waking;

static void *woken(void *arg)
{
    uint64_t count;
    (void)arg;
    stay_on(1);
    for (int i = 0; i < WAKES; i++) {
        if (read(waking.fd, &count, sizeof count) != sizeof count)
            break;
        waking.us[i] = now_us() - waking.sent;
        atomic_store(&waking.awake, true);
    }
    return NULL;
}

static int wake_ups(void)
{
    pthread_t thread;
    waking.fd = eventfd(0, EFD_CLOEXEC);
    if (waking.fd < 0 || pthread_create(&thread, NULL, woken, NULL))
        return 1;
    for (int i = 0; i < WAKES; i++) {
        nap(WAKE_GAP_NS);
        atomic_store(&waking.awake, false);
        waking.sent = now_us();
        if (write(waking.fd, &(uint64_t){1}, sizeof(uint64_t)) < 0)
            return 1;
        while (!atomic_load(&waking.awake))
            ;
    }
    pthread_join(thread, NULL);
    qsort(waking.us, WAKES, sizeof *waking.us, measure_ascending);
    printf("\n| a thread on CPU 1 wakes, us | p10 | p50 | p90 | p99 | p99.9 |\n|---|---|---|---|---|---|\n| "
           "by a "
           "write to its eventfd | %.0f | %.0f | %.0f | %.0f | %.0f |\n",
           waking.us[WAKES / 10], waking.us[WAKES / 2], waking.us[WAKES * 9 / 10],
           waking.us[WAKES * 99 / 100], waking.us[WAKES * 999 / 1000]);
    return 0;
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1 || sysconf(_SC_NPROCESSORS_ONLN) < 2 || !stay_on(0)) {
        fprintf(stderr, "usage: machine   (no arguments; it needs CPUs 0 and 1)\n");
        return 2;
    }
    memory = malloc(8 * MIB);
    if (!memory)
        return 1;
    memset(memory, 1, 8 * MIB);
    work_after_gaps();
    free(memory);
    return wake_ups();
}
