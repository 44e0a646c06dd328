#!/usr/bin/env python3
"""tests/soak/test_evidence.py: the soak's account sees what it is there to see, also when numbers cancel out."""
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import evidence  # noqa: E402
import fates  # noqa: E402
from evidence import Message  # noqa: E402

RULES = fates.Rules(("click", "conversion"), (1000, 2000), lateness=100, orphan_wait=500, max_future=10**6, max_behind=0, max_bytes=200,
                    fields=("user",))


T = 10**15  # an hour on which all this happens


def impression(identity, time, **features):
    return json.dumps({"impression": {"id": identity, "time_us": T + time if time else 0, "features": features}}).encode()


def step(identity, of, time, name="click"):
    return json.dumps({"step": {"id": identity, "step": name, "impression_id": of, "time_us": T + time}}).encode()


def run(*values):
    f = fates.Fates(RULES)
    for i, value in enumerate(values):
        f.feed(fates.EVENT, "t", 0, i, T + 10**6, value)
    return f


class FatesTest(unittest.TestCase):
    def reasons(self, *values):
        return [letter[-1] for letter in run(*values).letters]

    def test_what_cannot_be_read(self):
        self.assertEqual(self.reasons(b"{", b"[]", impression("", 5), impression("i", 0), impression("i", 5, colour="red"),
                                      step("s", "i", 5, "sale"), b"x" * 201, impression("i", 3 * 10**6)),
                         ["malformed"] * 4 + ["unknown_feature", "unknown_step", "too_large", "future"])

    def test_a_join(self):
        f = run(impression("a", 1000), step("s", "a", 1500), step("s", "a", 1500), step("other", "a", 1501), step("v", "a", 3050,
                "conversion"))
        self.assertEqual([x[-1] for x in f.letters], ["duplicate", "repeated", "outside_window"])
        self.assertEqual((f.received, f.learned, f.state()), (5, 0, {"a": (1, 1)}))
        f.feed(fates.EVENT, "t", 0, 5, T + 10**6, impression("b", 3100))   # closes the window
        self.assertEqual((f.received, f.learned, f.state()), (6, 2, {"b": (1, 0)}))

    def test_late_and_orphans(self):
        f = run(step("s", "a", 1000), impression("b", 1200), impression("c", 1700), impression("d", 5000), impression("e", 2000))
        self.assertEqual(f.letters, [("step", "s", "a", "click", T + 1000, "orphan"), ("record", "t", 0, 4, "late")])
        self.assertEqual((f.learned, f.state()), (2, {"d": (1, 0)}))

    def test_a_step_that_waited(self):
        f = run(step("s", "a", 1000), step("s", "a", 1000), impression("a", 900))
        self.assertEqual([x[-1] for x in f.letters], ["duplicate"])
        self.assertEqual(f.state(), {"a": (1, 1)})

    def test_arrival_is_bounded_by_our_clock(self):
        f = fates.Fates(RULES)
        f.feed(fates.CLOCK, "t", 0, time=T + 10**6)
        f.feed(fates.EVENT, "t", 0, 0, T + 9 * 10**6, impression("a", 3 * 10**6 + 1))
        f.feed(fates.EVENT, "t", 0, 1, T + 9 * 10**6, impression("b", 3 * 10**6))
        self.assertEqual(f.letters, [("record", "t", 0, 0, "future")])

    def test_the_slowest_partition_holds(self):
        f = fates.Fates(RULES)
        f.feed(fates.PARTITION, "t", 0)
        f.feed(fates.PARTITION, "t", 1)
        f.feed(fates.EVENT, "t", 0, 0, T + 10**6, impression("a", 5000))
        self.assertEqual(f.watermark, fates.NOTHING)
        f.feed(fates.IDLE, "t", 1)
        self.assertEqual(f.watermark, T + 4900)


    def test_a_leap_closes_some_windows_at_a_time(self):
        f, n = fates.Fates(RULES), fates.EVENT_CLOSES + fates.RECORD_CLOSES + 5
        for i in range(n):
            f.feed(fates.EVENT, "t", 0, i, T + 10**6, impression("i%d" % i, 1000))
        f.feed(fates.EVENT, "t", 0, n, T + 10**9, impression("late", 10**9))
        self.assertEqual(f.learned, fates.EVENT_CLOSES)
        f.feed(fates.FLUSH, "", 0)
        self.assertEqual(f.learned, fates.EVENT_CLOSES + fates.RECORD_CLOSES)
        f.feed(fates.FLUSH, "", 0)
        self.assertEqual(f.learned, n)


