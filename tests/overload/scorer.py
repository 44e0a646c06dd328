"""A sluice-scorer process with a model of a trainer that has learned nothing (tests/interop/score_feeder.c), on free
ports, and how the tests of this folder say what holds."""
import os
import re
import subprocess
import sys
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONFIG = os.path.join(ROOT, "bench/mmoe24.yaml")
# A sanitizer keeps more beside each byte than the byte itself: there it is told, not judged (Makefile).
MEMORY_IS_JUDGED = os.environ.get("SLU_TEST_MEMORY") != "tell"
failures = []


def check(holds, what):
    print("%s %s" % ("ok    " if holds else "FAILED", what), flush=True)
    if not holds:
        failures.append(what)


def verdict():
    if failures:
        sys.exit("failed: " + "; ".join(failures))
    print("passed")


class Scorer:
    def __init__(self, build, config, work, sets):
        program = [os.path.join(build, "tests/score_feeder"), config]
        self.feeder = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        brokers = self.feeder.stdout.readline().strip().split("=")[1]
        self.feed("base")
        self.log = os.path.join(work, "scorer.log")
        command = [os.path.join(build, "bin/sluice-scorer"), "--config", config]
        for s in ["kafka.brokers=" + brokers, "serving.store=" + os.path.join(work, "store"), "serving.listen=127.0.0.1:0",
                  "admin.scorer=127.0.0.1:0", "log.format=logfmt", *sets]:
            command += ["--set", s]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stderr=log)
        line = self.said("component=scorer msg=listening.*")
        self.port, self.admin = (int(re.search(k + r"=(\d+)", line).group(1)) for k in (" port", "admin_port"))
        self.said("component=scorer msg=serving")

    def feed(self, what):
        self.feeder.stdin.write(what + "\n")
        self.feeder.stdin.flush()
        return self.feeder.stdout.readline()

    def said(self, pattern):
        end = time.time() + float(os.environ.get("SLU_TEST_PATIENCE", "60"))
        while time.time() < end:
            found = re.search(pattern, open(self.log).read())
            if found:
                return found.group(0)
            if self.process.poll() is not None:
                break
            time.sleep(.02)
        sys.exit("no %r in the scorer's log:\n%s" % (pattern, open(self.log).read()[-2000:]))

    def metrics(self):
        text = urllib.request.urlopen("http://127.0.0.1:%d/metrics" % self.admin, timeout=60).read().decode()
        return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}

    def peak_mib(self):
        return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/%d/status" % self.process.pid).read()).group(1)) / 1024

    def files(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def cpu_seconds(self):
        f = open("/proc/%d/stat" % self.process.pid).read().rsplit(")", 1)[1].split()
        return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")

    def queued_seconds(self):
        """What its threads have waited for a processor, ready to run, one after the other."""
        tasks = "/proc/%d/task" % self.process.pid
        return sum(int(open("%s/%s/schedstat" % (tasks, t)).read().split()[1]) for t in os.listdir(tasks)) * 1e-9

    def stop(self):
        self.process.terminate()
        status = self.process.wait(60)
        self.feeder.stdin.close()
        self.feeder.wait(60)
        return status

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.feeder.kill()
        self.process.wait()
        self.feeder.wait()


def open_load(build, scorer, request, rate, seconds, connections, deadline_ms, short_every=0, short_ms=0):
    """What tests/overload/open_load.c says, as a dict."""
    command = [os.path.join(build, "tests/open_load"), "127.0.0.1:%d" % scorer.port, request, "%.3f" % rate, "%.3f" % seconds,
               str(connections), str(deadline_ms), str(short_every), str(short_ms)]
    out = subprocess.check_output(command, text=True, timeout=seconds + 120)
    return {k: float(v) for k, v in (line.split("=") for line in out.split())}
