"""bench/h2load.py: h2load as a closed and as an open loop against a scorer, and how long answers took.

Closed: some connections with some streams each ask again as soon as they are answered: throughput. Open: requests are
sent at given times whatever became of those before: latency. h2load's own --rps is no good for that: its timers are 10 ms
apart at least, and its clients start together, so requests come in bunches and wait for each other. A timing script has
microseconds, and so has its event loop once it is told to use select (libev gives epoll whole milliseconds).

Its log and its script lie in memory: h2load writes a line for each answer, and a write to a disk where trainer and broker
sync meanwhile may have to wait for the journal, and all requests with it.

The generator is not under test, so it goes in front of whatever shares its CPU: first in first out among real-time
processes where that is allowed, else by its nice value."""
import os
import random
import re
import resource
import subprocess
import sys
import tempfile

from system import TICKS

PATH = "/sluice.v1.Scoring/Score"
OK = 'sluice_grpc_calls_total{method="%s",code="OK"}' % PATH
SECONDS_SUM = 'sluice_grpc_call_seconds_sum{method="%s"}' % PATH
FIRST = ["chrt", "-f", "10"] if subprocess.call(["chrt", "-f", "10", "true"], stderr=subprocess.DEVNULL) == 0 else ["nice", "-n", "-15"]
CPU = "1"
MEMORY = tempfile.TemporaryDirectory(prefix="sluice-h2load-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


def evenly(rate, seconds, _seed):
    """Times in seconds, one every 1/rate: what a queue of fixed service time answers without any wait below full load."""
    return [(i + 1) / rate for i in range(int(rate * seconds))]


def poisson(rate, seconds, seed):
    """Times of independent users."""
    draw, at, times = random.Random(seed), 0, []
    while True:
        at += draw.expovariate(rate)
        if at >= seconds:
            return times
        times.append(at)


def ideal(sent, service):
    """Milliseconds from sending to the answer if one server took |service| s for each request and nothing else existed."""
    free, out = 0, []
    for t in sent:
        free = max(free, t) + service
        out.append((free - t) * 1e3)
    return out


def spent_on(cpus):
    """Seconds that these CPUs ("0,1") were busy, that the machine below took away from them, and in all."""
    busy = stolen = whole = 0
    lines = dict(line.split(" ", 1) for line in open("/proc/stat").read().split("\n") if line.startswith("cpu"))
    for cpu in cpus.split(","):
        t = [int(x) / TICKS for x in lines["cpu" + cpu].split()[:8]]  # user nice system idle iowait irq softirq steal
        busy, stolen, whole = busy + t[0] + t[1] + t[2] + t[5] + t[6], stolen + t[7], whole + sum(t)
    return busy, stolen, whole


def own(scorer):
    """CPU seconds on the scorer's CPUs that are its own or, where h2load has one of them, too, h2load's."""
    u = resource.getrusage(resource.RUSAGE_CHILDREN)
    return scorer.cpu_seconds() + (u.ru_utime + u.ru_stime if CPU in scorer.cpus.split(",") else 0)


def scoring(scorer):
    """Nanoseconds of the scoring threads, all together, on a processor and in line for one."""
    return [sum(x) for x in zip(*(spent for name, spent in scorer.threads().items() if re.fullmatch(r"grpc-\d+", name)))]


class Run:
    """What one run of h2load saw, and what the scorer says about the same requests."""

    def __init__(self, scorer, seconds, body, arguments, env=None):
        log = MEMORY.name + "/log"
        if os.path.exists(log):
            os.unlink(log)
        command = FIRST + ["taskset", "-c", CPU, "h2load", "-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers",
                           "--log-file=" + log] + arguments
        m, t, c, o = scorer.metrics(), scoring(scorer), spent_on(scorer.cpus), own(scorer)
        subprocess.run(command, stdout=subprocess.PIPE, check=True, env=dict(os.environ, **(env or {})))
        o, c2, t2, m2 = own(scorer) - o, spent_on(scorer.cpus), scoring(scorer), scorer.metrics()
        lines = sorted([int(x) for x in line.split("\t")[::2]] for line in open(log))
        answered = m2.get(OK, 0) - m.get(OK, 0)
        if not lines or abs(answered - len(lines)) > max(50, len(lines) * .01):
            sys.exit("h2load saw %d answers, the scorer gave %d with status OK" % (len(lines), answered))
        self.sent = [line[0] / 1e6 for line in lines]
        self.ms = [line[1] / 1e3 for line in lines]
        self.rate = len(lines) / seconds
        # Of a call: the time of its threads on the processor and in line for it, and from its last byte to its answer.
        self.cpu_ms, self.line_ms = ((b - a) / 1e6 / answered for a, b in zip(t, t2))
        self.scorer_ms = (m2[SECONDS_SUM] - m.get(SECONDS_SUM, 0)) / answered * 1e3
        # How quiet it was: shares of the scorer's CPUs that anybody else took (h2load left out).
        self.foreign, self.stolen = max(0, c2[0] - c[0] - o) / (c2[2] - c[2]), (c2[1] - c[1]) / (c2[2] - c[2])
        self.mean_ms = sum(self.ms) / len(self.ms)


def closed(scorer, body, seconds, clients=4, streams=4):
    return Run(scorer, seconds, body, ["-c", str(clients), "-m", str(streams), "-D", str(seconds), "http://" + scorer.grpc + PATH])


def opened(scorer, body, times, seconds):
    """One request at each of |times|, on one connection."""
    script = MEMORY.name + "/times"
    with open(script, "w") as f:
        f.writelines("%.3f\thttp://%s%s\n" % (t * 1e3, scorer.grpc, PATH) for t in times)
    run = Run(scorer, seconds, body, ["-c", "1", "-m", "10000", "--timing-script-file=" + script], {"LIBEV_FLAGS": "1"})
    # The script counts from one request to the next, so what a timer is late stays: how late in all, s, and each time, ms. An
    # answer that comes while the generator waits for its CPU is read as late as that: real-time or not, it waits for the end
    # of the system call that a neighbour is in, and a write of some megabytes takes milliseconds.
    run.late = (run.sent[-1] - run.sent[0]) - (times[-1] - times[0])
    run.late_ms = [((b - a) - (d - c)) * 1e3 for a, b, c, d in zip(run.sent, run.sent[1:], times, times[1:])]
    return run
