"""bench/recorded.py: the updates that a trainer publishes at full speed, recorded, and replayed without the trainer.

In production the trainer has a machine of its own; here it would share one with scorer and load generator, and its disk
writes and syncs would be measured with its updates. So it learns a backlog first, with all of the machine, and ends. What it
published lies in the delta topic with its timestamps (ms, when the trainer handed a record over). `load copy` copies that
into another topic, records equal byte for byte, at the same offsets: up to where the recording began at once, then window by
window with the recorded distances in time. A scorer follows that topic as it would follow the trainer.

Each window is another piece of the one recording, in order, since a scorer takes a version once."""
import os
import signal
import subprocess
import sys
import threading
import time

from system import LOAD, Waiting, wait_until

SOURCE, TARGET = "bench.deltas", "bench.replayed"
RECEIVED, SAMPLES = 'sluice_trainer_events_total{state="received"}', "sluice_trainer_samples_total"
SLACK = 3  # seconds of recording beyond the windows
PIECE = .5  # seconds from one look at the scorer's version to the next
TROUBLE = ["sluice_scorer_%s_total" % what for what in ("gaps", "refused", "mismatches")]


def stand_back(pid, back):
    """All threads of a process run only while nobody else wants their processor, or as usual again. Linux lets a process without
    privileges go there and not return."""
    for task in os.listdir("/proc/%d/task" % pid):
        try:
            os.sched_setscheduler(int(task), os.SCHED_IDLE if back else os.SCHED_OTHER, os.sched_param(0))
        except ProcessLookupError:
            continue  # ended meanwhile
        except PermissionError:
            return print("note: this user may not bring the broker back from SCHED_IDLE; it stays there")


