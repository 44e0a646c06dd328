"""A seeded stream of events as badly behaved as real ones: lines of topic TAB key TAB value for kafka_tool produce.

A thousand impressions take one second of event time. Most events come nearly in order; some come twice, some come seconds
late, some cannot be read at all. The same seed gives the same lines."""
import json
import random

USERS, ITEMS = 3000, 400
GARBAGE = [
    b"", b"{", b"null", b"[1,2]", b"\xff\xfe\x00\x01", b"{}", b'{"impression":{"id":"","time_us":1}}',
    b'{"impression":{"id":"x"}}', b'{"impression":{"id":"\xc3\x28","time_us":1}}',
    b'{"step":{"id":"e","step":"click","impression_id":"","time_us":5}}', b'{"impression":{"id":"a","time_us":1e400}}',
    b'{"impression":{"id":"n","time_us":17},"step":{"id":"n","step":"click","impression_id":"n","time_us":17}}',
]
STEPS = ("click", "conversion")
TOPIC_OF = {"click": "clicks", "conversion": "conversions"}


def _text(event):
    return json.dumps(event, separators=(",", ":")).encode()


class Stream:
    def __init__(self, seed, start_us):
        self.random = random.Random(seed)
        self.seed, self.time_us, self.made = seed, start_us, 0
        self.held = [None] * 24      # lines that wait a few places
        self.late = []               # (place in the stream, line) of those that wait for long
        self.recent = [[0] for _ in range(USERS)]
        self.popularity = [1 / (1 + i) ** 0.8 for i in range(ITEMS)]
        self.items = iter(())
        self.out = []

    def _item(self):
        item = next(self.items, None)
        if item is None:
            self.items = iter(self.random.choices(range(ITEMS), self.popularity, k=4096))
            item = next(self.items)
        return item

    def _send(self, topic, key, value):
        """Some places later, perhaps twice, perhaps much later."""
        r, line = self.random, (topic, key, value)
        chance = r.random()
        if chance < 0.004:
            self.late.append((self.made + r.randrange(1500, 9000), line))
        else:
            place = r.randrange(3 * len(self.held))
            if place < len(self.held):
                line, self.held[place] = self.held[place], line
            if line:
                self.out.append(line)
            if line and chance > 0.97:
                self.out.append(line)

    def _step(self, name, number, time_us, impression, event_id=None):
        event = {"step": {"id": event_id or "%s%d-%d" % (name[:2], self.seed, number), "step": name,
                          "impression_id": impression, "time_us": time_us}}
        self._send(TOPIC_OF.get(name, "clicks"), impression, _text(event))

    def _funnel(self, number, impression, chance):
        r, at = self.random, self.time_us
        for name in STEPS:
            if r.random() > chance:
                return
            # Now and then outside its window.
            at += r.randrange(400_000) if r.random() < 0.97 else r.randrange(2_500_000)
            self._step(name, number, at, impression)
            if r.random() < 0.02:
                self._step(name, number, at + 1, impression, "again%d-%d" % (self.seed, number))

    def _mischief(self, number):
        r = self.random
        kind = r.randrange(7)
        if kind <= 2:
            value = r.choice(GARBAGE) if r.random() < 0.7 else bytes(r.choice(range(11, 256)) for _ in range(r.randrange(40)))
            self._send(r.choice(("impressions", "clicks", "conversions")), "x%d" % number, value)
        elif kind == 3:
            self._send("impressions", "big%d" % number, b'{"impression":"' + b"x" * r.randrange(16500, 30000) + b'"}')
        elif kind == 4:
            event = {"impression": {"id": "u%d-%d" % (self.seed, number), "time_us": self.time_us, "features": {"colour": "red"}}}
            self._send("impressions", "u%d" % number, _text(event))
        elif kind == 5:
            self._step("purchase", number, self.time_us, "i%d-%d" % (self.seed, number))
        else:
            event = {"impression": {"id": "f%d-%d" % (self.seed, number), "time_us": self.time_us + 40 * 365 * 86400 * 10**6}}
            self._send("impressions", "f%d" % number, _text(event))

    def _impression(self):
        r, number = self.random, self.made
        self.made += 1
        self.time_us += r.randrange(1, 2000)
        user, item = r.randrange(USERS), self._item()
        impression = "i%d-%d" % (self.seed, number)
        features = {"user": "u%d" % user, "interests": ["k%d" % (user % 17), "k%d" % (user % 5)],
                    "recent": self.recent[user][-6:], "hour": number // 1000 % 24, "item": item, "price": item % 50 + 0.5}
        self._send("impressions", impression, _text({"impression": {"id": impression, "time_us": self.time_us, "features": features}}))
        self.recent[user] = self.recent[user][-5:] + [item]
        self._funnel(number, impression, 0.12 + 0.4 * (item % 7 == 0))
        if r.random() < 0.004:
            self._step("click", number, self.time_us, "nobody%d-%d" % (self.seed, number))
        if r.random() < 0.008:
            self._mischief(number)
        while self.late and self.late[0][0] <= number:
            self.out.append(self.late.pop(0)[1])

    def take(self, n):
        """The next n lines."""
        while len(self.out) < n:
            self._impression()
        lines, self.out = self.out[:n], self.out[n:]
        return lines
