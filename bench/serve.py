#!/usr/bin/env python3
"""bench/serve.py: scoring over gRPC on loopback, by an independent load generator (h2load).

1. Throughput: a closed loop, against bench/score on CPU 0 (in process; same model, same candidates, one thread).
2. Latency: an open loop at half of that. Requests are sent evenly and as independent users send them (Poisson); beside each
   stands what one server with this service time would answer had it nothing else to do ("ideal"), and how much of the scorer's
   CPUs others took: figures of tails are worth something where that is next to nothing.
3. What updates do to it: 200 candidates at half load, quiet and while updates arrive at full training speed, in turn, with
   the same times of sending. The updates were recorded before (bench/recorded.py): a trainer had the whole machine, learned a
   backlog and published what it learned as its settings say; it has ended when measuring begins, as in production it has
   a machine of its own. The very same records are replayed with the same distances in time, each window another piece of
   the recording. The table says how many versions and rows a second were due and were applied while requests came; the bench
   ends with exit 1 where the scorer fell behind, applied nothing, or has not what the trainer had, to the bit.

Who runs where: the scorer on CPU 0 (THREADS=2: on both), h2load in front of everything on CPU 1, there also, and only while
nobody else wants it (SCHED_IDLE), the broker that hands the records over and the copier that replays them, which read
its window before. The broker's data lie in memory where there are 8 GiB of it (the first line says), so that nothing of the
replay waits for a disk, and no request for the replay's; the scorer's own store is on disk as always. Of calls, CPU time and time
in line are sums over the scoring threads.

    make bench-serve            # tables and build/bench/serve.json; CHECK=1: exit 1 where a target is missed

Environment: BUILD; BENCH_SECONDS (10) of a run; RUNS (3), medians of so many; CANDIDATES ("1 50 200 1000"; without 200 no updates);
PRECISION (fp32; int8: what serving.precision offers); THREADS (1) that score (the open loop has one connection, so what a
second thread is worth there is what it does for the first one's requests); CONNECTIONS (4) of the closed loop and STREAMS (4) of
each; RATE: requests/s of 200 candidates in place of half
of the closed loop's, to compare scorers at the same load; WARM (60000) impressions learned before;
TRAINER: options of the trainer, separated by blanks (training.commit_events=2000: more and smaller versions than a trainer that
catches up makes at its default settings); BACKLOG (12000): impressions a second to learn from, more than the trainer does.
NEIGHBOUR=1: after that the situations in which the trainer is there (CPU 1, nice 10), learning a backlog while the scorer is held at its
version, and while it applies the updates: what the trainer's neighbourhood costs is in both, what applying costs only in the
second, and no target is set on either."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from h2load import closed, evenly, ideal, opened, poisson
from recorded import TARGET, Look, Recording, stand_back
from system import BUILD, CONFIG, LOAD, System, median, memory_for, percentile, report, wait_until

SECONDS = int(os.environ.get("BENCH_SECONDS", "10"))
RUNS = int(os.environ.get("RUNS", "3"))
CANDIDATES = [int(c) for c in os.environ.get("CANDIDATES", "1 50 200 1000").split()]
PRECISION = os.environ.get("PRECISION", "fp32")  # serving.precision
CONNECTIONS, STREAMS = (int(os.environ.get(k, "4")) for k in ("CONNECTIONS", "STREAMS"))
THREADS = int(os.environ.get("THREADS", "1"))
WARM = int(os.environ.get("WARM", "60000"))
TRAINER = os.environ.get("TRAINER", "").split()
BACKLOG = int(os.environ.get("BACKLOG", "12000"))
RATE = float(os.environ.get("RATE", "0"))
LAWS = (("evenly", evenly), ("Poisson", poisson))
COLUMNS = ("p50", "p99", "p999", "ideal50", "ideal99", "scorer_ms", "cpu_us", "line_us", "foreign", "late99", "late")
HEAD = "p50 ms | p99 ms | p99.9 ms | ideal p50 ms | ideal p99 ms | scorer's own mean ms | CPU us a call | in line for it us | others on its CPUs % | h2load late p99 ms | worst ms"

UPDATES = ("versions", "applied", "rows", "rows_applied", "took", "copy_late")
UPDATES_HEAD = "versions/s due | applied | rows/s due | applied | from due to applied, worst ms | to the broker, worst ms"


def in_process(candidates):
    """Requests a second of the Score handler alone, from the figures of `make bench-score`; None: not measured."""
    try:
        with open(os.path.join(BUILD, "bench/score.json")) as f:
            return 1e6 / json.load(f)["figures"]["us"]["sluice " + PRECISION][str(candidates)]
    except (OSError, KeyError, ValueError):
        return None


def figures(run):
    perfect = ideal(run.sent, run.cpu_ms / 1e3)
    return {"p50": percentile(run.ms, .5), "p99": percentile(run.ms, .99), "p999": percentile(run.ms, .999),
            "ideal50": percentile(perfect, .5), "ideal99": percentile(perfect, .99), "rate": run.rate, "late_s": run.late,
            "late99": percentile(run.late_ms, .99), "late": max(run.late_ms), "mean_ms": run.mean_ms,
            "scorer_ms": run.scorer_ms, "cpu_us": run.cpu_ms * 1e3, "line_us": run.line_ms * 1e3,
            "foreign": 100 * (run.foreign + run.stolen)}


def medians(runs):
    return {k: median([r[k] for r in runs]) for k in runs[0]}


def cells(f):
    return " | ".join("%.0f" % f[k] if k.endswith("us") else "%.2f" % f[k] for k in COLUMNS)


class Serve:
    def __init__(self, system):
        self.system = system
        windows = SECONDS * RUNS * len(LAWS) if 200 in CANDIDATES else SECONDS
        self.recording = Recording(system, WARM, windows, BACKLOG, TRAINER)
        self.follow(TARGET, self.recording.newest)

    def follow(self, topic, version):
        self.scorer = self.system.scorer(cpus="0" if THREADS == 1 else "0,1", sets=["kafka.delta_topic=" + topic])
        wait_until("the scorer", lambda: self.version() == version)

    def version(self):
        return self.scorer.metrics()["sluice_scorer_version"]

    def request(self, candidates):
        body = "%s/request-%d" % (self.system.dir, candidates)
        subprocess.check_call([LOAD, "request", CONFIG, str(candidates), "1", body])
        return body

    def at(self, rate, body, law, seed):
        return figures(opened(self.scorer, body, law(rate, SECONDS, seed), SECONDS))

    def quiet(self, rate, body, law, seed):
        with Look(self.scorer, []):
            return dict(self.at(rate, body, law, seed), **dict.fromkeys(UPDATES, 0))

    def replayed(self, rate, body, law, seed):
        window = self.recording.window(SECONDS)
        f = window.play(self.scorer, lambda: self.at(rate, body, law, seed))
        return dict(f, **window.figures())


class Neighbour:
    """The trainer on the load generator's CPU, and the scorer that follows it: the records that it has are the trainer's own,
    at the same offsets, so it goes on with the topic that they came from."""

    def __init__(self, serve):
        self.serve, self.system = serve, serve.system
        serve.scorer.stop()
        self.trainer = self.system.trainer(cpus="1", sets=TRAINER)
        os.setpriority(os.PRIO_PROCESS, self.trainer.p.pid, 10)
        wait_until("the trainer", lambda: self.trainer.metrics()["sluice_trainer_lag"] == 0)
        serve.follow("bench.deltas", self.trainer.metrics()["sluice_trainer_version"])
        self.hold = self.system.dir + "/sluice-scorer/HOLD"
        self.settle()

    def settle(self):
        """Until all is learned and the scorer has it."""
        wait_until("the trainer", lambda: self.trainer.metrics()["sluice_trainer_lag"] == 0)
        time.sleep(1)
        wait_until("the scorer", lambda: self.serve.version() == self.trainer.metrics()["sluice_trainer_version"])

    def while_learning(self, rate, body, law, seed, held):
        """At |rate| while the trainer learns. The backlog is there before, so that its producer disturbs nobody."""
        if held:
            open(self.hold, "w").close()
        try:
            os.kill(self.trainer.p.pid, signal.SIGSTOP)
            self.system.events(BACKLOG * (SECONDS + 2), seed=100 + seed, cpus="1")
        finally:
            os.kill(self.trainer.p.pid, signal.SIGCONT)
        time.sleep(1)
        v, m, t = self.serve.version(), self.trainer.metrics()["sluice_trainer_samples_total"], time.time()
        f = self.serve.at(rate, body, law, seed)
        after = self.trainer.metrics()
        f.update(versions=self.serve.version() - v, samples=(after["sluice_trainer_samples_total"] - m) / (time.time() - t))
        if after["sluice_trainer_lag"] == 0:
            print("note: the backlog of %d impressions was learned before the run was over; BACKLOG=n makes it longer" % (BACKLOG * (SECONDS + 2)))
        if held:
            os.unlink(self.hold)
        self.settle()
        return f


def half_load(row):
    return RATE if RATE and row["candidates"] == 200 else row["requests_per_second"] / 2


def throughput_and_latency(s, missed):
    print("| candidates | requests/s | candidates/s | in process | share |\n|---|---|---|---|---|")
    rows = []
    for n in CANDIDATES:
        body = s.request(n)
        closed(s.scorer, body, 1, CONNECTIONS, STREAMS)
        full = median([closed(s.scorer, body, SECONDS, CONNECTIONS, STREAMS).rate for _ in range(RUNS)])
        alone = in_process(n)
        share = full / alone if alone else None
        rows.append({"candidates": n, "requests_per_second": full, "in_process": alone, "share": share})
        print("| %d | %.0f | %.0f | %s | %s |" % (n, full, full * n, "%.0f" % alone if alone else "run make bench-score first",
                                                "%.0f %%" % (100 * share) if share else "-"), flush=True)
        if n == 200 and (share is None or share < .7):
            missed.append("200 candidates: %s of in-process throughput, 70 %% wanted" % ("%.0f %%" % (100 * share) if share else "unknown share"))
    print("\n| candidates | half load, sent | %s |\n|---|---|%s" % (HEAD, "---|" * len(COLUMNS)))
    for row in rows:
        body = s.request(row["candidates"])
        for name, law in LAWS:
            f = row[name] = medians([s.at(half_load(row), body, law, seed) for seed in range(RUNS)])
            print("| %d | %s | %s |" % (row["candidates"], name, cells(f)), flush=True)
            if row["candidates"] == 200 and f["p99"] >= 2:
                missed.append("200 candidates at half load, sent %s: p99 %.2f ms, below 2 wanted (ideal %.2f)" % (name, f["p99"], f["ideal99"]))
    return rows


def in_turn(situations, head, columns, body, rate):
    """Each situation once, then each again, so that all see the same machine: for each law, by turn and situation. Prints medians."""
    print("\n| 200 candidates at half load, sent | situation | %s | %s |\n|---|---|%s" % (HEAD, head, "---|" * (len(COLUMNS) + len(columns))))
    out = {}
    for name, law in LAWS:
        turns = out[name] = [{what: run(rate, body, law, seed) for what, run in situations.items()} for seed in range(RUNS)]
        for what in situations:
            f = medians([t[what] for t in turns])
            print("| %s | %s | %s | %s |" % (name, what, cells(f), " | ".join("%.1f" % f[c] if f[c] < 100 else "%.0f" % f[c] for c in columns)), flush=True)
    return out


def ratio(turns, what, to):
    return median([t[what]["p99"] / t[to]["p99"] for t in turns])


def updates(s, rate, missed):
    laws, out = in_turn({"quiet": s.quiet, "updates replayed": s.replayed}, UPDATES_HEAD, UPDATES, s.request(200), rate), []
    for name, turns in laws.items():
        r = ratio(turns, "updates replayed", "quiet")
        print("p99 while updates arrive at full training speed, sent %s: %.2f of quiet (median of %d)" % (name, r, RUNS), flush=True)
        out.append({"sent": name, "turns": turns, "ratio": r})
        if r > 1.1:
            missed.append("p99 while updates arrive, sent %s, is %.2f of p99 without, at most 1.1 wanted" % (name, r))
    return out


def neighbour(s, rate):
    n, out = Neighbour(s), []
    laws = in_turn({"quiet": lambda *a: dict(s.at(*a), versions=0, samples=0),
                    "trainer learns, scorer held": lambda *a: n.while_learning(*a, True),
                    "trainer learns, updates applied": lambda *a: n.while_learning(*a, False)},
                   "versions | samples/s", ("versions", "samples"), s.request(200), rate)
    for name, turns in laws.items():
        of = {"ratio": ratio(turns, "trainer learns, updates applied", "quiet"),
              "ratio_to_held": ratio(turns, "trainer learns, updates applied", "trainer learns, scorer held")}
        print("p99 beside a trainer, updates applied, sent %s: %.2f of quiet, %.2f of the held scorer (medians of %d)" % (
            name, of["ratio"], of["ratio_to_held"], RUNS), flush=True)
        out.append(dict(of, sent=name, turns=turns))
    return out


def main():
    if not shutil.which("h2load"):
        sys.exit("bench/serve needs h2load: apt-get install nghttp2-client")
    missed, memory = [], memory_for(8)
    os.sched_setaffinity(0, {1})  # the broker's threads, too; the scorer has CPU 0 for itself
    # A closed loop keeps the queue from ever being empty, which a scorer takes for overload (serving.max_wait).
    sets = ["serving.threads=%d" % THREADS, "serving.max_wait=0s", "serving.precision=" + PRECISION]
    with System(sets, broker_in=memory) as system:
        system.kafka("create", TARGET, "1")
        s = Serve(system)
        r = s.recording
        print("scorer: %s, threads %d, %d rows, version %d; %d s a run, medians of %d; the broker's data are %s" % (
            PRECISION, THREADS, s.scorer.metrics()["sluice_scorer_rows"], s.version(), SECONDS, RUNS,
            "in memory (%s)" % memory if memory else "on disk"))
        print("recorded: a trainer that learned %.0f samples/s\n" % r.samples, flush=True)
        with open(system.broker_dir + "/pid") as f:
            broker = int(f.read())
        stand_back(broker, True)
        rows = throughput_and_latency(s, missed)
        rate = [half_load(row) for row in rows if row["candidates"] == 200]
        after = updates(s, rate[0], missed) if rate else []
        beside = []
        if rate and os.environ.get("NEIGHBOUR") == "1":
            stand_back(broker, False)
            beside = neighbour(s, rate[0])
    report("serve", {"precision": PRECISION, "threads": THREADS, "cases": rows, "recorded_samples_per_second": r.samples, "updates": after,
                     "neighbour": beside}, missed)


if __name__ == "__main__":
    main()
