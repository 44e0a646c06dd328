"""bench/system.py: the running system under a benchmark: a real broker, trainer, scorer, and what they say of themselves.

Used by serve.py, path.py, fresh.py and scale.py. Everything lives in a temporary folder and ends with the `with` block."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

# A bench that is killed ends its `with` blocks first: no broker and no daemon stays behind.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
BUILD = BUILD if os.path.isabs(BUILD) else os.path.join(ROOT, BUILD)
CONFIG = os.path.join(ROOT, "bench/mmoe24.yaml")
TOOL = os.path.join(BUILD, "tests/kafka_tool")
LOAD = os.path.join(BUILD, "bench/load")
TICKS = os.sysconf("SC_CLK_TCK")


def median(values):
    v = sorted(values)
    return v[len(v) // 2]


def percentile(values, p):
    v = sorted(values)
    return v[min(len(v) - 1, int(p * len(v)))]


def report(name, figures, missed):
    """Writes build/bench/NAME.json; exits 1 under CHECK=1 when a target was missed."""
    os.makedirs(os.path.join(BUILD, "bench"), exist_ok=True)
    with open(os.path.join(BUILD, "bench", name + ".json"), "w") as f:
        json.dump({"bench": name, "cpus": os.cpu_count(), "figures": figures, "missed": missed}, f, indent=1)
    print("\ntargets: " + ("missed: " + "; ".join(missed) if missed else "all reached"))
    sys.exit(1 if missed and os.environ.get("CHECK") else 0)


class Process:
    """A daemon: its log, its admin page, its CPU time and memory."""

    def __init__(self, log, command, cpus=None, env=None):
        self.log, self.cpus = log, cpus
        if cpus:
            command = ["taskset", "-c", cpus] + command
        self.p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=open(log, "a"), env=dict(os.environ, **(env or {})))

    def said(self, pattern, seconds=60):
        end = time.time() + seconds
        while time.time() < end:
            found = re.findall(pattern, open(self.log, errors="replace").read())
            if found:
                return found[-1]
            if self.p.poll() is not None:
                break
            time.sleep(.05)
        sys.exit("%s: no '%s' in %s:\n%s" % (self.p.args, pattern, self.log, open(self.log).read()[-2000:]))

    def metrics(self):
        text = urllib.request.urlopen("http://%s/metrics" % self.admin, timeout=10).read().decode()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[:1] != "#")}

    def cpu_seconds(self):
        f = open("/proc/%d/stat" % self.p.pid).read().rsplit(")", 1)[1].split()
        return (int(f[11]) + int(f[12])) / TICKS

    def threads(self):
        """Nanoseconds on the processor and in line for it, by thread name."""
        sums = {}
        for task in os.listdir("/proc/%d/task" % self.p.pid):
            try:
                at = "/proc/%d/task/%s/" % (self.p.pid, task)
                name, spent = open(at + "comm").read().strip(), [int(x) for x in open(at + "schedstat").read().split()[:2]]
            except OSError:
                continue  # ended meanwhile
            sums[name] = [a + b for a, b in zip(sums.get(name, [0, 0]), spent)]
        return sums

    def rss(self):
        return int(open("/proc/%d/statm" % self.p.pid).read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self, sig=signal.SIGTERM):
        if self.p.poll() is None:
            self.p.send_signal(sig)
            try:
                self.p.wait(40)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        return self.p.returncode


def memory_for(gib):
    """A folder in memory that so much may be written to, None: there is none."""
    shm = os.statvfs("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    available = int(re.search(r"MemAvailable: +(\d+)", open("/proc/meminfo").read())[1]) / 2**20
    return "/dev/shm" if shm and min(available, shm.f_bavail * shm.f_frsize / 2**30) > gib else None


class System:
    def __init__(self, sets=(), config=CONFIG, broker_in=None):
        """|broker_in|: a folder for the broker's data, where that of temporary files shall not have it."""
        self.dir = tempfile.mkdtemp(prefix="sluice-bench.")
        self.broker_home = tempfile.mkdtemp(prefix="sluice-broker.", dir=broker_in) if broker_in else self.dir
        self.broker_dir = self.broker_home + "/broker"
        self.sets, self.config, self.processes = list(sets), config, []

    def __enter__(self):
        # A broker that is half started cannot be ended by its folder yet, so SIGTERM waits until it is up.
        killed = []
        before = signal.signal(signal.SIGTERM, lambda *_: killed.append(True))
        try:
            self.brokers = subprocess.check_output([os.path.join(ROOT, "deploy/broker/broker.sh"), "start", self.broker_dir],
                                                   text=True).strip()
            signal.signal(signal.SIGTERM, before)
            if killed:
                sys.exit("stopped")
            self.kafka("create", "bench.events", "4")
            self.kafka("create", "bench.deltas", "1")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is being ended is ended
        for p in self.processes:
            p.stop()
        subprocess.call([os.path.join(ROOT, "deploy/broker/broker.sh"), "kill", self.broker_dir],
                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for d in {self.dir, self.broker_home}:
            shutil.rmtree(d, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)

    def kafka(self, *args):
        return subprocess.check_output([TOOL, self.brokers] + list(args), text=True)

    def daemon(self, program, ready, address, cpus=None, sets=(), name=None):
        name = name or program
        command = [os.path.join(BUILD, "bin", program), "--config", self.config]
        where = {"kafka.brokers": self.brokers, "store.path": self.dir + "/trainer", "serving.store": self.dir + "/" + name}
        for s in ["%s=%s" % i for i in where.items()] + self.sets + list(sets):
            command += ["--set", s]
        log = "%s/%s.log" % (self.dir, name)
        if os.path.exists(log):
            os.rename(log, log + ".%d" % time.time())
        p = Process(log, command, cpus)
        self.processes.append(p)
        p.said(ready)
        p.admin = p.said(address)
        return p

    def trainer(self, **k):
        return self.daemon("sluice-trainer", "msg=started", r"msg=started.* admin=(\S+)", **k)

    def scorer(self, **k):
        p = self.daemon("sluice-scorer", "msg=listening", r"msg=listening.* admin_port=(\d+)", **k)
        p.admin = "127.0.0.1:" + p.admin
        p.grpc = "127.0.0.1:" + p.said(r"msg=listening.* port=(\d+)")
        return p

    def events(self, impressions, rate=0, seed=1, law="zipf", ids=41667, wait=True, cpus=None):
        command = (["taskset", "-c", cpus] if cpus else []) + [LOAD, "events", self.config, self.brokers, str(impressions),
                                                               str(seed), law, str(ids), str(rate)]
        p = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.processes.append(Waiting(p))
        if not wait:
            return p
        out = p.communicate()[0]
        if p.returncode:
            sys.exit("bench/load failed")
        return int(re.search(r"sent=(\d+)", out)[1])


class Waiting:
    def __init__(self, p):
        self.p = p

    def stop(self):
        if self.p.poll() is None:
            self.p.terminate()
        self.p.wait()


def wait_until(what, condition, seconds=600):
    end = time.time() + seconds
    while not condition():
        if time.time() > end:
            sys.exit("waited %d s for %s" % (seconds, what))
        time.sleep(.02)
