/* replay/report.h - what a replay learned, for people and for programs. */
#pragma once
#include "base/error.h"
#include "base/options.h"
#include "trainer/pipeline.h"
#include <stdio.h>

typedef struct slu_report {
    const slu_options *options;
    slu_pipeline_stats stats;
    char digest[33];
    char live_digest[33]; /* of the live run's store at the same version; "" unknown, or files */
    double seconds;       /* wall time of the replay */
    int64_t eval_from_us; /* INT64_MIN: from the beginning */
    const char *data;     /* directory, or the live run's store */
} slu_report;

/* A readable table on |out|. */
void slu_report_print(const slu_report *r, FILE *out);
/* The JSON report, by way of a temporary file and rename; "-" is standard output. SLU_EIO. */
int slu_report_json(const slu_report *r, const char *path, slu_error *err);
