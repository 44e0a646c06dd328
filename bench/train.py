#!/usr/bin/env python3
"""bench/train: the learner's step against its twin in PyTorch and against the machine's floor, in the same run.

    make bench-train            # table and build/bench/train.json; CHECK=1: exit 1 where a target is missed

Both learn the same batches of a file from the same first parameters; losses are compared batch by batch. ROUNDS times
everybody learns WARM + TIMED batches in turn; a figure is the median over rounds of the median step. One core is
CPU time, so that a busy machine disturbs little; two cores are wall time and want a quiet machine.
With training.precision bf16 sluice learns them too: timed where the machine has a unit for it, and by rounding, untimed, where
it has none. CURVE batches (300) then show what bf16 does to the loss: means of 50 batches and AUC against fp32.
Environment: BUILD, ROUNDS (3), SEED (1), LAWS ("zipf uniform"), CURVE (0: none), QUICK=1 (no compiled twin, no curve, no bf16
where the machine has no unit for it).
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
CURVE = 0 if QUICK else int(os.environ.get("CURVE", 300))
MEANS = 50  # batches of one point of the curve: one batch of 512 says its loss only to some percent
BF16 = ["training.precision=bf16"]


def flags():
    with open("/proc/cpuinfo") as f:
        return next((line.split() for line in f if line.startswith("flags")), [])


AMX = "amx_bf16" in flags()


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


def learn(data, warm, timed, *sets):
    return [TOOL, "run", data, str(warm), str(timed), *sets]


def contenders(data, unit):
    own = learn(data, WARM, TIMED)
    yield "sluice, 1 core", own, 1, "fp32"
    if unit:
        yield "sluice bf16, 1 core", own + BF16, 1, "bf16"
    yield "twin fp32, 1 core", twin(data, 1), 1, "fp32"
    yield "twin fp32, sorted ids, 1 core", twin(data, 1, "--rows", "unique"), 1, "fp32"
    if unit or not QUICK:
        yield "twin bf16 autocast, 1 core", twin(data, 1, "--precision", "bf16"), 1, "bf16"
    if not QUICK:
        yield "twin fp32 compiled, 1 core", twin(data, 1, "--compile"), 1, "fp32"
    yield "sluice, 2 cores", own + ["training.threads=2"], 2, "fp32"
    if unit:
        yield "sluice bf16, 2 cores", own + BF16 + ["training.threads=2"], 2, "bf16"
    yield "twin fp32, 2 cores", twin(data, 2), 2, "fp32"


def check_losses(name, precision, losses, reference):
    worst = max(abs(a - b) / abs(b) for a, b in zip(losses, reference))
    if worst > CLOSE[precision]:
        sys.exit(f"bench-train: {name}: a batch's loss differs by {worst:.2g}; this is no twin")
    return worst


def curve(distribution):
    """What bf16 changes over CURVE batches: largest difference of a point of the loss curve, and of AUC."""
    data = os.path.join(FOLDER, f"train-{distribution}-curve.bin")
    subprocess.run([TOOL, "make", distribution, os.environ.get("SEED", "1"), str(CURVE), data], cwd=ROOT, check=True)
    fp32, bf16 = (need(learn(data, 0, CURVE, *sets)) for sets in ([], BF16))
    os.remove(data)
    if fp32["losses"] == bf16["losses"]:
        sys.exit("bench-train: bf16 has the losses of fp32: nothing was rounded")
    points = [[sum(r["losses"][i:i + MEANS]) / MEANS for i in range(0, CURVE - MEANS + 1, MEANS)] for r in (fp32, bf16)]
    return {"batches": CURVE, "products": bf16["backend"], "fp32": points[0], "bf16": points[1],
            "loss": max(abs(a - b) for a, b in zip(*points)), "auc_fp32": fp32["auc"], "auc_bf16": bf16["auc"],
            "auc": abs(fp32["auc"] - bf16["auc"])}


def compare(distribution, unit):
    data = os.path.join(FOLDER, f"train-{distribution}.bin")
    subprocess.run([TOOL, "make", distribution, os.environ.get("SEED", "1"), str(WARM + TIMED), data], cwd=ROOT, check=True)
    times, floors, losses, own, differs, failed, products = {}, [], None, {}, {}, {}, {}
    for _ in range(ROUNDS):
        floors.append(need([TOOL, "floor", "1"]))
        for name, command, threads, precision in contenders(data, unit):
            if name in failed:
                continue
            result, why = call(command, threads)
            if result is None:
                failed[name] = why
                continue
            if name.startswith("sluice"):
                products[precision] = result["backend"]
                if result["losses"] != own.setdefault(precision, result["losses"]):
                    sys.exit(f"bench-train: {name}: other losses than with one thread")
            times.setdefault(name, []).append(result["cpu_ms" if threads == 1 else "wall_ms"])
            losses = losses or result["losses"]
            differs[name] = check_losses(name, precision, result["losses"], losses)
    if not any(n.startswith("twin") for n in times):
        sys.exit(f"bench-train: no twin ran: {failed}")
    return {n: median(t) for n, t in times.items()}, {k: median([f[k] for f in floors]) for k in floors[0]}, differs, failed, products


def has_unit():
    data = os.path.join(FOLDER, "train-probe.bin")
    subprocess.run([TOOL, "make", "zipf", "1", "1", data], cwd=ROOT, check=True)
    unit = need(learn(data, 0, 1))["bf16_unit"]
    os.remove(data)
    os.remove(data + ".json")
    return unit


def main():
    figures, missed = {}, []
    unit = has_unit()
    if AMX and not unit:
        sys.exit("bench-train: this CPU has AMX, but oneDNN cannot be loaded: apt-get install libdnnl2")
    for distribution in os.environ.get("LAWS", "zipf uniform").split():
        times, floor, differs, failed, products = compare(distribution, unit)
        own = times["sluice, 1 core"]
        fastest = min(own, times.get("sluice bf16, 1 core", own))
        best_fp32 = min(t for n, t in times.items() if n.startswith("twin fp32") and n.endswith("1 core"))
        best = min(t for n, t in times.items() if n.startswith("twin") and n.endswith("1 core"))
        share = floor["floor_ms"] / fastest
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
        if floor["floor_fp32_ms"] > floor["floor_ms"]:
            print(f"{'floor in fp32':34}{floor['floor_fp32_ms']:10.2f}   sluice in fp32 reaches {100 * floor['floor_fp32_ms'] / own:.0f} %")
        print("products of sluice: " + "; ".join(sorted(products.values())))
        goals = [("fp32 alone against the fp32 twin", best_fp32 / own, 1.5), ("share of the floor's speed", share, .5)]
        if AMX:
            bf16 = times["sluice bf16, 1 core"]
            goals += [("bf16 against the fp32 twin", best_fp32 / bf16, 10), ("bf16 against the best twin", best / bf16, 4)]
        for what, value, target in goals:
            if value < target:
                missed.append(f"{distribution}: {what} {value:.2f}, target {target}")
        bf16_curve = curve(distribution) if CURVE else None
        if bf16_curve:
            print(f"bf16 against fp32 over {CURVE} batches ({bf16_curve['products']}): loss, means of {MEANS}, within "
                  f"{bf16_curve['loss']:.1e}; AUC {bf16_curve['auc_bf16']:.5f} against {bf16_curve['auc_fp32']:.5f}")
            missed += [f"{distribution}: {what} of bf16 {bf16_curve[key]:.1e} from fp32, target 5e-4"
                       for what, key in (("loss", "loss"), ("AUC", "auc")) if bf16_curve[key] > 5e-4]
        figures[distribution] = {"ms": times, "products": products, "amx": AMX, "bf16_unit": unit, "bf16_curve": bf16_curve, "floor": floor, "loss_differs": differs, "failed": failed,
                                 "ratio_fp32": best_fp32 / fastest, "ratio_best": best / fastest, "share_of_floor": share}
    report("train", figures, missed)


if __name__ == "__main__":
    main()
