#!/usr/bin/env python3
"""tests/soak/soak_kill.py: a trainer is killed again and again while events flow; afterwards everything is counted.

Ends with one line on standard output,
    kills=N events=N lost=N doubled=N digest=equal|different
and exits 0 only when nothing was lost or doubled and every digest is equal; everything else goes to standard error.
`make soak-kill KILLS=200 SEED=1 EVENTS=300000` runs it; docs/operations.md tells what it looks at."""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter

import evidence
import fates
from machines import Broker, Failure, Feeder, Place, Trainer
from stream import Stream

TOPICS = ("impressions", "clicks", "conversions")
RULES = fates.Rules(steps=("click", "conversion"), windows=(1_000_000, 2_000_000), lateness=1_000_000, orphan_wait=1_000_000,
                    max_future=3600 * 10**6, max_behind=86400 * 10**6, max_bytes=16384, fields=("user", "interests", "recent", "hour", "item", "price"))
PATIENCE = float(os.environ.get("SLU_TEST_PATIENCE", "120"))

# Where a kill is meant to land, and how often of a hundred.
SHARES = {"load": 26, "start": 14, "commit": 20, "flush": 16, "publish": 14, "power": 4, "both": 6}
WITHOUT_LAYER = ("commit", "flush", "power")
WITHOUT_BROKER_S = 0.4


def plan(rng, kills, layer):
    """The places of all kills, in random order; each at least once if there are enough."""
    shares = {p: n for p, n in SHARES.items() if layer or p not in WITHOUT_LAYER}
    places = list(shares)[:kills]
    while len(places) < kills:
        places += rng.choices(list(shares), list(shares.values()))
    rng.shuffle(places)
    return places


def fault_of(rng, place):
    """A rule of the fault layer for this place, seeded."""
    if place == "commit":
        op = rng.choice(("write", "write", "sync"))
        return "%s:*.log:%d:%s" % (op, rng.randrange(1, 40), rng.choice(("kill", "kill-after", "torn")))
    if place == "flush":
        op, glob, most = rng.choice((("open", "*.sst", 6), ("write", "*.sst", 12), ("sync", "*.sst", 6), ("write", "MANIFEST-*", 8),
                                     ("sync", "MANIFEST-*", 6), ("rename", "*", 3), ("unlink", "*.sst", 4), ("unlink", "*.log", 2),
                                     ("open", "*.log", 3), ("close", "*.sst", 6)))
        return "%s:%s:%d:%s" % (op, glob, rng.randrange(1, most * rng.choice((1, 6)) + 1), rng.choice(("kill", "kill-after", "torn")))
    if place == "publish":
        return "write:*.log:%d:kill-after" % rng.randrange(1, 30)
    return "%s:*:%d:powercut" % (rng.choice(("write", "sync")), rng.randrange(4, 60))


