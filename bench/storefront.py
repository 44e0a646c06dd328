#!/usr/bin/env python3
"""bench/storefront.py: what Sluice learns from the recorded shop, one pass, predicted on arrival.

Replays ../shared/data/storefront (or --data DIR) under several configs with build/bin/sluice-replay, prints a Markdown table,
writes every report to build/bench/storefront.json. With CHECK=1 in the environment it exits 1 when a target is missed.
Run it by `make bench-storefront`; docs/evaluation.md quotes its output."""
import argparse
import json
import os
import subprocess
import sys
import tempfile

ORACLE = ["training.label_policy=oracle", "training.batch_size=512", "training.dense_every=512", "training.max_batch_delay=1d"]
MMOE = ["model.architecture=mmoe", "model.experts=4", "model.expert_layers=[128]", "model.towers=[64]"]
# Without the wide part the rows and the network have to carry everything: the rates of the data's README.
NARROW = ["model.wide=false", "optimizer.rows.rate=0.05", "optimizer.dense.rate=0.001"]

# name, overrides, targets: CTR AUC, CTCVR AUC, and whether both calibrations must lie in .97 .. 1.03
RUNS = [
    ("oracle esmm", ORACLE + NARROW, (.713, .703, False)),
    ("oracle mmoe", ORACLE + MMOE + NARROW, (.713, .703, False)),
    ("oracle esmm + wide", ORACLE, (.7165, .713, False)),
    ("oracle mmoe + wide", ORACLE + MMOE, (.7165, .713, False)),
    ("fnw esmm + wide (as shipped)", [], (.7165, .714, True)),
    ("fnw mmoe + wide", MMOE, None),
    ("window esmm + wide", ["training.label_policy=window"], None),
]

# --sensitivity: one change at a time on the shipped config.
CHANGES = [
    ("as shipped", []),
    ("batch closes after 1 m", ["training.max_batch_delay=1m"]),
    ("batch closes after 1 s", ["training.max_batch_delay=1s"]),
    ("dense rate .001", ["optimizer.dense.rate=0.001"]),
    ("dense rate .001, batch closes after 1 s", ["optimizer.dense.rate=0.001", "training.max_batch_delay=1s"]),
    ("wide rate .05", ["optimizer.wide.rate=0.05"]),
    ("wide rate .1", ["optimizer.wide.rate=0.1"]),
    ("towers of one layer of 64", ["model.towers=[64]"]),
    ("another seed", ["model.seed=2"]),
]


# --precision: int8: the same model, predicted in fp32 and as a scorer with serving.precision int8 would (trainer/as_served.h);
# bf16: models trained in fp32 and with training.precision bf16.
PRECISIONS = [
    ("fnw esmm + wide (as shipped)", []),
    ("fnw mmoe + wide, experts 128-64", MMOE + ["model.expert_layers=[128,64]"]),
    ("oracle esmm", ORACLE + NARROW),
    ("oracle mmoe, experts 128-64", ORACLE + MMOE + NARROW + ["model.expert_layers=[128,64]"]),
]
STEPS = [("click", "impression"), ("cart", "impression"), ("purchase", "impression")]


def replay(binary, config, data, sets):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [binary, "--config", config, "--data", data, "--eval-from", "2020-12-05T00:00:00Z", "--json", out.name]
        for s in sets:
            command += ["--set", s]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit("%s\n%s" % (" ".join(command), done.stderr[-2000:]))
        return json.load(open(out.name))


