"""What must become of each event: a small joiner of its own, written from the documentation, that shares no code with Sluice.

Fates.feed() takes the records of a run in their recorded order. It knows only what docs/config.md and the headers of
trainer/joiner.h and trainer/watermark.h promise; policy fnw. Afterwards `letters` are the dead letters that must have been
written, in their order, and `waiting` what the join state must hold."""
import heapq
import json
from collections import Counter

EVENT, PARTITION, IDLE, FLUSH, CLOCK, END = "event", "partition", "idle", "flush", "clock", "end"
NOTHING = -(1 << 63)
DAY = 86400 * 10**6
CLOCK_GRAIN = 10**6
MOST_ORPHANS = 16
EVENT_CLOSES, RECORD_CLOSES = 16, 64  # timers that an event, and a record without one, sets off; the next ones go on


class Rules:
    """The few numbers of the configuration that decide fates; times in microseconds."""

    def __init__(self, steps, windows, lateness, orphan_wait, max_future, max_behind, max_bytes, fields):
        self.steps, self.windows, self.lateness, self.orphan_wait = steps, windows, lateness, orphan_wait
        self.max_future, self.max_behind, self.max_bytes, self.fields = max_future, max_behind, max_bytes, set(fields)


class Refused(Exception):
    pass


def _whole(x):
    return isinstance(x, int) and not isinstance(x, bool)


def _identity(x, key):
    v = x.get(key)
    if not isinstance(v, str) or not v:
        raise Refused("malformed")
    return v


def parse(rules, value):
    """(kind, id, impression id, step, time) or Refused with the reason."""
    if len(value) > rules.max_bytes:
        raise Refused("too_large")
    try:
        event = json.loads(value.decode("utf-8"))
    except ValueError:
        raise Refused("malformed") from None
    if not isinstance(event, dict) or ("impression" in event) == ("step" in event):
        raise Refused("malformed")
    body = event.get("impression", event.get("step"))
    if not isinstance(body, dict):
        raise Refused("malformed")
    identity = _identity(body, "id")
    impression = identity if "impression" in event else _identity(body, "impression_id")
    step = None
    if "step" in event:
        if body.get("step") not in rules.steps:
            raise Refused("unknown_step")
        step = rules.steps.index(body["step"])
    time = body.get("time_us")
    if not _whole(time) or time <= 0:
        raise Refused("malformed")
    if not set(body.get("features", {})) <= rules.fields:
        raise Refused("unknown_feature")
    return step is not None, identity, impression, step, time


def wrong_unit(time, arrival):
    """Seconds or milliseconds where microseconds are wanted."""
    return time < 10**14 and (abs(time * 1000 - arrival) < 400 * DAY or time < 10**11 and abs(time * 10**6 - arrival) < 400 * DAY)


class _Partition:
    def __init__(self):
        self.newest, self.idle = NOTHING, False
        self.arrival = self.usable = self.end = 0  # of its last message, of its last usable one; when it was read to its end

    def behind(self, most):
        return most and self.usable and self.newest != NOTHING and self.usable - self.newest > most

    def hold(self, most):
        """Up to where it lets event time go."""
        if self.newest != NOTHING:
            return self.newest + max(0, self.arrival - self.usable)
        return self.arrival - most if most and self.arrival else NOTHING


class _Impression:
    def __init__(self, time):
        self.time, self.steps, self.timer = time, {}, 0


class _Orphans:
    def __init__(self):
        self.steps, self.timer = [], 0


