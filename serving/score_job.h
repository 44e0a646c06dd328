/* serving/score_job.h - the two ends of the Score method: what a request asks for, checked, and the answer.
 *
 * A request names features and tasks; a job has them as indices and columns. Everything that a client can get
 * wrong is found here, before any work, with a message that names the thing and what to do. @thread any, each
 * with a job of its own */
#pragma once
#include "base/options.h"
#include "feature/schema.h"
#include "serving/score_request.h"

/* What requests are checked against. Made once, read by all threads. */
typedef struct score_names {
    const slu_options *options;
    const slu_schema *schema;
    const char **fields; /* NULL-terminated, for suggestions */
    char *tasks;         /* "click, conversion" */
    struct slu_metric *ignored;
} score_names;

bool score_names_init(score_names *n, const slu_options *options, const slu_schema *schema);
void score_names_clear(score_names *n);

/* One column while candidates are taken from it in order. */
typedef struct score_column {
    uint32_t field;
    const slu_value *next;   /* values of the next candidate */
    const uint32_t *lengths; /* of the next candidate on; NULL: one value each */
} score_column;

typedef struct score_job {
    score_request request;
    slu_values *fields;    /* (fields) what all candidates share; column fields are missing */
    score_column *columns; /* (n_columns) */
    uint32_t n_columns;
    bool plain;                    /* every column has one value for each candidate */
    uint32_t tasks[SLU_MAX_STEPS]; /* (n_tasks) wanted, as steps of the funnel */
    uint32_t n_tasks;
} score_job;

/* Reads and checks. Memory comes from |arena|, texts stay in |bytes|. Returns 0, SLU_EINVAL or SLU_ELIMIT
 * (the arena's). */
int score_job_read(score_job *job, const score_names *names, const void *bytes, size_t len, slu_arena *arena,
                   slu_error *err);
/* Sets the column fields of |fields| to the values of the next candidate. */
void score_job_next(score_job *job, slu_values *fields);
/* For plain jobs instead: the field's values, one for each candidate; NULL: it has no column. */
const slu_value *score_job_column(const score_job *job, uint32_t field);

/* A ScoreResponse under construction: the room for all probabilities is laid out first and filled chunk by
 * chunk. |out| must not be touched between begin and end. */
typedef struct score_answer {
    slu_buf *out;
    uint32_t n_tasks;
    struct {
        uint32_t task;
        size_t conditional, entire; /* where in out the floats of candidate 0 are */
    } at[SLU_MAX_STEPS];
} score_answer;

void score_answer_begin(score_answer *a, const score_job *job, const score_names *names, slu_buf *out);
/* Takes B candidates from |first| on; conditional and entire (B, T). */
void score_answer_put(score_answer *a, const float *conditional, const float *entire, uint32_t first,
                      uint32_t B, uint32_t T);
void score_answer_end(score_answer *a, uint64_t version, int64_t learned_through_us, int64_t now_us);
