/* bench/measure.h - clocks and medians of the benchmarks. Machines are shared, so work is measured in CPU
 * time and every figure is a median; wall time counts only where several threads share one piece of work. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline double measure_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Of all threads of the process, user and system. */
static inline double cpu_seconds(void)
{
    return measure_clock(CLOCK_PROCESS_CPUTIME_ID);
}

static inline double wall_seconds(void)
{
    return measure_clock(CLOCK_MONOTONIC);
}

static inline int measure_ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts. */
static inline double median_of(double *v, size_t n)
{
    qsort(v, n, sizeof *v, measure_ascending);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Benchmarks end at the first thing that fails. */
static inline void must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}
