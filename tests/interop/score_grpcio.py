"""Google's own client (grpcio) asks the real sluice-scorer.

usage: score_grpcio.py SLUICE_SCORER SCORE_FEEDER CONFIG

Messages are built from what the scorer's reflection says. The model comes from score_feeder, a broker in memory.
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SCORER, FEEDER, CONFIG = sys.argv[1:4]
del sys.argv[1:4]
WAIT = 20
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Scorer:
    """A sluice-scorer process on free ports; its log is kept for the ports and for a failing test."""

    def __init__(self, brokers, store, *sets):
        settings = ["kafka.brokers=" + brokers, "serving.store=" + store, "serving.listen=127.0.0.1:0",
                    "admin.scorer=127.0.0.1:0", "log.format=logfmt", "serving.max_candidates=2000", *sets]
        command = [SCORER, "--config", CONFIG]
        for s in settings:
            command += ["--set", s]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.log = []
        self.arrived = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()
        line = self.expect(r"component=scorer msg=listening")
        self.port = int(re.search(r" port=(\d+)", line).group(1))
        self.admin = int(re.search(r" admin_port=(\d+)", line).group(1))
        self.channel = grpc.insecure_channel("127.0.0.1:%d" % self.port)

    def read(self):
        for line in self.process.stderr:
            with self.arrived:
                self.log.append(line)
                self.arrived.notify_all()

    def expect(self, pattern):
        """The first log line that matches."""
        end = time.time() + WAIT
        with self.arrived:
            while True:
                for line in self.log:
                    if re.search(pattern, line):
                        return line
                if not self.arrived.wait(end - time.time()):
                    raise AssertionError("no log line like %r in:\n%s" % (pattern, "".join(self.log)))

    def health(self):
        stub = health_pb2_grpc.HealthStub(self.channel)
        return stub.Check(health_pb2.HealthCheckRequest(service="sluice.v1.Scoring"), timeout=WAIT).status

    def http(self, path):
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.admin, path), timeout=WAIT) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def method(self):
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        method = pool.FindServiceByName("sluice.v1.Scoring").FindMethodByName("Score")
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        return request, self.channel.unary_unary("/sluice.v1.Scoring/Score",
                                                 request_serializer=request.SerializeToString,
                                                 response_deserializer=response.FromString)

    def stop(self):
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT)


class Score(unittest.TestCase):
    def setUp(self):
        self.feeder = subprocess.Popen([FEEDER, CONFIG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.brokers = self.feeder.stdout.readline().strip().split("=")[1]
        self.store = tempfile.TemporaryDirectory()
        self.scorers = []

    def tearDown(self):
        for s in self.scorers:
            if s.process.poll() is None:
                s.process.kill()
            s.process.wait()
            s.process.stderr.close()
        self.feeder.stdin.close()
        self.feeder.wait(WAIT)
        self.feeder.stdout.close()
        self.store.cleanup()

    def scorer(self, *sets):
        self.scorers.append(Scorer(self.brokers, os.path.join(self.store.name, "scorer"), *sets))
        return self.scorers[-1]

    def publish(self, what):
        self.feeder.stdin.write(what + "\n")
        self.feeder.stdin.flush()
        return int(self.feeder.stdout.readline().strip().split("=")[1])

    def await_version(self, call, request, version):
        end = time.time() + WAIT
        while time.time() < end:
            answer = call(request, timeout=WAIT)
            if answer.model_version >= version:
                return answer
            time.sleep(0.01)
        self.fail("version %d never served" % version)

    def await_metric(self, scorer, name, value):
        end = time.time() + WAIT
        while time.time() < end:
            found = re.search(r"^%s (\S+)$" % name, scorer.http("/metrics")[1], re.M)
            if found and float(found.group(1)) >= value:
                return
            time.sleep(0.05)
        self.fail("%s never reached %s: %s" % (name, value, found and found.group(0)))

    def fails(self, code, call, request):
        with self.assertRaises(grpc.RpcError) as caught:
            call(request, timeout=WAIT)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception.details()

    def full_request(self, Request, n):
        r = Request(candidates=n)
        r.shared.add(name="user_id", text=["u1"])
        r.shared.add(name="segment", integers=[4])
        r.shared.add(name="interests", text=["a", "b"])
        r.shared.add(name="recent_items", text=["i1", "i2", "i3"])
        r.shared.add(name="device", text=["phone"])
        r.shared.add(name="hour", integers=[23])
        r.columns.add(name="position", integers=range(n))
        r.columns.add(name="item_id", text=["i%d" % i for i in range(n)])
        r.columns.add(name="category", text=["c%d" % (i % 7) for i in range(n)])
        r.columns.add(name="advertiser", text=["ä%d" % (i % 5) for i in range(n)])
        r.columns.add(name="price", numbers=[i * 0.5 for i in range(n)])
        return r

    def test_life_of_a_scorer(self):
        s = self.scorer()
        Request, score = s.method()
        self.assertEqual(s.health(), NOT_SERVING)
        self.assertEqual(s.http("/readyz")[0], 503)
        self.assertIn("no model yet", self.fails(grpc.StatusCode.UNAVAILABLE, score, Request(candidates=1)))

        self.publish("base")
        s.expect("component=scorer msg=serving")
        self.assertEqual(s.health(), SERVING)
        self.assertEqual(s.http("/readyz")[0], 200)
        answer = score(self.full_request(Request, 300), timeout=WAIT)
        self.assertEqual(answer.model_version, 1)
        self.assertTrue(0 <= answer.freshness_us < 60e6)
        self.assertEqual([t.task for t in answer.tasks], ["click", "conversion"])
        click, conversion = answer.tasks
        for i in range(300):
            self.assertTrue(0 < conversion.entire_space[i] < click.entire_space[i] < 1)
            self.assertAlmostEqual(click.entire_space[i] * conversion.conditional[i], conversion.entire_space[i],
                                   delta=1e-6)
        self.assertGreater(len(set(click.conditional)), 200, "candidates differ by their price")

        version = [self.publish("delta") for _ in range(5)][-1]
        self.await_version(score, Request(candidates=1, tasks=["conversion"]), version)
        self.await_metric(s, "sluice_scorer_version", version)
        self.await_metric(s, "sluice_scorer_current", 1)
        self.assertEqual(s.stop(), 0)

        again = self.scorer()
        again.expect("component=scorer msg=serving version=%d" % version)
        Request, score = again.method()
        self.assertEqual(score(Request(candidates=2), timeout=WAIT).model_version, version)
        self.assertEqual(again.stop(), 0)

    def test_bad_requests(self):
        s = self.scorer()
        self.publish("base")
        s.expect("component=scorer msg=serving")
        Request, score = s.method()
        bad = grpc.StatusCode.INVALID_ARGUMENT
        self.assertIn("no candidates", self.fails(bad, score, Request()))
        self.assertIn("100000 candidates, this scorer takes at most 2000",
                      self.fails(bad, score, Request(candidates=100000)))
        self.assertIn("known tasks: click, conversion", self.fails(bad, score, Request(candidates=1, tasks=["buy"])))
        r = Request(candidates=9)
        r.columns.add(name="price", numbers=[1] * 7)
        self.assertIn("column 'price' has 7 values for 9 candidates", self.fails(bad, score, r))
        r = Request(candidates=1)
        r.columns.add(name="user_id", text=["u"])
        self.assertIn("send it once, in shared", self.fails(bad, score, r))
        r = Request(candidates=1)
        r.shared.add(name="prize", numbers=[1])
        self.assertIn("did you mean 'price'", self.fails(bad, score, r))
        self.assertEqual(score(Request(candidates=1), timeout=WAIT).model_version, 1)
        with self.assertRaises(grpc.RpcError) as caught:
            score(self.full_request(Request, 2000), timeout=0.0001)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)

    def test_updates_while_scoring(self):
        s = self.scorer("serving.max_wait=0s")  # four clients at once: on a busy machine they do wait for each other
        self.publish("base")
        s.expect("component=scorer msg=serving")
        Request, score = s.method()
        request = self.full_request(Request, 100)
        stop = threading.Event()

        def ask(_):
            last = count = 0
            while not stop.is_set():
                answer = score(request, timeout=WAIT)
                self.assertGreaterEqual(answer.model_version, last)
                last, count = answer.model_version, count + 1
            return count

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(ask, i) for i in range(4)]
            for i in range(30):
                version = self.publish("base" if i % 10 == 9 else "delta")
            self.await_version(score, Request(candidates=1), version)
            stop.set()
            self.assertTrue(all(r.result(WAIT) > 0 for r in running))

    def test_another_schema_is_refused_and_the_old_model_serves_on(self):
        s = self.scorer()
        self.publish("base")
        s.expect("component=scorer msg=serving")
        self.publish("foreign")
        line = s.expect("delta refused; the model stays as it is")
        self.assertIn("swipe", line)
        Request, score = s.method()
        self.assertEqual(score(Request(candidates=1), timeout=WAIT).model_version, 1)
        version = self.publish("base")
        self.await_version(score, Request(candidates=1), version)
        self.await_metric(s, "sluice_scorer_refused_total", 1)

    def test_check(self):
        command = [SCORER, "--config", CONFIG, "--set", "kafka.brokers=" + self.brokers, "--check"]
        self.assertEqual(subprocess.run(command, stdout=subprocess.DEVNULL, timeout=WAIT).returncode, 0)
        command[4] = "kafka.brokers=127.0.0.1:1"
        nobody = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=WAIT)
        self.assertEqual(nobody.returncode, 1)
        self.assertIn("start the broker or set kafka.brokers", nobody.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
