#!/usr/bin/env python3
"""Memory of trainer and scorer against their limits, for as long as wanted: a table many times larger than the
trainer's cache, a broker that delivers in bursts, a slow disk, clients that never read.

Ends with one line and status 0 only when neither was over its limit by more than a tenth and no event was lost."""
import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../soak"))
from machines import Broker, Failure, Place  # noqa: E402

MIB = 1 << 20
PARTITIONS = 4
SLOW_DISK = "sync:*.log:~20:delay=200;write:*.sst:~50:delay=20;sync:*.sst:*:delay=100"


class Daemon:
    """A program of ours with a page of metrics, and how much memory it has had."""

    def __init__(self, place, name, config, sets, env=None):
        self.name, self.most, self.sum, self.samples = name, 0, 0, 0
        self.log_path = os.path.join(place.work, name + ".log")
        command = [os.path.join(place.build, "bin/sluice-" + name), "--config", config]
        for s in sets:
            command += ["--set", s]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_for_line(self, pattern, patience=90):
        end = time.monotonic() + patience
        while True:
            found = re.search(pattern, self.log())
            if found:
                return found
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failure("%s: no line %s: %s" % (self.name, pattern, self.log()[-800:]))
            time.sleep(0.1)

    def sample(self):
        if self.process.poll() is not None:
            raise Failure("%s ended by itself: %s" % (self.name, self.log()[-800:]))
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as f:
            resident = int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1)) * 1024
        self.most = max(self.most, resident)
        self.sum += resident
        self.samples += 1
        return resident

    def metrics(self):
        out = {}
        with urllib.request.urlopen("http://%s/metrics" % self.admin, timeout=20) as page:
            for line in page.read().decode().splitlines():
                if line and line[0] != "#":
                    key, value = line.rsplit(" ", 1)
                    out[key] = float(value)
        return out

    def stop(self, patience=60):
        self.process.terminate()
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failure("%s did not end within %d s" % (self.name, patience)) from None


