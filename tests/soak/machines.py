"""The processes of a soak: a broker, a producer that is paced from outside, a trainer that is killed."""
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request


class Failure(Exception):
    pass


class Place:
    """Where everything is."""

    def __init__(self, source, build, work):
        self.source, self.build, self.work = source, build, work
        self.trainer = os.path.join(build, "bin/sluice-trainer")
        self.replay = os.path.join(build, "bin/sluice-replay")
        self.scorer = os.path.join(build, "bin/sluice-scorer")
        self.store_tool = os.path.join(build, "bin/sluice-store")
        self.kafka_tool = os.path.join(build, "tests/kafka_tool")
        self.fault_layer = os.path.join(build, "tests/libslu_fault.so")
        self.config = os.path.join(source, "tests/soak/soak.yaml")
        self.store = os.path.join(work, "store")
        self.log = os.path.join(work, "trainer.log")
        self.scorer_store = os.path.join(work, "scorer")
        self.scorer_log = os.path.join(work, "scorer.log")


class Broker:
    def __init__(self, place):
        self.script = os.path.join(place.source, "deploy/broker/broker.sh")
        self.folder = os.path.join(place.work, "broker")
        self.tool = place.kafka_tool
        self.address = None
        self.up = False

    def _call(self, *words):
        done = subprocess.run([self.script, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise Failure("broker.sh %s: %s" % (words[0], done.stderr.strip()))
        return done.stdout.strip()

    def start(self):
        self.address = self._call("start", self.folder)
        self.up = True

    def kill(self):
        self.up = False
        self._call("kill", self.folder)

    def _signal(self, number):
        with open(os.path.join(self.folder, "pid"), encoding="ascii") as f:
            os.kill(int(f.read()), number)

    def pause(self):
        self._signal(signal.SIGSTOP)

    def resume(self):
        self._signal(signal.SIGCONT)

    def admin(self, *words):
        done = subprocess.run([self.tool, self.address, *map(str, words)], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise Failure("kafka_tool %s failed" % " ".join(map(str, words)))
        return done.stdout


class Feeder(threading.Thread):
    """Writes the stream's lines to the broker, never more than allow() has let through."""

    def __init__(self, broker, stream, total):
        super().__init__(daemon=True)
        self.stream, self.total, self.allowed = stream, total, 0
        self.produced, self.failed, self.ending = [], None, False
        self.changed = threading.Condition()
        self.process = subprocess.Popen([broker.tool, broker.address, "produce"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.start()

    def allow(self, n):
        with self.changed:
            self.allowed = max(self.allowed, min(int(n), self.total))
            self.changed.notify()

    def _take(self, n, topic=None):
        lines = self.stream.take(min(n, self.total - len(self.produced)))
        if topic:
            lines = [(topic, key, value) for _, key, value in lines]
        self.produced += lines
        return lines

    def _next(self):
        with self.changed:
            while self.allowed <= len(self.produced) < self.total and not self.ending:
                self.changed.wait()
            return [] if self.ending else self._take(min(self.allowed - len(self.produced), 100))

    @staticmethod
    def _text(lines, place=""):
        return b"".join(b"%s\t%s\t%s\n" % ((t + place).encode(), k.encode(), v) for t, k, v in lines)

    def aside(self, broker, n, topic, partition):
        """The next n lines, whatever they are, all into that partition, by a producer of its own that sees new partitions.
        Returns how many there were."""
        with self.changed:
            lines = self._take(n, topic)
        done = subprocess.run([broker.tool, broker.address, "produce"], input=self._text(lines, ":%d" % partition), stdout=subprocess.PIPE)
        if done.returncode or int(done.stdout) != len(lines):
            raise Failure("%d lines for partition %d of %s could not be produced" % (len(lines), partition, topic))
        return len(lines)

    def run(self):
        try:
            while True:
                lines = self._next()
                if not lines:
                    break
                self.process.stdin.write(self._text(lines))
                self.process.stdin.flush()
            self.process.stdin.close()
            if self.process.wait() != 0:
                self.failed = "the producer failed"
        except OSError as e:
            self.failed = "the producer ended: %s" % e

    def finish(self, patience):
        self.allow(self.total)
        self.join(patience)
        if self.is_alive() or self.failed:
            raise Failure(self.failed or "the producer did not end")

    def stop(self):
        with self.changed:
            self.ending = True
            self.changed.notify()
        if self.process.poll() is None:
            self.process.kill()


def page(address, path):
    with urllib.request.urlopen("http://%s%s" % (address, path), timeout=20) as answer:
        return answer.read().decode()


class Trainer:
    """One life of the trainer."""

    def __init__(self, place, broker, sets, faults=None):
        self.place, self.fault_log = place, os.path.join(place.work, "fault.log")
        env = dict(os.environ)
        if faults:
            env.update(LD_PRELOAD=place.fault_layer, SLU_FAULT=faults, SLU_FAULT_LOG=self.fault_log)
            with open(self.fault_log, "w", encoding="ascii"):
                pass
        self.log = open(place.log, "ab")
        self.read_from = self.log.seek(0, os.SEEK_END)
        command = [place.trainer, "--config", place.config, "--set", "kafka.brokers=" + broker.address, "--set", "store.path=" + place.store]
        for s in sets:
            command += ["--set", s]
        self.born = time.monotonic()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=env)
        self.started_after = None

    def words(self):
        with open(self.place.log, "rb") as f:
            f.seek(self.read_from)
            return f.read().decode("utf-8", "replace")

    def started(self):
        """The line `started`, once it is there."""
        if self.started_after is None and "msg=started" in self.words():
            self.started_after = time.monotonic() - self.born
        return self.started_after is not None

    def alive(self):
        return self.process.poll() is None

    def wait_started(self, patience):
        end = time.monotonic() + patience
        while not self.started():
            if not self.alive():
                return False
            if time.monotonic() > end:
                raise Failure("the trainer did not start within %d s" % patience)
            time.sleep(0.01)
        return True

    def kill(self):
        if self.alive():
            self.process.kill()
        code = self.process.wait()
        self.started()
        self.log.close()
        if code != -signal.SIGKILL:
            raise Failure("the trainer ended by itself with status %d: %s" % (code, self.words()[-600:]))

    def fault_line(self):
        """What the fault layer did last, "" nothing."""
        if not os.path.exists(self.fault_log):
            return ""
        with open(self.fault_log, encoding="utf-8", errors="replace") as f:
            lines = f.read().splitlines()
        return lines[-1] if lines else ""

    def metrics(self):
        address = re.findall(r"msg=started.* admin=(\S+)", self.words())[-1]
        out = {}
        for line in page(address, "/metrics").splitlines():
            if line and line[0] != "#":
                name, value = line.rsplit(" ", 1)
                out[name] = float(value)
        return out

    def stop(self, patience):
        self.process.terminate()
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise Failure("the trainer did not end within %d s of SIGTERM" % patience) from None
        self.log.close()
        if code:
            raise Failure("the trainer ended with status %d: %s" % (code, self.words()[-600:]))


class Scorer:
    """One life of a scorer; all of them share a store."""

    def __init__(self, place, broker, sets):
        self.place = place
        self.log = open(place.scorer_log, "ab")
        self.read_from = self.log.seek(0, os.SEEK_END)
        command = [place.scorer, "--config", place.config, "--set", "kafka.brokers=" + broker.address, "--set",
                   "serving.store=" + place.scorer_store, "--set", "admin.scorer=127.0.0.1:0"]
        for s in sets:
            command += ["--set", s]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def words(self):
        with open(self.place.scorer_log, "rb") as f:
            f.seek(self.read_from)
            return f.read().decode("utf-8", "replace")

    def kill(self):
        self.process.kill()
        code = self.process.wait()
        self.log.close()
        if code != -signal.SIGKILL:
            raise Failure("the scorer ended by itself with status %d: %s" % (code, self.words()[-600:]))

    def digest(self):
        """What /digest says as a dictionary; empty before there is a model."""
        port = re.findall(r"component=scorer msg=listening.* admin_port=(\d+)", self.words())
        if not port:
            return {}
        return dict(w.split("=", 1) for w in page("127.0.0.1:" + port[-1], "/digest").split() if "=" in w)

    def wait_version(self, version, patience):
        end = time.monotonic() + patience
        while True:
            if self.process.poll() is not None:
                raise Failure("the scorer ended with status %d: %s" % (self.process.returncode, self.words()[-600:]))
            try:
                said = self.digest()
            except OSError:
                said = {}
            if said.get("version") == str(version):
                return said
            if time.monotonic() > end:
                raise Failure("the scorer is at %s, not at version %d, after %d s" % (said, version, patience))
            time.sleep(0.1)

    def stop(self, patience):
        self.process.terminate()
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise Failure("the scorer did not end within %d s of SIGTERM" % patience) from None
        self.log.close()
        if code:
            raise Failure("the scorer ended with status %d: %s" % (code, self.words()[-600:]))
