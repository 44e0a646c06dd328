/* trainer/partition_board.h - how each partition stands in time, as metrics and log lines: which one holds
 * event time back, which one's clock is wrong, which one is paused.
 *
 * sluice_trainer_partition_delay_seconds{topic,partition} and
 * sluice_trainer_partition_state{topic,partition}; a line whenever a partition's clock begins or ceases to be
 * behind. @thread one, the owner of the pipeline */
#pragma once
#include "trainer/pipeline.h"

typedef struct slu_partition_board slu_partition_board;

slu_partition_board *slu_partition_board_new(void); /* NULL: out of memory */
void slu_partition_board_free(slu_partition_board *b);
/* Call a few times a second. */
void slu_partition_board_update(slu_partition_board *b, const slu_pipeline *p, slu_source *source);
