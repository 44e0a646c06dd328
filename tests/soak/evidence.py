"""What a run has left behind, read from outside: topics, the recorded order, join state, dead letters, deltas."""
import json
import struct
import subprocess
from collections import Counter, namedtuple

import fates

Message = namedtuple("Message", "partition offset timestamp_ms sequence value")
HEAD = struct.Struct("<IQQQI")
KINDS = (fates.PARTITION, fates.EVENT, fates.IDLE, fates.FLUSH)  # as enum slu_record_kind
TIMED = {fates.FLUSH: fates.CLOCK, fates.IDLE: fates.END}


def topic(tool, brokers, name):
    """All messages of a topic, by partition and offset."""
    done = subprocess.run([tool, brokers, "dump", name], stdout=subprocess.PIPE, check=True)
    messages, at, data = [], 0, done.stdout
    while at < len(data):
        *head, length = HEAD.unpack_from(data, at)
        at += HEAD.size
        messages.append(Message(*head, data[at:at + length]))
        at += length
    return messages


def dump(store_tool, store, family):
    done = subprocess.run([store_tool, "dump", "--store", store, "--family", family, "--limit", "0", "--full", "--json"],
                          stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


# ---- rows that expire

def crosses(produced):
    """How many different pairs of user and item are in the impressions."""
    pairs = set()
    for _, _, value in produced:
        if value.startswith(b'{"impression":{') and b'"item":' in value:
            features = json.loads(value)["impression"]["features"]
            pairs.add((features["user"], features["item"]))
    return len(pairs)


def rows_of_last_table(store_tool, store):
    """Rows of the feature that the configuration names last."""
    tables = Counter(e["table"] for e in dump(store_tool, store, "rows"))
    return tables[max(tables)]


# ---- the order

class _Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def byte(self):
        self.at += 1
        return self.data[self.at - 1]

    def varint(self):
        value = shift = 0
        while True:
            b = self.byte()
            value |= (b & 127) << shift
            shift += 7
            if b < 128:
                return value

    def text(self):
        n = self.varint()
        self.at += n
        return self.data[self.at - n:self.at]

    def more(self):
        return self.at < len(self.data)


def records_of(value):
    """One version's records as (kind, topic, partition, offset, time); the format is told in trainer/order.h."""
    r = _Reader(value)
    if r.byte() not in (1, 2):
        raise ValueError("an order of another format")
    places = [(r.text()[:-1].decode(), r.varint()) for _ in range(r.varint())]
    behind = [None] * len(places)
    while r.more():
        tag = r.varint()
        place, kind = tag >> 3, KINDS[tag >> 1 & 3]
        if kind != fates.EVENT:
            if tag & 1:
                kind = TIMED[kind]
            yield kind, *places[place], -1, r.varint() if tag & 1 else 0
            continue
        start = r.varint() if tag & 1 else behind[place]
        count = r.varint()
        behind[place] = start + count
        for offset in range(start, start + count):
            yield kind, *places[place], offset, 0


def order(store_tool, store):
    """(version, records) from the first version on."""
    entries = sorted((int(e["version"]), e["bytes"]) for e in dump(store_tool, store, "order"))
    return [(version, list(records_of(bytes.fromhex(text)))) for version, text in entries]


# ---- deltas

def _fields(data):
    """Fields of a protobuf message: number -> last value (ints, or bytes)."""
    r, out = _Reader(data), {}
    while r.more():
        tag = r.varint()
        if tag & 7 == 0:
            out[tag >> 3] = r.varint()
        elif tag & 7 == 1:
            r.at += 8
            out[tag >> 3] = int.from_bytes(data[r.at - 8:r.at], "little")
        elif tag & 7 == 2:
            out[tag >> 3] = r.text()
        else:
            raise ValueError("not a ModelDelta")
    return out


def check_deltas(messages, newest):
    """Problems of the delta topic: every version once, in order, never with two contents."""
    seen, first, problems, lineages = {}, [], [], set()
    for m in messages:
        f = _fields(m.value)
        lineages.add(f.get(12, 0))
        if f.get(2) == 2:
            continue
        version, chunk = f.get(1, 0), f.get(4, 0)
        if (version, chunk) not in seen:
            seen[version, chunk] = m.value
            first.append((version, chunk))
        elif seen[version, chunk] != m.value:
            problems.append("version %d chunk %d was published with two contents" % (version, chunk))
        if f.get(3, 0) != version - 1:
            problems.append("version %d follows version %d" % (version, f.get(3, 0)))
    if first != sorted(first):
        problems.append("versions first appear out of order")
    versions = sorted({v for v, _ in first})
    if versions != list(range(1, newest + 1)):
        gaps = sorted(set(range(1, newest + 1)) ^ set(versions))
        problems.append("versions missing or too many: %s" % gaps[:10])
    if len(lineages) > 1:
        problems.append("%d lineages" % len(lineages))
    return problems, len(messages) - len(first)


# ---- events

def check_topics(produced, topics):
    """What was produced is in the topics, each line once: lost, doubled (the harness's own doing, not Sluice's)."""
    there = Counter((name, m.value) for name, messages in topics.items() for m in messages)
    wanted = Counter((name, value) for name, _, value in produced)
    return sum((wanted - there).values()), sum((there - wanted).values())


def check_order(versions, topics):
    """Every message used exactly once and in the order of its partition. (lost, doubled, problems)"""
    used = Counter()
    behind, problems = {}, []
    for place, (version, records) in enumerate(versions):
        if version != place + 1:
            problems.append("order of version %d is missing" % (place + 1))
            break
        for kind, name, number, offset, _ in records:
            if kind != fates.EVENT:
                continue
            used[name, number, offset] += 1
            if offset != behind.get((name, number), 0):
                problems.append("version %d: %s/%d goes from %d to %d" % (version, name, number, behind.get((name, number), 0), offset))
            behind[name, number] = offset + 1
    there = {(name, m.partition, m.offset) for name, messages in topics.items() for m in messages}
    lost = len(there - set(used))
    doubled = sum(n - 1 for n in used.values()) + len(set(used) - there)
    return lost, doubled, problems


def expected(rules, versions, topics):
    """The fates of the recorded order."""
    messages = {(name, m.partition, m.offset): m for name, list_ in topics.items() for m in list_}
    f = fates.Fates(rules)
    for _, records in versions:
        for kind, name, number, offset, time in records:
            m = messages.get((name, number, offset))
            if kind != fates.EVENT:
                f.feed(kind, name, number, time=time)
            elif m:
                f.feed(kind, name, number, offset, m.timestamp_ms * 1000, m.value)
    return f


def _letter(value):
    x = json.loads(value)
    if "topic" in x:
        return "record", x["topic"], x["partition"], x["offset"], x["reason"]
    return "step", x["id"], x["impression_id"], x["step"], x["time_us"], x["reason"]


def check_letters(messages, wanted):
    """Dead letters against the expected ones, place by place: (lost, doubled, problems). A letter may be in the topic more
    than once (sent again after a kill) but always under the same sequence."""
    by_sequence, problems = {}, []
    for m in messages:
        if by_sequence.setdefault(m.sequence, m.value) != m.value:
            problems.append("dead letter %d has two contents" % m.sequence)
    found = [_letter(by_sequence[s]) for s in sorted(by_sequence)]
    if sorted(by_sequence) != list(range(1, len(by_sequence) + 1)):
        problems.append("sequences of dead letters have gaps")
    missing, extra = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
    for letter in list(missing)[:3]:
        problems.append("no dead letter for %s" % (letter,))
    for letter in list(extra)[:3]:
        problems.append("a dead letter too many: %s" % (letter,))
    if not missing and not extra and found != list(wanted):
        problems.append("dead letters are not in the order of their events")
    return sum(missing.values()), sum(extra.values()), problems


def check_join_state(tool, store_tool, store, wanted):
    """Join records against the expected ones by impression id: (lost, doubled, problems)."""
    ids = list(wanted)
    done = subprocess.run([tool, "-", "keys"], input="".join(i + "\n" for i in ids), stdout=subprocess.PIPE, text=True, check=True)
    by_key = {key: wanted[i] for i, key in zip(ids, done.stdout.split())}
    found = {e["key"]: tuple(bytes.fromhex(e["bytes"])[:2]) for e in dump(store_tool, store, "join")}
    lost = sum(1 for key in by_key if key not in found)
    doubled = sum(1 for key in found if key not in by_key)
    other = [key for key in by_key if key in found and by_key[key] != found[key]]
    return lost + len(other), doubled, ["join record %s is %s, expected %s" % (k, found[k], by_key[k]) for k in other[:3]]
