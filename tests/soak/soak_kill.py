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
from machines import Broker, Failure, Feeder, Place, Scorer, Trainer
from stream import Stream

TOPICS = ("impressions", "clicks", "conversions")
RULES = fates.Rules(steps=("click", "conversion"), windows=(1_000_000, 2_000_000), lateness=1_000_000, orphan_wait=1_000_000,
                    max_future=3600 * 10**6, max_behind=86400 * 10**6, max_bytes=16384, fields=("user", "interests", "recent", "hour", "item", "price"))
RECEIVED = 'sluice_trainer_events_total{state="received"}'
PAUSES = "sluice_trainer_partition_pauses_total"
PATIENCE = float(os.environ.get("SLU_TEST_PATIENCE", "120"))

# Where a kill is meant to land, and how often of a hundred.
SHARES = {"early": 5, "behind": 4, "load": 16, "start": 12, "commit": 16, "flush": 16, "slow": 8, "publish": 9, "base": 6, "both": 5, "power": 4, "backup": 3}
WITHOUT_LAYER = ("commit", "flush", "slow", "power")
WITHOUT_BROKER_S = 0.4
AT_REST_S = 30
FAR_BEHIND = 1500  # messages of one partition
SCORER_KILLS = 0.15  # of the scorer, for each of the trainer


def plan(rng, kills, layer):
    """The places of all kills, in random order; each at least once if there are enough."""
    shares = {p: n for p, n in SHARES.items() if layer or p not in WITHOUT_LAYER}
    places = list(shares)[:kills]
    while len(places) < kills:
        places += rng.choices(list(shares), list(shares.values()))
    rng.shuffle(places)
    if "early" in places:  # with an empty store, all partitions are such as were never used
        places.remove("early")
        places.insert(0, "early")
    return places


