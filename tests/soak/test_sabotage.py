#!/usr/bin/env python3
"""tests/soak/test_sabotage.py [BUILD [DEFECT...]]: small soaks of a trainer with a defect to order (spoil.c). Each has to be found, by the
evidence that is there for it; the same trainer without a defect has to pass. `make soak-sabotage` runs it, a few minutes.

How many kills a defect needs: a wrong offset tells only when a trainer starts from the version that has it, so if one of
N versions has, K kills miss it with the probability (1 - 1/N)^K: of one in nine, 39 % after 8 kills, 1 % after 39,
6e-11 after 200. What stands in the store for good (join records, counters, letters) tells without any kill; a row that
was written wrong is written anew as long as its trainer lives: if it was not, the next start refuses it."""
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
KILLS, EVENTS, SEED = 4, 8000, 12

# defect, one of how many, what has to be found. Nothing may be found that is not there: of a wrong row no event is lost.
CASES = (
    ("none", 1, lambda lost, doubled, digest, said: not lost and not doubled and digest == "equal"),
    ("offset-low", 2, lambda lost, doubled, digest, said: doubled > 0),
    ("offset-high", 2, lambda lost, doubled, digest, said: lost > 0),
    ("letter", 20, lambda lost, doubled, digest, said: lost > 0 and "WRONG: no dead letter for" in said),
    ("label", 50, lambda lost, doubled, digest, said: not lost and not doubled and digest == "different"),
    # The next start refuses by the commit's sum, with the version.
    ("float", 20, lambda lost, doubled, digest, said: digest == "none" and "the rows are not those that version" in said),
)
LINE = re.compile(r"^kills=\d+ events=\d+ lost=(\d+) doubled=(\d+) digest=(\w+)$", re.M)


def main():
    build = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "../../build")
    missed = 0
    for defect, every, found in CASES:
        if len(sys.argv) > 2 and defect not in sys.argv[2:]:
            continue
        work = os.path.join(build, "tests/work/sabotage-%d" % os.getpid())
        done = subprocess.run([sys.executable, os.path.join(HERE, "soak_kill.py"), "--build", build, "--work", work, "--kills", str(KILLS),
                               "--events", str(EVENTS), "--seed", str(SEED), "--trainer", os.path.join(build, "tests/spoiled_trainer")],
                              env=dict(os.environ, SLU_SPOIL=defect, SLU_SPOIL_EVERY=str(every)), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        if done.returncode == 77:
            return 77
        line = LINE.search(done.stdout)
        account = (int(line[1]), int(line[2]), line[3]) if line else (0, 0, "none")
        good = found(*account, done.stderr) and (done.returncode == 0) == (defect == "none")
        missed += not good
        wrong = [text.split("] ", 1)[-1] for text in done.stderr.splitlines() if "WRONG" in text or "FAILED" in text]
        print("%-8s %-12s %s; %s" % ("ok" if good else "MISSED", defect, done.stdout.strip(), "; ".join(wrong)[:300]), flush=True)
        subprocess.run(["rm", "-rf", work], check=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
