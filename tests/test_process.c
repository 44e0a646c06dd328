#include "base/metrics.h"
#include "base/process.h"
#include "tests/suite.h"
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

static double value(const char *name, const char *labels)
{
    return slu_metric_value(slu_gauge(name, labels, ""));
}

START_TEST(test_plausible_values)
{
    slu_process_update("sluice-test");
    ck_assert_double_eq(value("sluice_build_info", "program=\"sluice-test\",version=\"" SLU_VERSION "\""), 1);
    ck_assert_double_gt(value("process_resident_memory_bytes", NULL), 100e3);
    ck_assert_double_ge(value("process_threads", NULL), 1);
    ck_assert_double_ge(value("process_max_fds", NULL), value("process_open_fds", NULL));
    /* Forked by Check a moment ago. Clock steps are not our concern, a minute leaves room for slow machines.
     */
    double age = (double)time(NULL) - value("process_start_time_seconds", NULL);
    ck_assert_msg(age > -2 && age < 60, "started %g s ago", age);
}
END_TEST

START_TEST(test_follows_changes)
{
    slu_process_update("sluice-test");
    double before = value("process_open_fds", NULL);
    int fd = open("/dev/null", O_RDONLY);
    slu_process_update("sluice-test");
    ck_assert_double_eq(value("process_open_fds", NULL), before + 1);
    close(fd);
}
END_TEST

int main(void)
{
    return run_suite("process", (const TTest *[]){test_plausible_values, test_follows_changes, NULL});
}
