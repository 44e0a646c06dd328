#include "base/process.h"
#include "base/metrics.h"
#include <dirent.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static struct {
    slu_metric *memory, *cpu, *fds, *max_fds, *threads, *start;
} metrics;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_metrics(void)
{
    metrics.memory =
        slu_gauge("process_resident_memory_bytes", NULL, "Memory of the process that is in RAM.");
    metrics.cpu = slu_counter("process_cpu_seconds_total", NULL, "CPU time spent, in user and system mode.");
    metrics.fds = slu_gauge("process_open_fds", NULL, "Open file descriptors.");
    metrics.max_fds = slu_gauge("process_max_fds", NULL, "How many file descriptors may be open.");
    metrics.threads = slu_gauge("process_threads", NULL, "Threads of the process.");
    metrics.start = slu_gauge("process_start_time_seconds", NULL,
                              "When the process started, seconds since the Unix epoch.");
}

/* Fields 20 and 22 of /proc/self/stat. The name in field 2 may hold anything, so counting starts after its
 * ')'. */
static void read_stat(void)
{
    char text[1024];
    FILE *f = fopen("/proc/self/stat", "re");
    if (!f)
        return;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *after = strrchr(text, ')');
    long threads;
    unsigned long long ticks;
    if (!after ||
        sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d %llu",
               &threads, &ticks) != 2)
        return;
    slu_metric_set(metrics.threads, (double)threads);
    struct timespec up, now;
    clock_gettime(CLOCK_BOOTTIME, &up);
    clock_gettime(CLOCK_REALTIME, &now);
    double since_boot = (double)ticks / (double)sysconf(_SC_CLK_TCK);
    slu_metric_set(metrics.start, (double)(now.tv_sec - up.tv_sec) + since_boot);
}

void slu_process_tame_malloc(void)
{
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 1 << 20); /* said once, it no longer grows by itself */
    mallopt(M_TRIM_THRESHOLD, 4 << 20);
}

uint64_t slu_process_resident(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    if (fscanf(f, "%*d %ld", &pages) != 1)
        pages = 0;
    fclose(f);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void read_memory(void)
{
    uint64_t bytes = slu_process_resident();
    if (bytes)
        slu_metric_set(metrics.memory, (double)bytes);
}

static void read_fds(void)
{
    struct rlimit limit;
    DIR *d = opendir("/proc/self/fd");
    if (d) {
        int n = -3; /* ".", ".." and the one that reads this folder */
        while (readdir(d))
            n++;
        closedir(d);
        slu_metric_set(metrics.fds, n);
    }
    if (!getrlimit(RLIMIT_NOFILE, &limit))
        slu_metric_set(metrics.max_fds, (double)limit.rlim_cur);
}

void slu_process_update(const char *program)
{
    char labels[128];
    struct rusage used;
    pthread_once(&once, make_metrics);
    snprintf(labels, sizeof labels, "program=\"%.60s\",version=\"" SLU_VERSION "\"", program);
    slu_metric_set(slu_gauge("sluice_build_info", labels, "Always 1; the labels say what runs."), 1);
    read_stat();
    read_memory();
    read_fds();
    if (!getrusage(RUSAGE_SELF, &used))
        slu_metric_set(metrics.cpu, (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                                        (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
}