class Recording:
    """Learns |warm| impressions, then for |seconds| as fast as it can (|per_second|: more than it learns in one)."""

    def __init__(self, system, warm, seconds, per_second, sets):
        self.system = system
        trainer = system.trainer(cpus="0,1", sets=sets)
        sent = system.events(warm)
        wait_until("the warm model", lambda: trainer.metrics().get(RECEIVED, 0) >= sent)
        wait_until("the trainer", lambda: trainer.metrics()["sluice_trainer_lag"] == 0)
        os.kill(trainer.p.pid, signal.SIGSTOP)  # so that all of the backlog is there
        system.events(per_second * (seconds + SLACK), seed=2)
        os.kill(trainer.p.pid, signal.SIGCONT)
        before = trainer.metrics()[SAMPLES]
        wait_until("the trainer to go on", lambda: trainer.metrics()[SAMPLES] > before)
        time.sleep(1)
        first = trainer.metrics()
        self.began_ms, t = time.time_ns() // 1000000, time.time()
        time.sleep(seconds)
        last = trainer.metrics()
        if last["sluice_trainer_lag"] == 0:
            sys.exit("the backlog was learned before %d s were recorded; BACKLOG=n (now %d a second) makes it longer" % (seconds, per_second))
        self.samples = (last[SAMPLES] - first[SAMPLES]) / (time.time() - t)
        if trainer.stop():
            sys.exit("the trainer ended with %d: see %s" % (trainer.p.returncode, trainer.log))
        self.next_ms, self.newest = self.began_ms, 0
        self.versions = self.take(self.copier(self.began_ms))

    def copier(self, until_ms, from_ms=None):
        command = ["chrt", "--idle", "0", "taskset", "-c", "1", LOAD, "copy", self.system.brokers, SOURCE, TARGET, str(until_ms)]
        p = subprocess.Popen(command + ([str(from_ms)] if from_ms else []), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.system.processes.append(Waiting(p))
        return p

    def take(self, p):
        """Versions that end among the records that |p| is about to copy: (version, ms, rows), and what its last line says."""
        versions, rows, line = [], {}, ""
        for line in p.stdout:
            f = line.split()
            if len(f) != 6:
                break
            version = int(f[3])
            rows[version] = rows.get(version, 0) + int(f[4])
            if int(f[5]) and version > self.newest:  # not a base, which repeats what is known
                versions.append((version, int(f[1]), rows[version]))
                self.newest = version
        if not line.startswith(("ready", "sent=")):
            sys.exit("load copy ended with %s" % p.wait())
        return versions

    def window(self, seconds):
        """The next piece, ready to be replayed."""
        begin, self.next_ms = self.next_ms, self.next_ms + int(seconds * 1000)
        p = self.copier(self.next_ms, begin)
        due = [(v, (ms - begin) / 1e3, rows) for v, ms, rows in self.take(p)]
        if not due:
            sys.exit("the trainer ended no version within %d s of the recording; BENCH_SECONDS=n makes windows longer" % seconds)
        return Window(p, due, seconds)


class Window:
    """A piece of the recording while it is replayed. |due|: (version, seconds from the start, rows)."""

    def __init__(self, copier, due, seconds):
        self.copier, self.due, self.seconds = copier, due, seconds
        self.seen = []  # (seconds, version that the scorer has)

    def play(self, scorer, meanwhile):
        """Replays while meanwhile() runs; returns what it returns. Exits where the updates were not applied as they came."""
        before = scorer.metrics()
        with Look(scorer, self.seen) as look:
            self.copier.stdin.write("\n")
            self.copier.stdin.close()
            self.copier.stdin = None
            out = meanwhile()
        try:
            said = self.copier.communicate(timeout=self.seconds)[0]
            status = self.copier.returncode
        except subprocess.TimeoutExpired:
            status, said = "none, it still runs", ""
        if status != 0 or "late_worst_ms=" not in said:
            sys.exit("the replay did not come to its end: load copy's status is %s" % status)
        self.late_ms = float(said.split("late_worst_ms=")[1])
        self.judge()
        self.end, newest = self.seen[-1], self.due[-1][0]
        wait_until("the scorer to apply version %d" % newest, lambda: look.look() >= newest, 60)
        self.check(before, scorer.metrics())
        return out

    def judge(self):
        """At no look more than the version at hand and a tenth of those due were missing, the oldest of them for more than a tenth
        of the window; and the broker had no record later than such a tenth after its turn."""
        for at, version in self.seen:
            due, applied = self.count(at, version)
            waits = at - min([d[1] for d in self.due if d[0] > version], default=at)
            if due - applied > 1 + due / 10 and waits > self.seconds / 10:
                sys.exit("the replay fell behind: %d versions were due after %.1f s, %d applied" % (due, at, applied))
        if self.late_ms > 100 * self.seconds:
            sys.exit("the replay fell behind: the broker had a record %.0f ms after its turn" % self.late_ms)
        if not self.count(*self.seen[-1])[1]:
            sys.exit("the scorer applied nothing while requests came: %d versions were due" % len(self.due))

    def check(self, before, after):
        """Every version of the window, whole, and what it adds up to is what the trainer says."""
        applied = after["sluice_scorer_versions_applied_total"] - before["sluice_scorer_versions_applied_total"]
        trouble = [name for name in TROUBLE if after[name] != before[name]]
        newest = self.due[-1][0]
        if applied != len(self.due) or trouble or after["sluice_scorer_verified_version"] != newest:
            sys.exit("%d versions were replayed, the scorer applied %d and verified version %d of %d; not as before: %s" % (
                len(self.due), applied, after["sluice_scorer_verified_version"], newest, ", ".join(trouble) or "nothing else"))

    def count(self, at, version):
        return sum(d[1] <= at for d in self.due), sum(d[0] <= version for d in self.due)

    def figures(self):
        """A second: versions and rows recorded, and applied by the time when the last answer had come; how long the slowest
        version took from its turn until it was seen applied."""
        at, version = self.end
        due, applied = [d[2] for d in self.due if d[1] <= at], [d[2] for d in self.due if d[0] <= version]
        return {"versions": len(due) / at, "applied": len(applied) / at, "rows": sum(due) / at, "rows_applied": sum(applied) / at,
                "took": max(next(at for at, seen in self.seen if seen >= v) - turn for v, turn, _ in self.due) * 1e3, "copy_late": self.late_ms}


class Look:
    """Looks at the scorer's version now and then, and at the end. Quiet runs have it, too, so that they differ in nothing else."""

    def __init__(self, scorer, seen):
        self.scorer, self.seen = scorer, seen
        self.over, self.thread = threading.Event(), threading.Thread(target=self.run)

    def __enter__(self):
        self.began = time.monotonic()
        self.thread.start()
        return self

    def look(self):
        at = time.monotonic() - self.began  # before asking: what is due by then had its time
        version = self.scorer.metrics()["sluice_scorer_version"]
        self.seen.append((at, version))
        return version

    def run(self):
        while not self.over.wait(PIECE):
            self.look()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.look()
