#!/usr/bin/env python3
"""A real sluice-scorer is asked for several times what it can score.

usage: overload.py [--build DIR] [--seconds S] [--times N] [--candidates N] [--measure]

One scoring thread, a model of bench/mmoe24.yaml. First its capacity (closed loop), half of that (open loop: what a
good day looks like), then N times the capacity by the clock, a part of the calls with a deadline that passes while
they wait, then half again.

Always: each call got one answer, OK, RESOURCE_EXHAUSTED or DEADLINE_EXCEEDED; what was not answered OK was not scored
(the scorer's own counter); server and clients count the same; memory is bounded; afterwards all is well again.
With --measure also what depends on a quiet machine: the share refused is about the excess, what is accepted is
answered within serving.max_wait and its scoring, and throughput stays."""
import argparse
import math
import os
import subprocess
import tempfile

from scorer import CONFIG, MEMORY_IS_JUDGED, ROOT, Scorer, check, open_load, verdict

MAX_WAIT_MS = 50
CONNECTIONS = 16
SHORT_EVERY = 10
DEADLINE_MS = 10000
MIB = 1 << 20

parser = argparse.ArgumentParser()
parser.add_argument("--build", default=os.path.join(ROOT, "build"))
parser.add_argument("--seconds", type=float, default=20)
parser.add_argument("--times", type=float, default=3)
parser.add_argument("--candidates", type=int, default=50)
parser.add_argument("--measure", action="store_true")
args = parser.parse_args()


def calls(metrics, code):
    return metrics.get('sluice_grpc_calls_total{method="/sluice.v1.Scoring/Score",code="%s"}' % code, 0)


def scored(metrics):
    return metrics.get("sluice_score_candidates_total", 0) / args.candidates


def ask(scorer, request, rate, seconds, connections, short_every=0, short_ms=0):
    """One run of open_load and what must hold of every one."""
    before = scorer.metrics()
    got = open_load(args.build, scorer, request, rate, seconds, connections, DEADLINE_MS, short_every, short_ms)
    after = scorer.metrics()
    check(got["sent"] > 0 and got["unanswered"] == got["doubled"] == got["other"] == 0,
          "%d calls, each with one answer: %d OK, %d RESOURCE_EXHAUSTED, %d DEADLINE_EXCEEDED" % (
              got["sent"], got["ok"], got["exhausted"], got["expired"]))
    check(scored(after) - scored(before) == got["ok"], "as many scored as were answered OK: %d" % (scored(after) - scored(before)))
    for key, code in (("ok", "OK"), ("exhausted", "RESOURCE_EXHAUSTED"), ("expired", "DEADLINE_EXCEEDED")):
        said = calls(after, code) - calls(before, code)
        check(said == got[key], "the scorer counts the same %s: %d" % (code, said))
    return got


def tell(name, got, seconds):
    print("%-12s %8.0f offered/s %8.0f OK/s   OK p50 %.2f ms p99 %.2f ms max %.2f ms   refused p99 %.2f ms   client's lag p99 %.2f ms" % (
        name, got["sent"] / seconds, got["ok"] / seconds, got["ok_p50_ms"], got["ok_p99_ms"], got["ok_max_ms"],
        got["exhausted_p99_ms"], got["lag_p99_ms"]), flush=True)


def measured(capacity, half, over, service_ms):
    wanted = 1 - 1 / args.times
    share = 1 - over["ok"] / over["sent"]
    check(abs(share - wanted) < .12, "not scored: %.0f %% of %.1f times the capacity, the excess is %.0f %%" % (
        100 * share, args.times, 100 * wanted))
    check(over["ok"] / args.seconds >= .8 * capacity, "throughput under overload is %.0f %% of capacity (80 %% wanted)" % (
        100 * over["ok"] / args.seconds / capacity))
    bound = MAX_WAIT_MS + 3 * service_ms + over["lag_p99_ms"]
    check(over["ok_p99_ms"] <= bound, "p99 of what was accepted is %.1f ms, at half load %.1f ms; at most %.1f ms wanted" % (
        over["ok_p99_ms"], half["ok_p99_ms"], bound))


def main():
    with tempfile.TemporaryDirectory(prefix="sluice-overload.") as work:
        request = os.path.join(work, "request")
        subprocess.check_call([os.path.join(args.build, "bench/load"), "request", CONFIG, str(args.candidates), "1", request])
        scorer = Scorer(args.build, CONFIG, work, ["serving.threads=1", "serving.max_wait=%dms" % MAX_WAIT_MS])
        try:
            run(scorer, request)
        finally:
            scorer.kill()
    verdict()


def run(scorer, request):
    s = args.seconds
    ask(scorer, request, 0, min(s, 2), 2)
    quiet_mib = scorer.peak_mib()
    full = ask(scorer, request, 0, s, 2)
    capacity = full["ok"] / s
    tell("capacity", full, s)
    half = ask(scorer, request, capacity / 2, s, CONNECTIONS)
    tell("half", half, s)
    short_ms = max(2, math.ceil(2e3 / capacity))  # time enough to be taken, not to be reached under overload
    over = ask(scorer, request, capacity * args.times, s, CONNECTIONS, SHORT_EVERY, short_ms)
    tell("overload", over, s)
    check(over["exhausted"] > 0, "work was refused")
    # On a machine so slow that they live longer than max_wait, what waits is refused before it can expire.
    check(over["short_expired"] > 0 or short_ms >= MAX_WAIT_MS, "%d of %d calls with %d ms to live were answered DEADLINE_EXCEEDED" % (
        over["short_expired"], over["short"], short_ms))
    again = ask(scorer, request, capacity / 2, s, CONNECTIONS)
    tell("half again", again, s)
    grown = scorer.peak_mib() - quiet_mib
    check(grown < 96 or not MEMORY_IS_JUDGED, "memory rose by %.0f MiB above %.0f MiB" % (grown, quiet_mib))
    if args.measure:
        measured(capacity, half, over, 1e3 / capacity)
        before, after = (100 * g["ok"] / g["sent"] for g in (half, again))
        check(after >= before - 5, "half load is as well as before: %.1f %% OK, before %.1f %%" % (after, before))
    check(scorer.metrics().get("sluice_grpc_calls_in_flight") == 0, "no call is left")
    check(scorer.stop() == 0, "the scorer ends well")


main()