def fault_of(rng, place):
    """A rule of the fault layer for this place, seeded."""
    if place == "commit":
        op = rng.choice(("write", "write", "sync"))
        return "%s:*.log:%d:%s" % (op, rng.randrange(1, 40), rng.choice(("kill", "kill-after", "torn")))
    if place == "slow":  # learning goes on while a commit is on its way to a disk that takes its time
        return "%s:*.log:*:delay=%d;sync:*.log:%d:%s" % (rng.choice(("sync", "sync", "write")), rng.choice((20, 60, 200)), rng.randrange(2, 14),
                                                         rng.choice(("kill", "kill-after", "log")))
    if place == "flush":
        op, glob, most = rng.choice((("open", "*.sst", 6), ("write", "*.sst", 12), ("sync", "*.sst", 6), ("write", "MANIFEST-*", 8),
                                     ("sync", "MANIFEST-*", 6), ("rename", "*", 3), ("unlink", "*.sst", 4), ("unlink", "*.log", 2),
                                     ("open", "*.log", 3), ("close", "*.sst", 6)))
        return "%s:%s:%d:%s" % (op, glob, rng.randrange(1, most * rng.choice((1, 4, 8)) + 1), rng.choice(("kill", "kill-after", "torn")))
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
        self.feeder = self.trainer = self.scorer = None
        self.partitions = dict.fromkeys(TOPICS, 4)
        self.typical_start = 0.5
        self.lives, self.landed = Counter(), Counter()
        self.samples = {}  # version -> digest, of stores whose trainer lay dead
        self.done = self.broker_kills = self.scorer_kills = self.pauses = 0
        self.lagged = False
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

    def open_life(self, faults=None, sets=()):
        self.feed(0.4)  # so that there is a backlog
        self.trainer = Trainer(self.place, self.broker, [*self.sets, *sets], faults)

    def started(self):
        if not self.trainer.wait_started(PATIENCE):
            return False
        self.typical_start += 0.2 * (self.trainer.started_after - self.typical_start)
        return True

    def by_fault(self, place):
        """Until the layer kills it; if the call it waits for does not come, by hand."""
        self.open_life(fault_of(self.rng, place))
        if self.trainer.wait_started(PATIENCE):
            self.live(4 if place == "flush" else 2.5, until=lambda: not self.trainer.alive())
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

    def inside_base(self):
        """A base goes out in many small pieces, one after the other."""
        self.open_life(sets=("publish.chunk=4KiB", "publish.base_every=1s"))
        self.started()
        moment = self.rng.random() * self.rng.choice((0.1, 0.3, 1.5))
        self.live(moment)
        self.trainer.kill()
        out = self.trainer.words().count('msg="published base"')
        self.landed["base, the first on its way" if not out else "base, %d out" % out if out < 3 else "base, more out"] += 1
        return "base, after %.0f ms, %d out" % (moment * 1000, out)

    def while_copying(self):
        """A copy of the live store is being made; what it leaves is a whole one or none, and can be put in place by a command
        that is killed and given again."""
        self.open_life()
        self.started()
        self.live(self.rng.random() * 0.3)
        copy = os.path.join(self.place.work, "copy-%d" % self.done)
        maker = subprocess.Popen([self.place.store_tool, "backup", "--store", self.place.store, "--to", copy], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
        self.live(self.rng.random() * self.rng.choice((0.05, 0.8)))
        self.trainer.kill()
        said = maker.communicate(timeout=PATIENCE)[0].strip()
        made = maker.returncode == 0
        if made:
            self.restore(said)
        for name in os.listdir(copy) if os.path.isdir(copy) else ():
            if os.path.exists(os.path.join(copy, name, "BACKUP")):  # perhaps it had just become whole
                self.store_says("verify", "--backup", os.path.join(copy, name))
        shutil.rmtree(copy, ignore_errors=True)
        self.landed["backup, made" if made else "backup, under way"] += 1
        return "backup, %s" % ("made" if made else "under way")

    def store_says(self, *words):
        done = subprocess.run([self.place.store_tool, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise Failure("sluice-store %s: %s %s" % (" ".join(words), done.stdout.strip()[-300:], done.stderr.strip()[-300:]))
        return done.stdout.strip()

    def restore(self, copy):
        target = os.path.join(self.place.work, "restored")
        command = [self.place.store_tool, "restore", "--backup", copy, "--store", target, "--replace"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(self.rng.random() * 0.05)
        process.kill()
        process.wait()
        self.store_says(*command[1:])
        self.store_says("verify", "--store", target)
        for name in os.listdir(self.place.work):
            if name.startswith("restored"):
                shutil.rmtree(os.path.join(self.place.work, name))

    def new_partition(self, events=60):
        """A partition of which nothing was ever used, with events in it."""
        topic = self.rng.choice(TOPICS)
        number = self.partitions[topic]
        self.partitions[topic] += 1
        self.broker.admin("grow", topic, self.partitions[topic])
        return "%s/%d with %d events" % (topic, number, self.feeder.aside(self.broker, events, topic, number))

    def far_behind(self):
        """One partition has far more to read than the others, which are ahead of it and have to wait."""
        self.feeder.aside(self.broker, FAR_BEHIND, "impressions", 0)
        self.feeder.allow(len(self.feeder.produced) + 400)
        # In pieces so small that the others come between.
        self.open_life(sets=("kafka.rdkafka.fetch.message.max.bytes=32768",))
        self.started()
        aim, paused, m = len(self.feeder.produced), 0, None
        end = time.monotonic() + PATIENCE
        while self.trainer.alive() and not paused and (not m or m[RECEIVED] < aim) and time.monotonic() < end:
            m = self.trainer.metrics()
            paused = int(m[PAUSES])
        self.live(self.rng.random() * 0.2)
        self.trainer.kill()
        self.pauses += paused
        where = "one partition far behind, others %s" % ("wait" if paused else "do not wait")
        self.landed[where] += 1
        return where

    def wait_received(self, enough, what):
        end = time.monotonic() + PATIENCE
        while self.trainer.alive() and not enough(self.trainer.metrics()[RECEIVED]):
            if time.monotonic() > end:
                raise Failure("%s: not within %d s" % (what, PATIENCE))
            time.sleep(0.02)

    def early(self):
        """The trainer starts before its broker answers, and all that waits for it is in partitions that it has never used."""
        place = "nothing used"
        if self.trainer:
            self.open_life()
            self.started()
            self.wait_received(lambda n: n >= len(self.feeder.produced), "what was produced is read")
            self.trainer.kill()
            place = ", ".join(self.new_partition(150) for _ in range(2))
        else:
            self.feed(0.8)
            time.sleep(0.5)
        self.broker.kill()
        self.trainer = Trainer(self.place, self.broker, self.sets)
        self.started()
        time.sleep(0.2 + self.rng.random() * 0.5)
        self.broker.start()
        self.broker_kills += 1
        before = self.trainer.metrics()[RECEIVED]
        self.wait_received(lambda n: n > before, "something is read after the broker came")
        self.live(self.rng.random() * 0.5)
        self.trainer.kill()
        self.landed["started before its broker"] += 1
        return "started before its broker, %s" % place

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
        """The broker dies and comes back while the trainer lives, perhaps when a partition has just been found; no kill of
        the trainer."""
        self.open_life()
        self.started()
        self.live(self.rng.random() * 0.5)
        if self.rng.random() < 0.5:
            self.new_partition()
            self.live(self.rng.random() * 0.2)
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
        elif place == "early":
            where = self.early()
        elif place == "base":
            where = self.inside_base()
        elif place == "backup":
            where = self.while_copying()
        elif place == "behind":
            where = self.far_behind()
        else:
            where = self.by_fault(place)
        self.done += 1
        if self.rng.random() < SCORER_KILLS:
            self.scorer.kill()
            self.scorer_kills += 1
            self.scorer = Scorer(self.place, self.broker, self.sets)
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
        self.scorer = Scorer(self.place, self.broker, self.sets)
        places = plan(self.rng, self.kills, self.layer)
        self.lagged = "behind" in places
        sampled = set(self.rng.sample(range(self.kills), min(self.kills, max(2, self.kills // 20))))
        broker_at = set(range(12, self.kills, 25)) or {self.kills // 2}
        for i, place in enumerate(places):
            if i == self.kills * 3 // 5:
                self.say("a new partition: %s" % self.new_partition())
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
        still, last = time.monotonic(), None
        end = still + PATIENCE + total / 1000
        while True:
            m = self.trainer.metrics()
            state = m["sluice_trainer_version"], m[RECEIVED], m["sluice_trainer_outbox"]
            if state != last:
                still, last = time.monotonic(), state
            complete = state[1] >= total and not state[2]
            # Longer than join.idle_timeout: partitions have fallen silent. What is not complete then never will be.
            if time.monotonic() - still > (4 if complete else AT_REST_S):
                break
            if time.monotonic() > end or not self.trainer.alive():
                raise Failure("the trainer did not come to rest: version %d, received %d of %d, outbox %d" % (*state[:2], total, state[2]))
            time.sleep(0.25)
        self.trainer.stop(60)
        return m, total

    def compare_scorer(self):
        """The scorer has the trainer's model, in memory and in its store. Problems."""
        def sum_of(store):
            return sorted(line.split() for line in self.store_says("sum", "--store", store).splitlines() if not line.startswith("store"))
        want = sum_of(self.place.store)
        told = {"_".join(words[:-1]): words[-1] for words in want}
        said = self.scorer.wait_version(int(told["version"]), PATIENCE)
        problems = ["the scorer has %s %s, the trainer %s" % (k, said[k], told[k]) for k in ("rows", "row_sum", "dense_digest") if said[k] != told[k]]
        if "delta refused" in self.scorer.words():
            problems.append("the scorer refused a version")
        self.scorer.stop(60)
        if sum_of(self.place.scorer_store) != want:
            problems.append("the scorer's store sums up to %s, the trainer's to %s" % (sum_of(self.place.scorer_store), want))
        self.say("scorer: version %s, %s rows, after %d kills of it" % (told["version"], told["rows"], self.scorer_kills))
        return problems

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
            said = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip() and not line.startswith("[")]
            return "none, the replay says " + " ".join(said)[-300:]
        with open(report, encoding="utf-8") as f:
            return json.load(f)["digest"]

    def compare_digests(self):
        live = json.loads(subprocess.run([self.place.store_tool, "info", "--store", self.place.store, "--json"], stdout=subprocess.PIPE,
                                         check=True).stdout)
        problems = []
        digest = self.replayed("fresh")
        if digest != live["model_digest"]:
            problems.append("version %d: the uninterrupted run has another digest: %s" % (live["version"], digest))
        for version in sorted(self.samples):
            digest = self.replayed("chain", version)
            if digest != self.samples[version]:
                problems.append("version %d: --until has another digest than the live store had: %s" % (version, digest))
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
        seen, kept = evidence.crosses(self.feeder.produced), evidence.rows_of_last_table(p.store_tool, p.store)
        if kept > seen * 0.8:
            problems.append("%d rows for %d pairs of user and item: hardly any has expired" % (kept, seen))
        self.say("pairs of user and item: %d seen, %d have a row" % (seen, kept))
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
        if self.scorer and self.scorer.process.poll() is None:
            self.scorer.process.kill()
            self.scorer.process.wait()
        if self.feeder:
            self.feeder.stop()
        if self.broker.address:
            subprocess.run([self.broker.script, "kill", self.broker.folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def soak(s):
    s.run()
    killed_s = time.monotonic() - s.began
    metrics, total = s.finish()
    scorer = s.compare_scorer()
    newest, digests = s.compare_digests()
    lost, doubled, problems = s.count(metrics, total, newest)
    problems += scorer
    if s.lagged and not s.pauses:
        problems.append("no partition ever waited for another (join.max_skew)")
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
    ap.add_argument("--trainer", help="another program in its place")
    a = ap.parse_args()
    if os.environ.get("SLU_SKIP_KAFKA") == "1":
        print("skipped: SLU_SKIP_KAFKA=1, so there is no Kafka broker to test against", file=sys.stderr)
        return 77
    work = a.work or os.path.join(a.build, "tests/work/soak-%d" % os.getpid())
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    place = Place(root, a.build, work)
    place.trainer = a.trainer or place.trainer
    s = Soak(place, a.kills, a.seed, a.events, a.set)
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