class Feeder:
    """Bursts on command; how many events are in the topic."""

    def __init__(self, place, broker, seed):
        self.process = subprocess.Popen([os.path.join(place.build, "tests/burst_feed"), broker.address, "events", str(PARTITIONS), str(seed)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.sent, self.busy, self.error = 0, False, None

    def burst(self, n):
        self.busy = True
        threading.Thread(target=self._burst, args=(n,), daemon=True).start()

    def _burst(self, n):
        try:
            self.process.stdin.write("%d\n" % n)
            self.process.stdin.flush()
            self.sent = int(self.process.stdout.readline())
        except (OSError, ValueError) as e:
            self.error = "the producer failed: %s" % e
        self.busy = False

    def stop(self):
        self.process.kill()
        self.process.wait()


def literal(name, value):
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class DeafClients(threading.Thread):
    """Clients that send requests and pings for ever and never read an answer; they come back when thrown out."""

    def __init__(self, address, n):
        super().__init__(daemon=True)
        self.address, self.n, self.requests, self.thrown_out, self.ending = address, n, 0, 0, False
        self.start()

    def _one(self):
        host, port = self.address.rsplit(":", 1)
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(5)
        s.connect((host, int(port)))
        s.setblocking(False)
        return [s, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""), 1]

    def _more(self, stream):
        head = b"".join(literal(*h) for h in ((":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"),
                                              (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers")))
        return frame(1, 4, stream, head) + frame(0, 1, stream, b"\0\0\0\0\0") + frame(6, 0, 0, b"12345678") * 20

    def run(self):
        clients = []
        while not self.ending:
            try:
                while len(clients) < self.n:
                    clients.append(self._one())
            except OSError:
                time.sleep(1)
            for c in clients[:]:
                try:
                    if not c[1]:
                        c[1], c[2] = self._more(c[2]), c[2] + 2
                        self.requests += 1
                    c[1] = c[1][c[0].send(c[1]):]
                except BlockingIOError:
                    pass
                except OSError:
                    self.thrown_out += 1
                    c[0].close()
                    clients.remove(c)
            time.sleep(0.005)
        for c in clients:
            c[0].close()


class Soak:
    def __init__(self, place, args):
        self.place, self.args = place, args
        self.config = os.path.join(HERE, "soak_bounds.yaml")
        self.broker = Broker(place)
        self.trainer = self.scorer = self.feeder = self.deaf = self.asker = None
        self.bursts = 0

    def scorer_limit(self):
        """serving.memory where the scorer has it, else nothing is promised."""
        with open(os.path.join(self.place.source, "docs/config.md"), encoding="utf-8") as f:
            return self.args.scorer * MIB if "`serving.memory`" in f.read() else 0

    def start(self):
        self.broker.start()
        for topic, n in (("events", PARTITIONS), ("deltas", 1), ("dead-letters", 1)):
            self.broker.admin("create", topic, n)
        common = ["kafka.brokers=" + self.broker.address, "store.path=" + self.place.store,
                  "serving.store=" + os.path.join(self.place.work, "scorer")]
        env = dict(os.environ, LD_PRELOAD=self.place.fault_layer, SLU_FAULT=SLOW_DISK)
        self.trainer = Daemon(self.place, "trainer", self.config,
                              common + ["training.memory=%dMiB" % self.args.memory, "store.cache=%dMiB" % self.args.cache], env)
        self.trainer.admin = self.trainer.wait_for_line(r"msg=started.* admin=(\S+)").group(1)
        self.limit = int(re.search(r"msg=memory limit=(\d+)", self.trainer.wait_for_line(r"msg=memory .*")[0]).group(1))
        limit = self.scorer_limit()
        self.scorer = Daemon(self.place, "scorer", self.config, common + (["serving.memory=%dMiB" % self.args.scorer] if limit else []))
        self.grpc = "127.0.0.1:" + self.scorer.wait_for_line(r"msg=listening .*\bport=(\d+)").group(1)
        self.feeder = Feeder(self.place, self.broker, self.args.seed)

    def start_clients(self):
        """Once there is a model to ask."""
        self.deaf = DeafClients(self.grpc, 8)
        with open(os.path.join(self.place.work, "ask.log"), "ab") as log:
            self.asker = subprocess.Popen([os.path.join(self.place.build, "bin/sluice-sim"), "ask", "--config", self.config, "--to", self.grpc,
                                           "--load", "--rate", "50", "--for", "%ds" % (self.args.seconds + 600), "--wait", "120s"],
                                          stdout=log, stderr=log)

    def step(self):
        """One second: a burst when the one before is nearly eaten."""
        m = self.trainer.metrics()
        if self.feeder.error:
            raise Failure(self.feeder.error)
        if not self.feeder.busy and m["sluice_trainer_lag"] < self.args.burst / 4:
            self.feeder.burst(self.args.burst)
            self.bursts += 1
        resident = self.trainer.sample(), self.scorer.sample()
        return m, resident

    def run(self):
        began = time.monotonic()
        told = began
        self.start_clients()
        while time.monotonic() - began < self.args.seconds:
            m, resident = self.step()
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print("%4d s  trainer %4d MiB  scorer %4d MiB  %9d events  lag %d  rows %d" %
                      (told - began, resident[0] / MIB, resident[1] / MIB, m['sluice_trainer_events_total{state="received"}'],
                       m["sluice_trainer_lag"], m["sluice_trainer_rows_created_total"]), flush=True)
            time.sleep(1)

    def finish(self):
        """Everything that was sent is received, and accounted for."""
        end = time.monotonic() + 300
        while self.feeder.busy or self.trainer.metrics()['sluice_trainer_events_total{state="received"}'] < self.feeder.sent:
            self.trainer.sample(), self.scorer.sample()
            if time.monotonic() > end:
                raise Failure("not all events were received")
            time.sleep(1)
        self.last = self.trainer.metrics()
        if self.asker:
            self.asker.terminate()
            self.asker.wait()
        self.deaf.ending = True
        if self.trainer.stop() or self.scorer.stop():
            raise Failure("a daemon ended with an error: %s" % self.trainer.log()[-500:])

    def report(self):
        m = self.last
        counts = {s: int(m['sluice_trainer_events_total{state="%s"}' % s]) for s in ("received", "learned", "waiting", "dead")}
        lost = self.feeder.sent - counts["learned"] - counts["waiting"] - counts["dead"]
        row = m["sluice_trainer_row_cache_bytes"] / max(m["sluice_trainer_rows_cached"], 1)
        times = m["sluice_trainer_rows_created_total"] * row / (self.args.cache * MIB)
        print("%-8s %10s %10s %10s %6s" % ("", "mean MiB", "max MiB", "limit MiB", "%"))
        over = False
        for daemon, limit in ((self.trainer, self.limit), (self.scorer, self.scorer_limit())):
            share = 100.0 * daemon.most / limit if limit else 0
            over |= share > 110
            print("%-8s %10.0f %10.0f %10s %6s" % (daemon.name, daemon.sum / max(daemon.samples, 1) / MIB, daemon.most / MIB,
                                                   "%.0f" % (limit / MIB) if limit else "-", "%.0f" % share if limit else "-"))
        print("events %(received)d = learned %(learned)d + waiting %(waiting)d + dead %(dead)d" % counts)
        print("seconds=%d bursts=%d events=%d lost=%d table=%.1fx-cache deaf-requests=%d thrown-out=%d trainer-max=%dMiB limit=%dMiB bounded=%s" %
              (self.args.seconds, self.bursts, self.feeder.sent, lost, times, self.deaf.requests, self.deaf.thrown_out,
               self.trainer.most / MIB, self.limit / MIB, "no" if over else "yes"))
        if times < self.args.times:
            raise Failure("the table was only %.1f times the cache, %d were wanted: run longer" % (times, self.args.times))
        return 0 if (not over or os.environ.get("SLU_TEST_MEMORY") == "tell") and lost == 0 else 1

    def close(self):
        for daemon in (self.trainer, self.scorer):
            if daemon and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()
        if self.asker and self.asker.poll() is None:
            self.asker.kill()
            self.asker.wait()
        if self.feeder:
            self.feeder.stop()
        self.broker.kill()


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--build", required=True)
    p.add_argument("--seconds", type=int, default=1800)
    p.add_argument("--memory", type=int, default=256, help="MiB of the trainer")
    p.add_argument("--scorer", type=int, default=1024, help="MiB of the scorer")
    p.add_argument("--cache", type=int, default=8, help="MiB of the trainer's row cache")
    p.add_argument("--times", type=float, default=20, help="how many caches the table has to be at the end")
    p.add_argument("--burst", type=int, default=200000, help="events")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--keep", action="store_true", help="keep logs and stores")
    args = p.parse_args()
    if os.environ.get("SLU_SKIP_KAFKA") == "1":
        return 77
    work = os.path.join(os.path.abspath(args.build), "tests/work/soak_bounds")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped")) # through finally: leaves no process behind
    soak = Soak(Place(os.path.abspath(os.path.join(HERE, "../..")), os.path.abspath(args.build), work), args)
    try:
        soak.start()
        soak.run()
        soak.finish()
        status = soak.report()
    except Failure as e:
        print("FAILED: %s" % e)
        status = 1
    finally:
        soak.close()
    if status == 0 and not args.keep:
        shutil.rmtree(work, ignore_errors=True)
    return status


sys.exit(main())
