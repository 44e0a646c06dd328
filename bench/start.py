#!/usr/bin/env python3
"""bench/start.py: how long a scorer needs from its store on disk to a model in memory, without Kafka and gRPC.

A store of ROWS (1e7) rows of bench/mmoe24.yaml is made, then read RUNS (5) times into an empty model with all cores and
as often with one (the threads that read rows are as many as the process may use cores). Wall time, medians; the files are
in the system's cache. Run it by `make bench-start`."""
import json
import os
import subprocess
import tempfile

from system import BUILD, ROOT, report

ROWS, RUNS = float(os.environ.get("ROWS", "1e7")), os.environ.get("RUNS", "5")
TOOL = BUILD + "/bench/start"


def load(directory, cores):
    command = (["taskset", "-c", cores] if cores else []) + [TOOL, "load", directory, RUNS]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([TOOL, "make", d, str(ROWS)], cwd=ROOT, check=True)
        first = str(min(os.sched_getaffinity(0)))
        figures = []
        print("| cores | rows | s | CPU s | million rows a second |\n|---|---|---|---|---|")
        for name, cores in ((len(os.sched_getaffinity(0)), None), (1, first)):
            f = load(d, cores)
            figures.append(dict(f, cores=name))
            print("| %d | %d | %.2f | %.2f | %.2f |" % (name, f["rows"], f["wall_s"], f["cpu_s"], f["rows"] / f["wall_s"] / 1e6), flush=True)
        report("start", figures, [])


if __name__ == "__main__":
    main()
