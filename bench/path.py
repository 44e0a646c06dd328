#!/usr/bin/env python3
"""bench/path.py: from event bytes in a topic to trained and committed, against the bare step of bench/train.

The same model, the same number of ids, the same law: `bench/train run` learns batches that lie in memory; the trainer
reads a backlog of as many impressions from a real broker, decodes, joins, learns, commits and publishes. Every row was
made before; the trainer is paused (SIGSTOP) while the backlog is produced, so that its cache stays as warm as its size allows
and the producer takes none of its time. Wall time of both, in turn, medians of RUNS; between a tenth and nine tenths of
the backlog. The table (1,000,008 rows) fits into the row cache, or is 10 times larger.

    make bench-path             # table and build/bench/path.json; CHECK=1: exit 1 where a target is missed

Environment: BUILD, RUNS (3), IMPRESSIONS (60000), LAWS ("zipf uniform"), CACHED=1 (in cache only), SET (options of the trainer and of the bare step, separated by blanks)."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from system import BUILD, ROOT, System, median, report, wait_until

RUNS = int(os.environ.get("RUNS", "3"))
IMPRESSIONS = int(os.environ.get("IMPRESSIONS", "60000"))
SETS = os.environ.get("SET", "").split()
LAWS = os.environ.get("LAWS", "zipf uniform").split()
TABLES = ("in cache",) if os.environ.get("CACHED") else ("in cache", "10 x the cache")
BATCH = 512
SLOTS, IDS = 24, 41667
SAMPLES = "sluice_trainer_samples_total"


def step_rate(law):
    """Samples a second of the learner's step alone, its rows in memory."""
    warm, timed = 10, 40
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([BUILD + "/bench/train", "make", law, "1", str(warm + timed), d + "/batches"], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)
        out = subprocess.run([BUILD + "/bench/train", "run", d + "/batches", str(warm), str(timed)] + SETS, cwd=ROOT, check=True,
                             stdout=subprocess.PIPE, text=True).stdout
        return BATCH / json.loads(out)["wall_ms"] * 1e3


def total(metrics, name):
    return sum(v for k, v in metrics.items() if k.split("{")[0] == name)


def at(trainer, samples):
    """What the trainer says of itself, its CPU seconds and the time, when it has just learned so many samples. Its figures are
    renewed four times a second, and asking costs time of the same cores: so seldom, until close to a renewal."""
    said = trainer.metrics()[SAMPLES]
    while said < samples:
        time.sleep(.2)
        last, end = said, time.time() + 60
        while said == last:
            if time.time() > end:
                sys.exit("bench-path: nothing was learned for a minute")
            time.sleep(.01)
            m = trainer.metrics()
            c, t, said = trainer.cpu_seconds(), time.time(), m[SAMPLES]
    return m, c, t


def path_rate(law, cache):
    """Samples a second from the topic to the commit, microseconds of CPU for each, bytes of the row cache, samples a batch."""
    with System(["store.cache=%d" % cache] + SETS) as s:
        trainer = s.trainer()
        s.events(IDS, seed=4, law="each", ids=IDS)  # every row once: what is timed is learning, not making rows
        made = lambda m: total(m, "sluice_trainer_rows_created_total")  # noqa: E731
        wait_until("all rows", lambda: made(trainer.metrics()) == SLOTS * IDS, 1200)
        before = trainer.metrics()
        trainer.p.send_signal(signal.SIGSTOP)
        s.events(IMPRESSIONS, seed=5, law=law)
        trainer.p.send_signal(signal.SIGCONT)
        m0, c0, t0 = at(trainer, before[SAMPLES] + IMPRESSIONS / 10)
        m1, c1, t1 = at(trainer, before[SAMPLES] + IMPRESSIONS * .9)
        if made(m1) != made(before):
            sys.exit("bench-path: %d rows were made while timed" % (made(m1) - made(before)))
        n = m1[SAMPLES] - m0[SAMPLES]
        batch = n / (m1["sluice_trainer_batches_total"] - m0["sluice_trainer_batches_total"])
        return n / (t1 - t0), (c1 - c0) / n * 1e6, total(m1, "sluice_trainer_row_cache_bytes"), batch


def main():
    print("| ids | table | step alone samples/s | path samples/s | share | trainer CPU us a sample | samples a batch |\n"
          "|---|---|---|---|---|---|---|")
    figures, missed = [], []
    for law in LAWS:
        cached = table = None
        for name in TABLES:
            cache = int(table / 10) if table else 1 << 30
            runs = [(step_rate(law), *path_rate(law, cache)) for _ in range(RUNS)]
            step, path, cpu, held, batch = (median([r[i] for r in runs]) for i in range(5))
            share = median([r[1] / r[0] for r in runs])
            cached, table = cached or path, table or held
            figures.append({"ids": law, "table": name, "step": step, "path": path, "share": share, "cpu_us": cpu, "cache_bytes": cache,
                            "batch": batch, "runs": runs})
            print("| %s | %s | %.0f | %.0f | %.0f %% | %.0f | %.0f |" % (law, name, step, path, 100 * share, cpu, batch), flush=True)
            if name == "in cache" and share < .8:
                missed.append("%s in cache: %.0f %% of the step's rate, 80 wanted" % (law, 100 * share))
            if name != "in cache" and cached > 3 * path:
                missed.append("%s, table 10 times the cache: %.1f times slower than in cache, at most 3 wanted" % (law, cached / path))
    report("path", figures, missed)


if __name__ == "__main__":
    main()