def compare_precisions(binary, config, data, only, other, seeds):
    key = "training" if other == "bf16" else "serving"
    print("| config | seed | precision | " + " | ".join("%s %s" % (step, what) for step, _ in STEPS for what in ("AUC", "NE", "calib.")) +
          " |\n|---|---|---|" + "---|" * 3 * len(STEPS))
    reports, missed = [], []
    for name, sets in PRECISIONS:
        if only and only not in name:
            continue
        moves = []
        for seed in range(1, seeds + 1):
            digests, auc = [], []
            for precision in ("fp32", other):
                r = replay(binary, config, data, sets + ["model.seed=%d" % seed, "%s.precision=%s" % (key, precision)])
                m = {(x["step"], x["space"]): x for x in r["metrics"]}
                print("| %s | %d | %s | %s |" % (name, seed, precision, " | ".join(
                    "%.5f | %.5f | %.4f" % (m[s]["auc"], m[s]["ne"], m[s]["calibration"]) for s in STEPS)), flush=True)
                reports.append({"config": name, "seed": seed, "precision": precision, "sets": sets, "report": r})
                digests.append(r["digest"])
                auc.append([m[s]["auc"] for s in STEPS])
            if key == "serving" and len(set(digests)) > 1:
                sys.exit("%s: what is learned depends on serving.precision: %s" % (name, " and ".join(digests)))
            if key == "training" and len(set(digests)) == 1:
                sys.exit("%s: bf16 learned the model of fp32: nothing was rounded" % name)
            moves.append([b - a for a, b in zip(*auc)])
        mean = [sum(m) / seeds for m in zip(*moves)]
        print("%s: AUC moves by %s on average of %d seeds" % (name, ", ".join("%s %+.5f" % (s[0], x) for s, x in zip(STEPS, mean)), seeds), flush=True)
        missed += ["%s: AUC of %s moves by %+.5f" % (name, s[0], x) for s, x in zip(STEPS, mean) if abs(x) > 5e-4]
    return reports, missed


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", default=os.path.join(root, "../shared/data/storefront"))
    ap.add_argument("--build", default=os.path.join(root, "build"))
    ap.add_argument("--sensitivity", action="store_true", help="one change at a time on the shipped config instead")
    ap.add_argument("--precision", nargs="?", const="int8", choices=["int8", "bf16", "1"],
                    help="beside fp32, what a scorer in int8 would have predicted, or what is learned in bf16")
    ap.add_argument("--seeds", type=int, default=1, help="with --precision: models of so many seeds")
    ap.add_argument("--only", help="run only configs whose name contains this")
    a = ap.parse_args()
    if not os.path.isdir(a.data):
        sys.exit("no recorded events at %s: name them with --data DIR" % a.data)
    if a.precision:
        reports, missed = compare_precisions(os.path.join(a.build, "bin/sluice-replay"), os.path.join(root, "examples/storefront.yaml"), a.data, a.only,
                                             "int8" if a.precision == "1" else a.precision, a.seeds)
        os.makedirs(os.path.join(a.build, "bench"), exist_ok=True)
        json.dump(reports, open(os.path.join(a.build, "bench/storefront-precision.json"), "w"), indent=1)
        print("\nAUC within 5e-4 of fp32: " + ("no: " + "; ".join(missed) if missed else "yes"))
        return 1 if missed and os.environ.get("CHECK") else 0
    reports, missed = [], []
    print("| config | CTR AUC | CTR NE | CTR calib. | CTCVR AUC | CTCVR NE | CTCVR calib. | CVR AUC | s |\n|---|---|---|---|---|---|---|---|---|")
    for name, sets, target in [c + (None,) for c in CHANGES] if a.sensitivity else RUNS:
        if a.only and a.only not in name:
            continue
        r = replay(os.path.join(a.build, "bin/sluice-replay"), os.path.join(root, "examples/storefront.yaml"), a.data, sets)
        m = {(x["step"], x["space"]): x for x in r["metrics"]}
        ctr, ctcvr, cvr = m["click", "impression"], m["cart", "impression"], m["cart", "click"]
        print("| %s | %.4f | %.4f | %.3f | %.4f | %.4f | %.3f | %.3f | %.0f |" % (
            name, ctr["auc"], ctr["ne"], ctr["calibration"], ctcvr["auc"], ctcvr["ne"], ctcvr["calibration"], cvr["auc"],
            r["seconds"]), flush=True)
        reports.append({"config": name, "sets": sets, "report": r})
        if target:
            off = [k for k, v in (("CTR AUC", ctr["auc"] < target[0]), ("CTCVR AUC", ctcvr["auc"] < target[1])) if v]
            if target[2] and not all(.97 <= x["calibration"] <= 1.03 for x in (ctr, ctcvr)):
                off.append("calibration")
            missed += ["%s: %s" % (name, k) for k in off]
    os.makedirs(os.path.join(a.build, "bench"), exist_ok=True)
    out = "bench/storefront-sensitivity.json" if a.sensitivity else "bench/storefront.json"
    json.dump(reports, open(os.path.join(a.build, out), "w"), indent=1)
    if a.sensitivity:
        return 0
    print("\ntargets: " + ("missed: " + "; ".join(missed) if missed else "all reached"))
    return 1 if missed and os.environ.get("CHECK") else 0


if __name__ == "__main__":
    sys.exit(main())
