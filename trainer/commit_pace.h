/* trainer/commit_pace.h - how often a live run commits.
 *
 * A commit writes the whole dense part (parameters, Adam's moments, gradients not yet applied), however
 * little was learned since the last one, so commits cost by their number. While the trainer keeps up, one
 * every training.commit_every makes news visible that soon. While it catches up, what it learns is old
 * anyway, and the time is better spent on learning: then a commit may wait for a quarter of how far behind it
 * is, which makes nothing more than a quarter older, and for sixteen times commit_every at most, which with
 * training.commit_events bounds what a crash repeats.
 *
 * When is committed is no part of what is learned: digests do not depend on it. */
#pragma once
#include <stdint.h>

/* The wall time from one commit to the next. |behind_us|: how long ago the newest record that was used
 * arrived; negative where the broker's clock is ahead. */
int64_t slu_commit_interval_us(int64_t commit_every_us, int64_t behind_us);
