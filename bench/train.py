#!/usr/bin/env python3
"""bench/train: the learner's step against its twin in PyTorch and against the machine's floor, in the same run.

    make bench-train            # table and build/bench/train.json; CHECK=1: exit 1 where a target is missed

Both learn the same batches of a file from the same first parameters; losses are compared batch by batch. ROUNDS times
everybody learns WARM + TIMED batches in turn; a figure is the median over rounds of the median step. One core is
CPU time, so that a busy machine disturbs little; two cores are wall time and want a quiet machine.
Environment: BUILD, ROUNDS (3), SEED (1), LAWS ("zipf uniform"), QUICK=1 (no bf16, no compiled twin).
"""
import json
import os
import subprocess
import sys
from statistics import median

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from system import BUILD, ROOT, report  # noqa: E402

FOLDER = os.path.join(BUILD, "bench")
TOOL = os.path.join(FOLDER, "train")
PYTHON = os.path.join(FOLDER, "venv/bin/python")
WARM, TIMED = 5, 15
ROUNDS = int(os.environ.get("ROUNDS", 3))
QUICK = os.environ.get("QUICK")
BATCH = 512
# Largest relative difference of a batch's loss: fp32 sums in another order; bf16 has 8 bits.
CLOSE = {"fp32": 1e-3, "bf16": 2e-2}


def call(command, threads=1):
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false")
    p = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if p.returncode:
        return None, p.stderr.strip().split("\n")[-1]
    return json.loads(p.stdout), ""


def need(command, threads=1):
    result, why = call(command, threads)
    if result is None:
        sys.exit(f"bench-train: {' '.join(command)}: {why}")
    return result


def twin(data, threads, *options):
    return [PYTHON, os.path.join(ROOT, "bench/peers/train_torch.py"), data, str(WARM), str(TIMED), "--threads",
            str(threads), *options]


def contenders(data):
    own = [TOOL, "run", data, str(WARM), str(TIMED)]
    yield "sluice, 1 core", own, 1, "fp32"
    yield "twin fp32, 1 core", twin(data, 1), 1, "fp32"
    yield "twin fp32, sorted ids, 1 core", twin(data, 1, "--rows", "unique"), 1, "fp32"
    if not QUICK:
        yield "twin bf16 autocast, 1 core", twin(data, 1, "--precision", "bf16"), 1, "bf16"
        yield "twin fp32 compiled, 1 core", twin(data, 1, "--compile"), 1, "fp32"
    yield "sluice, 2 cores", own + ["training.threads=2"], 2, "fp32"
    yield "twin fp32, 2 cores", twin(data, 2), 2, "fp32"


def check_losses(name, precision, losses, reference):
    worst = max(abs(a - b) / abs(b) for a, b in zip(losses, reference))
    if worst > CLOSE[precision]:
        sys.exit(f"bench-train: {name}: a batch's loss differs by {worst:.2g}; this is no twin")
    return worst


def compare(distribution):
    data = os.path.join(FOLDER, f"train-{distribution}.bin")
    subprocess.run([TOOL, "make", distribution, os.environ.get("SEED", "1"), str(WARM + TIMED), data], cwd=ROOT, check=True)
    times, floors, losses, own, differs, failed = {}, [], None, None, {}, {}
    for _ in range(ROUNDS):
        floors.append(need([TOOL, "floor", "1"]))
        for name, command, threads, precision in contenders(data):
            if name in failed:
                continue
            result, why = call(command, threads)
            if result is None:
                failed[name] = why
                continue
            if name.startswith("sluice"):
                own = own or result["losses"]
                if result["losses"] != own:
                    sys.exit(f"bench-train: {name}: other losses than with one thread")
            times.setdefault(name, []).append(result["cpu_ms" if threads == 1 else "wall_ms"])
            losses = losses or result["losses"]
            differs[name] = check_losses(name, precision, result["losses"], losses)
    if not any(n.startswith("twin") for n in times):
        sys.exit(f"bench-train: no twin ran: {failed}")
    return {n: median(t) for n, t in times.items()}, {k: median([f[k] for f in floors]) for k in floors[0]}, differs, failed


def main():
    figures, missed = {}, []
    for distribution in os.environ.get("LAWS", "zipf uniform").split():
        times, floor, differs, failed = compare(distribution)
        own = times["sluice, 1 core"]
        best_fp32 = min(t for n, t in times.items() if n.startswith("twin fp32") and n.endswith("1 core"))
        best = min(t for n, t in times.items() if n.startswith("twin") and n.endswith("1 core"))
        share = floor["floor_ms"] / own
        print(f"\n{distribution} ids, batch {BATCH}, median of {ROUNDS} rounds of {TIMED} steps")
        print(f"{'':34}{'ms a step':>10}{'samples/s':>11}{'of sluice':>11}{'loss differs':>14}")
        for name, ms in times.items():
            print(f"{name:34}{ms:10.2f}{BATCH / ms * 1e3:11.0f}{own / ms:10.2f}x{differs[name]:14.1e}")
        if "sluice, 2 cores" in times:
            print("two cores, wall time: sluice is %.2f times as fast as its twin" % (times["twin fp32, 2 cores"] / times["sluice, 2 cores"])
                  if "twin fp32, 2 cores" in times else "two cores: the twin did not run")
        for name, why in failed.items():
            print(f"{name:34}  does not run here: {why}")
        print(f"{'floor: products ' + format(floor['gflop'], '.2f') + ' GFLOP':34}{floor['products_ms']:10.2f}")
        for key in ("openblas_fp32_ms", "sluice_fp32_ms", "onednn_fp32_ms", "onednn_bf16_ms"):
            if key in floor:
                print(f"{'  all in ' + key[:-3]:34}{floor[key]:10.2f}   {floor['gflop'] / floor[key] * 1e3:.1f} GFLOP/s")
        print(f"{'floor: memory, ' + format(floor['bytes'] / 1e6, '.1f') + ' MB':34}{floor['memory_ms']:10.2f}   "
              f"{floor['bandwidth'] / 1e9:.1f} GB/s")
        print(f"{'floor':34}{floor['floor_ms']:10.2f}   sluice reaches {100 * share:.0f} % of its speed")
        amx = "onednn_bf16_ms" in floor
        goals = [("fp32 twin", best_fp32 / own, 10 if amx else 1.5), ("share of the floor's speed", share, .5)]
        if amx:
            goals.append(("best twin", best / own, 4))
        for what, value, target in goals:
            if value < target:
                missed.append(f"{distribution}: {what} {value:.2f}, target {target}")
        figures[distribution] = {"ms": times, "floor": floor, "loss_differs": differs, "failed": failed,
                                 "ratio_fp32": best_fp32 / own, "ratio_best": best / own, "share_of_floor": share}
    report("train", figures, missed)


if __name__ == "__main__":
    main()