class Soak:
    def __init__(self, place, kills, seed, events, sets):
        self.place, self.kills, self.events, self.sets = place, kills, events, sets
        self.rng = random.Random(seed)
        self.began = time.monotonic()
        self.broker = Broker(place)
        span_us = events * 1200 + 600 * 10**6
        self.stream = Stream(seed, int(time.time() * 1e6) - span_us)
        self.feeder = self.trainer = None
        self.typical_start = 0.5
        self.lives, self.landed = Counter(), Counter()
        self.samples = {}  # version -> digest, of stores whose trainer lay dead
        self.done = self.broker_kills = 0
        self.layer = os.path.exists(place.fault_layer)

    def say(self, text):
        print("[%6.1f s] %s" % (time.monotonic() - self.began, text), file=sys.stderr, flush=True)

    # ---- the run

    def feed(self, fraction):
        """Events of the present kill up to this fraction of its share."""
        self.feeder.allow(self.events * (self.done + fraction) / (self.kills + 1))

    def live(self, seconds, until=lambda: False):
        """Lets time pass while events flow."""
        begin = time.monotonic()
        while time.monotonic() < begin + seconds and not until():
            self.feed(0.4 + 0.6 * min(1, (time.monotonic() - begin) / max(seconds, 0.1)))
            time.sleep(0.005)

    def open_life(self, faults=None):
        self.feed(0.4)  # so that there is a backlog
        self.trainer = Trainer(self.place, self.broker, self.sets, faults)

    def started(self):
        if not self.trainer.wait_started(PATIENCE):
            return False
        self.typical_start += 0.2 * (self.trainer.started_after - self.typical_start)
        return True

    def by_fault(self, place):
        """Until the layer kills it; if the call it waits for does not come, by hand."""
        self.open_life(fault_of(self.rng, place))
        if self.trainer.wait_started(PATIENCE):
            self.live(2.5, until=lambda: not self.trainer.alive())
        by_layer = not self.trainer.alive()
        self.trainer.kill()
        when = "running" if self.trainer.started() else "starting"
        self.landed["%s, %s" % (place, when) if by_layer else "load"] += 1
        return self.trainer.fault_line() if by_layer else "load: the call did not come"

    def at_start(self):
        moment = self.rng.random() * (self.typical_start + 0.15)
        self.open_life()
        self.live(moment)
        self.trainer.kill()
        where = "start, after the first line" if self.trainer.started() else "start, before the first line"
        self.landed[where] += 1
        return "%s, %.0f ms old" % (where, moment * 1000)

    def under_load(self):
        self.open_life()
        self.started()
        moment = self.rng.random() * 0.8
        self.live(moment)
        self.trainer.kill()
        self.landed["load"] += 1
        return "load, after %.0f ms" % (moment * 1000)

    def while_publishing(self):
        """Either right after a commit became durable, or with the broker halted, so that nothing is acknowledged."""
        if self.layer and self.rng.random() < 0.5:
            return self.by_fault("publish")
        self.open_life()
        self.started()
        self.live(self.rng.random() * 0.3)
        self.broker.pause()
        try:
            self.live(0.05 + self.rng.random() * 0.25)
            self.trainer.kill()
        finally:
            self.broker.resume()
        self.landed["publish, broker halted"] += 1
        return "publish, broker halted"

    def both(self):
        self.open_life()
        self.started()
        self.live(self.rng.random() * 0.5)
        first = self.rng.random() < 0.5
        if first:
            self.broker.kill()
        self.trainer.kill()
        if not first:
            self.broker.kill()
        self.broker.start()
        self.broker_kills += 1
        self.landed["trainer and broker"] += 1
        return "trainer and broker, %s first" % ("broker" if first else "trainer")

    def broker_alone(self):
        """The broker dies and comes back while the trainer lives; no kill of the trainer."""
        self.open_life()
        self.started()
        self.live(self.rng.random() * 0.5)
        self.broker.kill()
        self.live(WITHOUT_BROKER_S)
        if not self.trainer.alive():
            raise Failure("the trainer ended with its broker: %s" % self.trainer.words()[-600:])
        self.broker.start()
        self.live(0.5)
        self.broker_kills += 1
        self.say("broker killed and restarted beside a living trainer")
        self.trainer.kill()

    def one(self, place):
        if place == "start":
            where = self.at_start()
        elif place == "load":
            where = self.under_load()
        elif place == "publish":
            where = self.while_publishing()
        elif place == "both":
            where = self.both()
        else:
            where = self.by_fault(place)
        self.done += 1
        self.say("kill %d: %s; %d events produced" % (self.done, where, len(self.feeder.produced)))

    def take_sample(self):
        """Version and digest of the dead trainer's store."""
        done = subprocess.run([self.place.store_tool, "info", "--store", self.place.store, "--json"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        if done.returncode:
            return  # killed before there was a store
        info = json.loads(done.stdout)
        if info["version"]:
            self.samples[info["version"]] = info["model_digest"]

    def run(self):
        self.broker.start()
        for topic in TOPICS:
            self.broker.admin("create", topic, 4)
        self.broker.admin("create", "deltas", 1)
        self.broker.admin("create", "dead-letters", 2)
        self.feeder = Feeder(self.broker, self.stream, self.events)
        places = plan(self.rng, self.kills, self.layer)
        sampled = set(self.rng.sample(range(self.kills), min(self.kills, max(2, self.kills // 20))))
        broker_at = set(range(12, self.kills, 25)) or {self.kills // 2}
        for i, place in enumerate(places):
            if i == self.kills * 3 // 5:
                self.broker.admin("grow", "conversions", 6)
                self.say("topic conversions has 6 partitions now")
            if i in broker_at:
                self.broker_alone()
            self.one(place)
            if i in sampled:
                self.take_sample()

    def finish(self):
        """A last life takes everything that is left; then it is stopped cleanly."""
        self.open_life()
        self.started()
        self.feeder.finish(PATIENCE)
        total = sum(int(self.broker.admin("count", t)) for t in TOPICS)
        quiet, last = time.monotonic(), None
        end = quiet + PATIENCE + total / 1000
        while True:
            m = self.trainer.metrics()
            state = m["sluice_trainer_version"], m['sluice_trainer_events_total{state="received"}'], m["sluice_trainer_outbox"]
            if state != last or state[1] < total or state[2]:
                quiet, last = time.monotonic(), state
            if time.monotonic() - quiet > 4:  # longer than join.idle_timeout: partitions have fallen silent
                break
            if time.monotonic() > end or not self.trainer.alive():
                raise Failure("the trainer did not come to rest: version %d, received %d of %d, outbox %d" % (*state[:2], total, state[2]))
            time.sleep(0.25)
        self.trainer.stop(60)
        return m, total

    # ---- the account

    def replayed(self, name, until=0):
        """Digest of the recorded order, run again into the store |name|."""
        report = os.path.join(self.place.work, "report.json")
        command = [self.place.replay, "--config", self.place.config, "--set", "kafka.brokers=" + self.broker.address, "--from-store",
                   self.place.store, "--store", os.path.join(self.place.work, name), "--json", report]
        for s in self.sets:
            command += ["--set", s]
        done = subprocess.run(command + (["--until", str(until)] if until else []), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode and "is not that of" not in done.stderr:
            raise Failure("the replay: %s" % done.stderr.strip()[-400:])
        with open(report, encoding="utf-8") as f:
            return json.load(f)["digest"]

    def compare_digests(self):
        live = json.loads(subprocess.run([self.place.store_tool, "info", "--store", self.place.store, "--json"], stdout=subprocess.PIPE,
                                         check=True).stdout)
        problems = []
        if self.replayed("fresh") != live["model_digest"]:
            problems.append("version %d: the uninterrupted run has another digest" % live["version"])
        for version in sorted(self.samples):
            if self.replayed("chain", version) != self.samples[version]:
                problems.append("version %d: --until has another digest than the live store had" % version)
        self.say("digests: version %d and %d versions on the way" % (live["version"], len(self.samples)))
        return live["version"], problems

    def count(self, metrics, total, newest):
        p, brokers = self.place, self.broker.address
        topics = {t: evidence.topic(p.kafka_tool, brokers, t) for t in TOPICS}
        missing, extra = evidence.check_topics(self.feeder.produced, topics)
        if missing or extra:
            raise Failure("the topics are not what was produced: %d missing, %d too many" % (missing, extra))
        versions = evidence.order(p.store_tool, p.store)
        want = evidence.expected(RULES, versions, topics)
        results = [
            evidence.check_order(versions, topics),
            evidence.check_letters(evidence.topic(p.kafka_tool, brokers, "dead-letters"), want.letters),
            evidence.check_join_state(p.kafka_tool, p.store_tool, p.store, want.state()),
        ]
        lost, doubled = sum(r[0] for r in results), sum(r[1] for r in results)
        problems = [text for r in results for text in r[2]]
        deltas, again = evidence.check_deltas(evidence.topic(p.kafka_tool, brokers, "deltas"), newest)
        problems += deltas
        told = {s: int(metrics['sluice_trainer_events_total{state="%s"}' % s]) for s in ("received", "learned", "waiting", "dead")}
        wanted = {"received": total, "learned": want.learned, "waiting": want.waiting_events(), "dead": len(want.letters)}
        if told != wanted:
            problems.append("counters are %s, expected %s" % (told, wanted))
        lost += max(0, wanted["received"] - told["received"], wanted["learned"] - told["learned"])
        doubled += max(0, told["received"] - wanted["received"], told["learned"] - wanted["learned"])
        for reason, n in sorted(want.reasons().items()):
            if int(metrics['sluice_trainer_dead_letters_total{reason="%s"}' % reason]) != n:
                problems.append("dead letters counted as %s: not %d" % (reason, n))
        self.say("fates: %s" % wanted)
        self.say("dead letters: %s" % dict(sorted(want.reasons().items())))
        self.say("deltas: %d versions, %d messages sent again or of bases" % (newest, again))
        return lost, doubled, problems

    def close(self):
        if self.trainer and self.trainer.alive():
            self.trainer.process.kill()
            self.trainer.process.wait()
        if self.feeder:
            self.feeder.stop()
        if self.broker.address:
            subprocess.run([self.broker.script, "kill", self.broker.folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def soak(s):
    s.run()
    killed_s = time.monotonic() - s.began
    metrics, total = s.finish()
    newest, digests = s.compare_digests()
    lost, doubled, problems = s.count(metrics, total, newest)
    for text in digests + problems:
        s.say("WRONG: %s" % text)
    for where, n in sorted(s.landed.items()):
        s.say("%4d kills: %s" % (n, where))
    s.say("%d kills of the broker; %.2f s a kill; the typical start takes %.0f ms" % (s.broker_kills, killed_s / max(s.kills, 1),
                                                                                    s.typical_start * 1000))
    print("kills=%d events=%d lost=%d doubled=%d digest=%s" % (s.kills, total, lost, doubled, "different" if digests else "equal"), flush=True)
    return not (lost or doubled or digests or problems)


def main():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default=os.path.join(root, "build"))
    ap.add_argument("--work", help="folder for everything that is written; default: below the build folder, removed after a success")
    ap.add_argument("--kills", type=int, default=200)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--events", type=int, default=300000)
    ap.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    a = ap.parse_args()
    if os.environ.get("SLU_SKIP_KAFKA") == "1":
        print("skipped: SLU_SKIP_KAFKA=1, so there is no Kafka broker to test against", file=sys.stderr)
        return 77
    work = a.work or os.path.join(a.build, "tests/work/soak-%d" % os.getpid())
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    s = Soak(Place(root, a.build, work), a.kills, a.seed, a.events, a.set)
    s.say("seed %d: %d kills, %d events, below %s" % (a.seed, a.kills, a.events, work))
    ok = False
    try:
        ok = soak(s)
    except Failure as e:
        s.say("FAILED: %s" % e)
    finally:
        s.close()
    if ok and not a.work:
        shutil.rmtree(work, ignore_errors=True)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