class Fates:
    def __init__(self, rules):
        self.rules = rules
        self.partitions = {}
        self.watermark, self.clock = NOTHING, None
        self.waiting = {}        # impression id -> _Impression or _Orphans
        self.timers, self.armed = [], 0
        self.letters = []        # ("record", topic, partition, offset, reason) or ("step", id, impression, step, time, reason)
        self.received = self.learned = 0
        self.kinds = Counter()   # impressions and steps that could be read

    # ---- event time

    def _recompute(self):
        most = self.rules.max_behind
        active = [p for p in self.partitions.values() if not p.idle]
        if any(p.newest != NOTHING and not p.behind(most) for p in active):
            active = [p for p in active if not p.behind(most)]
        if active:
            least = min(p.hold(most) for p in active)
            if least != NOTHING:
                self.watermark = max(self.watermark, least - self.rules.lateness)

    def _arrived(self, partition, stamp):
        """When a message came, as far as that can be known."""
        if self.clock is not None:
            stamp = min(stamp, self.clock + CLOCK_GRAIN)
        partition.arrival = max(stamp, partition.end)
        return partition.arrival

    def _arm(self, deadline, impression):
        self.armed += 1
        heapq.heappush(self.timers, (max(deadline, 0), self.armed, impression))
        return self.armed

    def _advance(self, most):
        for _ in range(most):
            if not self.timers or self.timers[0][0] > self.watermark:
                return
            _, sequence, impression = heapq.heappop(self.timers)
            record = self.waiting.get(impression)
            if record is None or record.timer != sequence:
                continue
            if isinstance(record, _Impression):
                self.learned += 1 + len(record.steps)
                del self.waiting[impression]
            else:
                self._give_up(impression, record)

    # ---- steps whose impression is missing

    def _give_up(self, impression, record):
        wait = self.rules.orphan_wait
        dead = [s for s in record.steps if s[2] + wait <= self.watermark]
        record.steps = [s for s in record.steps if s[2] + wait > self.watermark]
        if record.steps:
            record.timer = self._arm(min(s[2] for s in record.steps) + wait, impression)
        else:
            del self.waiting[impression]
        for identity, step, time in dead:
            self.letters.append(("step", identity, impression, self.rules.steps[step], time, "orphan"))

    def _wait(self, identity, impression, step, time):
        record = self.waiting.get(impression)
        deadline = time + self.rules.orphan_wait
        if deadline <= self.watermark or (record and len(record.steps) == MOST_ORPHANS):
            return "orphan"
        if record and any(s[0] == identity and s[1] == step for s in record.steps):
            return "duplicate"
        if not record:
            record = self.waiting[impression] = _Orphans()
            record.timer = self._arm(deadline, impression)
        record.steps.append((identity, step, time))
        return None

    def _join(self, record, identity, step, time):
        if step in record.steps:
            return "duplicate" if record.steps[step] == identity else "repeated"
        if not record.time <= time <= record.time + self.rules.windows[step]:
            return "outside_window"
        record.steps[step] = identity
        return None

    # ---- events

    def _impression(self, impression, time):
        record = self.waiting.get(impression)
        if isinstance(record, _Impression):
            return "duplicate"
        if time + self.rules.windows[-1] <= self.watermark:
            return "late"
        fresh = self.waiting[impression] = _Impression(time)
        fresh.timer = self._arm(time + self.rules.windows[-1], impression)
        for identity, step, at in record.steps if record else ():
            why = self._join(fresh, identity, step, at)
            if why:
                self.letters.append(("step", identity, impression, self.rules.steps[step], at, why))
        return None

    def _open(self, arrival, value):
        """The event, or Refused."""
        event = parse(self.rules, value)
        is_step, _, _, step, time = event
        self.kinds["impression" if not is_step else self.rules.steps[step]] += 1
        if wrong_unit(time, arrival):
            raise Refused("malformed")
        if time > arrival + self.rules.max_future:
            raise Refused("future")
        return event

    def _take(self, partition, event):
        is_step, identity, impression, step, time = event
        partition.newest = max(partition.newest, time)
        partition.usable = partition.arrival
        self._recompute()
        self._advance(EVENT_CLOSES)
        if not is_step:
            return self._impression(impression, time)
        record = self.waiting.get(impression)
        if isinstance(record, _Impression):
            return self._join(record, identity, step, time)
        return self._wait(identity, impression, step, time)

    def _event(self, partition, stamp, value):
        """The reason for a dead letter, None."""
        self.received += 1
        arrival = self._arrived(partition, stamp)
        partition.idle = False
        try:
            event = self._open(arrival, value)
        except Refused as refused:
            self._recompute()
            self._advance(EVENT_CLOSES)
            return str(refused)
        why = self._take(partition, event)
        return "behind" if why == "late" and partition.behind(self.rules.max_behind) else why

    def feed(self, kind, topic, number, offset=-1, time=0, value=b""):
        """One record; |time| is the stamp of an event, or what the clock said."""
        partition = self.partitions.setdefault((topic, number), _Partition())
        if kind == PARTITION:
            partition.idle = False
        elif kind == IDLE:
            partition.idle = True
            self._recompute()
            self._advance(RECORD_CLOSES)
        elif kind == FLUSH:
            self._advance(RECORD_CLOSES)
        elif kind == CLOCK:
            self.clock = time
        elif kind == END:
            partition.end = time
        elif kind == EVENT:
            why = self._event(partition, time, value)
            if why:
                self.letters.append(("record", topic, number, offset, why))

    # ---- the end

    def state(self):
        """impression id -> (kind, steps) as the join records begin: 1 and a mask of steps, or 2 and how many wait."""
        return {i: (1, sum(1 << s for s in r.steps)) if isinstance(r, _Impression) else (2, len(r.steps))
                for i, r in self.waiting.items()}

    def waiting_events(self):
        return sum(1 + len(r.steps) if isinstance(r, _Impression) else len(r.steps) for r in self.waiting.values())

    def reasons(self):
        return Counter(letter[-1] for letter in self.letters)
