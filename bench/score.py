#!/usr/bin/env python3
"""bench/score: scoring in process on one core against ONNX Runtime, fp32 and int8, from the same parameters.

    make bench-score            # table and build/bench/score.json; CHECK=1: exit 1 where a target is missed

Sluice's call is the whole Score method, from a request's bytes to an answer's; the peer's begins with ids as numbers.
All run in turn, ROUNDS times; a figure is the median over rounds of the median call, in CPU time. Probabilities are
compared with those of sluice fp32: ONNX Runtime's fp32 must agree, what int8 costs is shown of both. On a machine that
others use, too, the median call tells of them as well: the fastest call of all is printed beside it.
Environment: BUILD, ROUNDS (3), RUNS (31 calls a size).
"""
import json
import os
import subprocess
import sys
from statistics import median

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from system import BUILD, ROOT, report  # noqa: E402

FOLDER = os.path.join(BUILD, "bench")
PYTHON = os.path.join(FOLDER, "venv/bin/python")
FILE = os.path.join(FOLDER, "score.bin")
RUNS = os.environ.get("RUNS", "31")
ROUNDS = int(os.environ.get("ROUNDS", 3))
CLOSE = {"sluice fp32": 0, "sluice int8": 1e-2, "onnxruntime fp32": 1e-4, "onnxruntime int8": 1}
OURS = ["sluice fp32", "sluice int8"]
# How many times as fast at 200 candidates: the faster of ours against fp32, integers against integers.
TARGETS = [("onnxruntime fp32", OURS, 5), ("onnxruntime int8", OURS[1:], 2)]


def run(command):
    p = subprocess.run(command, cwd=ROOT, env=dict(os.environ, OMP_NUM_THREADS="1"), stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True)
    if p.returncode:
        sys.exit(f"bench-score: {' '.join(command)}: {p.stderr.strip()}")
    return json.loads(p.stdout)


def difference(a, b):
    return max(abs(x - y) for p, q in zip(a, b) for x, y in zip(p, q))


def main():
    peer = os.path.join(ROOT, "bench/peers/score_onnx.py")
    contenders = {"sluice fp32": [os.path.join(FOLDER, "score"), FILE, RUNS, "fp32"],
                  "sluice int8": [os.path.join(FOLDER, "score"), FILE, RUNS, "int8"],
                  "onnxruntime fp32": [PYTHON, peer, FILE, RUNS, "fp32"],
                  "onnxruntime int8": [PYTHON, peer, FILE, RUNS, "int8"]}
    times, fewest, differs, own = {n: [] for n in contenders}, {}, {}, None
    for _ in range(ROUNDS):
        for name, command in contenders.items():
            result = run(command)
            own = own or result["conditional"]
            differs[name] = difference(result["conditional"], own)
            if differs[name] > CLOSE[name]:
                sys.exit(f"bench-score: {name}: a probability differs by {differs[name]:.2g}; this is not the same model")
            times[name].append(result["us"])
            fewest[name] = min(fewest.get(name, 1e9), result["fewest"]["200"])
    sizes = list(times[OURS[0]][0])
    us = {n: {s: median([t[s] for t in ts]) for s in sizes} for n, ts in times.items()}
    print(f"1 user, N candidates, us of one core, median of {ROUNDS} rounds of {RUNS} calls\n")
    print(f"{'':20}" + "".join(f"{s:>12}" for s in sizes) + f"{'p differs':>12}")
    for name in us:
        print(f"{name:20}" + "".join(f"{us[name][s]:12.0f}" for s in sizes) + f"{differs[name]:12.1e}")
    missed = []
    for name, ours, target in TARGETS:
        best = min(ours, key=lambda n: us[n]["200"])
        ratio = us[name]["200"] / us[best]["200"]
        quiet = fewest[name] / fewest[best]
        print(f"{'':20}200 candidates: {best} is {ratio:.2f} times as fast as {name}; by the fastest call of each {quiet:.2f} times")
        if ratio < target:
            missed.append(f"{best} {ratio:.2f} times {name}, target {target}")
    print(f"{'':20}fastest calls with 200: " + ", ".join(f"{n} {fewest[n]:.0f}" for n in us))
    report("score", {"us": us, "fewest": fewest, "differs": differs}, missed)


if __name__ == "__main__":
    main()