class EvidenceTest(unittest.TestCase):
    topics = {"t": [Message(0, i, 1, 0, impression("i%d" % i, 1000 + i)) for i in range(4)]}

    def order(self, *versions):
        return [(i + 1, [(fates.EVENT, "t", 0, offset, 0) for offset in v]) for i, v in enumerate(versions)]

    def test_each_once(self):
        self.assertEqual(evidence.check_order(self.order([0, 1], [2, 3]), self.topics), (0, 0, []))

    def test_one_lost_and_one_doubled_do_not_cancel(self):
        lost, doubled, problems = evidence.check_order(self.order([0, 1], [1, 3]), self.topics)
        self.assertEqual((lost, doubled), (1, 1))
        self.assertTrue(problems)

    def test_a_version_is_missing(self):
        versions = self.order([0, 1], [2, 3])
        self.assertTrue(evidence.check_order(versions[1:], self.topics)[2])

    def test_reading_an_order(self):
        value = bytes([2, 1, 2]) + b"t\0" + bytes([3, 0 << 1, 1 << 1 | 1, 5, 2, 2 << 1, 3 << 1 | 1, 9, 2 << 1 | 1, 10])
        self.assertEqual(list(evidence.records_of(value)), [
            (fates.PARTITION, "t", 3, -1, 0), (fates.EVENT, "t", 3, 5, 0), (fates.EVENT, "t", 3, 6, 0), (fates.IDLE, "t", 3, -1, 0),
            (fates.CLOCK, "t", 3, -1, 9), (fates.END, "t", 3, -1, 10)])

    def letters(self, *numbers):
        text = '{"reason":"late","topic":"t","partition":0,"offset":%d}'
        return [Message(0, i, 1, sequence, (text % offset).encode()) for i, (sequence, offset) in enumerate(numbers)]

    def test_letters(self):
        wanted = [("record", "t", 0, 7, "late"), ("record", "t", 0, 9, "late")]
        self.assertEqual(evidence.check_letters(self.letters((1, 7), (2, 9), (2, 9)), wanted), (0, 0, []))
        self.assertEqual(evidence.check_letters(self.letters((1, 7), (2, 7)), wanted)[:2], (1, 1))
        self.assertTrue(evidence.check_letters(self.letters((1, 7), (2, 9), (1, 9)), wanted)[2])
        self.assertTrue(evidence.check_letters(self.letters((1, 7), (3, 9)), wanted)[2])
        self.assertTrue(evidence.check_letters(self.letters((1, 9), (2, 7)), wanted)[2])

    def delta(self, version, content=b"", previous=None):
        previous = version - 1 if previous is None else previous
        return Message(0, 0, 1, 0, bytes([8, version, 16, 1, 24, previous, 32, 0, 58, len(content)]) + content)

    def test_deltas(self):
        first, second = self.delta(1, b"x"), self.delta(2, b"y")
        self.assertEqual(evidence.check_deltas([first, second, first, second], 2), ([], 2))
        self.assertTrue(evidence.check_deltas([first], 2)[0])
        self.assertTrue(evidence.check_deltas([second, first], 2)[0])
        self.assertTrue(evidence.check_deltas([first, second, self.delta(2, b"z")], 2)[0])
        self.assertTrue(evidence.check_deltas([first, self.delta(2, b"y", previous=0)], 2)[0])


if __name__ == "__main__":
    unittest.main()
