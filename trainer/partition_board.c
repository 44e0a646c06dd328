#include "trainer/partition_board.h"
#include "base/log.h"
#include "base/metrics.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Values of the state metric. */
enum { FLOWS = 0, HOLDS = 1, IDLE = 2, BEHIND = 3, PAUSED = 4 };

typedef struct line {
    slu_metric *delay, *state;
    bool behind, paused;
} line;

struct slu_partition_board {
    line *lines; /* (n) by the pipeline's number of the partition, which never changes while it runs */
    uint32_t n, cap;
};

slu_partition_board *slu_partition_board_new(void)
{
    return calloc(1, sizeof(slu_partition_board));
}

void slu_partition_board_free(slu_partition_board *b)
{
    if (b)
        free(b->lines);
    free(b);
}

static bool add_line(slu_partition_board *b, const slu_partition *part)
{
    if (b->n == b->cap) {
        uint32_t cap = b->cap ? 2 * b->cap : 16;
        line *more = realloc(b->lines, cap * sizeof *more);
        if (!more)
            return false; /* it is for people only: next time, perhaps */
        b->lines = more;
        b->cap = cap;
    }
    char label[320];
    snprintf(label, sizeof label, "topic=\"%.249s\",partition=\"%d\"", part->topic, part->partition);
    b->lines[b->n++] = (line){
        .delay = slu_gauge("sluice_trainer_partition_delay_seconds", label,
                           "Arrival of the newest message less the newest event time of its partition."),
        .state = slu_gauge("sluice_trainer_partition_state", label,
                           "0 flows, 1 holds event time, 2 idle, 3 behind: its clock is wrong, "
                           "4 paused: it is ahead and waits for the others."),
    };
    return true;
}

static void mention(line *l, const slu_partition *part, double delay, bool behind)
{
    if (l->behind == behind)
        return;
    l->behind = behind;
    if (behind)
        SLU_WARN("trainer", "a partition's clock is behind; event time goes on without it",
                 SLU_STR("topic", part->topic), SLU_I64("partition", part->partition),
                 SLU_F64("seconds", delay));
    else
        SLU_INFO("trainer", "a partition's clock is right again", SLU_STR("topic", part->topic),
                 SLU_I64("partition", part->partition));
}

/* Source and pipeline number partitions differently; paused ones are few. */
static void look_for_paused(slu_partition_board *b, const slu_pipeline *p, slu_source *source)
{
    for (uint32_t i = 0; i < b->n; i++)
        b->lines[i].paused = false;
    uint32_t n = source->ops->reading ? source->ops->partitions(source) : 0;
    for (uint32_t j = 0; j < n; j++) {
        if (!source->ops->reading(source, j).paused)
            continue;
        slu_partition at = source->ops->partition(source, j), part;
        slu_partition_time t;
        for (uint32_t i = 0; i < b->n && i < slu_pipeline_partitions(p); i++) {
            slu_pipeline_partition(p, i, &part, &t);
            if (part.partition == at.partition && strcmp(part.topic, at.topic) == 0)
                b->lines[i].paused = true;
        }
    }
}

void slu_partition_board_update(slu_partition_board *b, const slu_pipeline *p, slu_source *source)
{
    look_for_paused(b, p, source);
    for (uint32_t i = 0; i < slu_pipeline_partitions(p); i++) {
        slu_partition part;
        slu_partition_time t;
        slu_pipeline_partition(p, i, &part, &t);
        if (i == b->n && !add_line(b, &part))
            return;
        line *l = &b->lines[i];
        bool known = t.arrival_us && t.newest_us != INT64_MIN;
        double delay = known ? (double)(t.arrival_us - t.newest_us) / 1e6 : NAN;
        slu_metric_set(l->delay, delay);
        slu_metric_set(l->state, l->paused  ? PAUSED
                                 : t.behind ? BEHIND
                                 : t.idle   ? IDLE
                                 : t.held   ? HOLDS
                                            : FLOWS);
        mention(l, &part, delay, t.behind);
    }
}
