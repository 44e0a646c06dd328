#!/usr/bin/env python3
"""bench/fresh.py: from an event's production to the first score that reflects it, through a real broker.

A stream of RATE impressions a second keeps the trainer busy; beside it single impressions with a value that was never
seen are sent, and a scorer is asked until that value makes a difference (bench/load.c). Percentiles per
training.commit_every, and what each setting costs: the trainer's CPU time per event. CHECK=1: exit 1 when p99 at default
settings is a second or more. Run it by `make bench-fresh`."""
import os
import subprocess
import sys
import time

from system import CONFIG, LOAD, System, percentile, report, wait_until

PROBES = int(os.environ.get("PROBES", "150"))
RATE = int(os.environ.get("RATE", "1000"))


def measure(name, sets):
    with System(sets) as s:
        trainer, scorer = s.trainer(), s.scorer()
        s.events(10 ** 9, rate=RATE, wait=False)
        wait_until("a model", lambda: scorer.metrics().get("sluice_scorer_version", 0) > 0)
        time.sleep(3)
        m0, c0 = trainer.metrics(), trainer.cpu_seconds()
        out = subprocess.run([LOAD, "fresh", CONFIG, s.brokers, scorer.grpc, str(PROBES), "50"], stdout=subprocess.PIPE, text=True)
        m1, c1 = trainer.metrics(), trainer.cpu_seconds()
        if out.returncode:
            sys.exit("bench/load fresh failed: the daemons' logs were in " + s.dir)
        ms = [float(x) for x in out.stdout.split()]
        received = 'sluice_trainer_events_total{state="received"}'
        events = m1[received] - m0[received]
        return {"setting": name, "p50_ms": percentile(ms, .5), "p90_ms": percentile(ms, .9), "p99_ms": percentile(ms, .99),
                "max_ms": max(ms), "probes": len(ms), "cpu_us_per_event": (c1 - c0) / events * 1e6,
                "commits": m1["sluice_trainer_commits_total"] - m0["sluice_trainer_commits_total"]}


def main():
    print("freshness at %d impressions a second, %d probes a setting" % (RATE, PROBES))
    print("| setting | p50 ms | p90 ms | p99 ms | worst ms | trainer CPU us an event | commits |\n|---|---|---|---|---|---|---|")
    rows = []
    for name, sets in [("default", []), ("commit_every 100ms", ["training.commit_every=100ms"]),
                       ("commit_every 1s", ["training.commit_every=1s"]),
                       ("commit_every 100ms, batch_size 64", ["training.commit_every=100ms", "training.batch_size=64"])]:
        r = measure(name, sets)
        rows.append(r)
        print("| %s | %.0f | %.0f | %.0f | %.0f | %.0f | %d |" % (name, r["p50_ms"], r["p90_ms"], r["p99_ms"], r["max_ms"],
                                                             r["cpu_us_per_event"], r["commits"]), flush=True)
    report("fresh", rows, ["p99 at default settings %.0f ms, not below 1000" % rows[0]["p99_ms"]] if rows[0]["p99_ms"] >= 1000 else [])


if __name__ == "__main__":
    main()
