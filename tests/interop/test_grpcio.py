"""Google's own client (grpcio) against our gRPC server.

usage: test_grpcio.py ECHO_SERVER_BINARY

No generated code: every message class is built from what the server's reflection says, as grpcurl does.
"""
import os
import signal
import subprocess
import sys
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVER = sys.argv.pop(1)
WAIT = 10


def raw(channel, path):
    return channel.unary_unary(path, request_serializer=None, response_deserializer=None)


class Interop(unittest.TestCase):
    def setUp(self):
        self.server = subprocess.Popen([SERVER, "0", "2"], stdout=subprocess.PIPE, text=True)
        self.address = "127.0.0.1:" + self.server.stdout.readline().strip().split("=")[1]
        self.channel = grpc.insecure_channel(self.address, [("grpc.max_receive_message_length", 64 << 20)])

    def tearDown(self):
        self.channel.close()
        self.server.terminate()
        self.assertEqual(self.server.wait(WAIT), 0, "the server drains and ends well")
        self.server.stdout.close()

    def fails(self, code, call, *args, **kw):
        with self.assertRaises(grpc.RpcError) as caught:
            call(*args, timeout=kw.pop("timeout", WAIT), **kw)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        return caught.exception.details()

    def score(self):
        """Score's request class and a callable, both from reflection alone."""
        database = ProtoReflectionDescriptorDatabase(self.channel)
        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName("sluice.v1.Scoring").FindMethodByName("Score")
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        call = self.channel.unary_unary("/sluice.v1.Scoring/Score", request_serializer=request.SerializeToString,
                                        response_deserializer=response.FromString)
        return request, call

    def test_score_from_reflection_alone(self):
        request, score = self.score()
        answer = score(request(candidates=3, tasks=["click", "conversion"],
                               columns=[{"name": "item", "text": ["a", "b", "c"]}]), timeout=WAIT)
        self.assertEqual([t.task for t in answer.tasks], ["click", "conversion"])
        self.assertEqual(list(answer.tasks[1].conditional), [.25] * 3)
        self.assertEqual(answer.model_version, 7)

    def test_messages_travel_in_any_alphabet(self):
        request, score = self.score()
        details = self.fails(grpc.StatusCode.INVALID_ARGUMENT, score, request())
        self.assertEqual(details, "wrong number of candidates — 1 to 100000 candidates, 100 % proto")

    def test_sixteen_at_once(self):
        echo = raw(self.channel, "/sluice.test.Echo/Echo")
        with ThreadPoolExecutor(16) as threads:
            sent = [bytes([i % 251]) * (i * 37) for i in range(800)]
            self.assertEqual(list(threads.map(lambda b: echo(b, timeout=WAIT), sent)), sent)

    def test_large_both_ways(self):
        echo = raw(self.channel, "/sluice.test.Echo/Echo")
        for size in (0, 1, 16379, 16384, 65535, 1 << 20, 4 << 20):
            body = os.urandom(size)
            self.assertEqual(echo(body, timeout=WAIT), body, size)
        request, score = self.score()
        self.assertEqual(len(score(request(candidates=100000), timeout=WAIT).tasks[0].conditional), 100000)

    def test_oversize_is_refused_and_the_channel_lives(self):
        echo = raw(self.channel, "/sluice.test.Echo/Echo")
        details = self.fails(grpc.StatusCode.RESOURCE_EXHAUSTED, echo, b"x" * (12 << 20))
        self.assertIn("serving.max_request", details)
        self.assertEqual(echo(b"still here", timeout=WAIT), b"still here")

    def test_unknown_method_and_service(self):
        for path in ("/sluice.v1.Scoring/Guess", "/no.such.Service/Call"):
            self.assertIn(path, self.fails(grpc.StatusCode.UNIMPLEMENTED, raw(self.channel, path), b""))

    def test_deadline(self):
        sleep = raw(self.channel, "/sluice.test.Echo/Sleep")
        self.fails(grpc.StatusCode.DEADLINE_EXCEEDED, sleep, b"x" * 500, timeout=.1)
        self.assertEqual(sleep(b"x", timeout=WAIT), b"")

    def test_cancel(self):
        call = raw(self.channel, "/sluice.test.Echo/Sleep").future(b"x" * 200)
        call.cancel()
        self.assertTrue(call.cancelled())
        self.assertEqual(raw(self.channel, "/sluice.test.Echo/Echo")(b"a", timeout=WAIT), b"a")

    def test_compression_is_refused_with_a_reason(self):
        echo = raw(self.channel, "/sluice.test.Echo/Echo")
        details = self.fails(grpc.StatusCode.UNIMPLEMENTED, echo, b"y" * 9999, compression=grpc.Compression.Gzip)
        self.assertTrue(details)
        self.assertEqual(echo(b"plain", timeout=WAIT), b"plain")

    def test_busy_server_refuses_at_once(self):
        """More calls than max_queue (512) behind a sleeping handler: some are refused, none is lost."""
        channels = [grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(6)]
        calls = [raw(channels[i % 6], "/sluice.test.Echo/Sleep").future(b"x", timeout=60) for i in range(1536)]
        codes = [c.code() for c in calls]
        self.assertGreater(codes.count(grpc.StatusCode.OK), 500)
        self.assertEqual(codes.count(grpc.StatusCode.OK) + codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED), 1536)
        for c in channels:
            c.close()

    def test_health_check(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        for name in ("", "sluice.v1.Scoring", "grpc.health.v1.Health"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=WAIT)
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
        self.fails(grpc.StatusCode.NOT_FOUND, health.Check, health_pb2.HealthCheckRequest(service="other"))

    def test_health_watch(self):
        status = health_pb2.HealthCheckResponse
        health = health_pb2_grpc.HealthStub(self.channel)
        unknown = health.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=WAIT)
        self.assertEqual(next(unknown).status, status.SERVICE_UNKNOWN)
        unknown.cancel()
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
        self.assertEqual(next(watch).status, status.SERVING)
        self.server.send_signal(signal.SIGUSR1)
        self.assertEqual(next(watch).status, status.NOT_SERVING)
        self.server.send_signal(signal.SIGUSR2)
        self.assertEqual(next(watch).status, status.SERVING)
        self.server.terminate()
        self.assertEqual(next(watch).status, status.NOT_SERVING)
        self.assertEqual(self.fails_next(watch), grpc.StatusCode.UNAVAILABLE)

    def fails_next(self, stream):
        with self.assertRaises(grpc.RpcError) as caught:
            next(stream)
        return caught.exception.code()

    def reflect(self, stub, *requests):
        return list(stub.ServerReflectionInfo(iter(requests), timeout=WAIT))

    def test_reflection(self):
        stub = reflection_pb2_grpc.ServerReflectionStub(self.channel)
        r = reflection_pb2.ServerReflectionRequest
        listed, by_name, by_symbol, missing, numbers, again = self.reflect(
            stub, r(list_services="*"), r(file_by_filename="sluice/v1/event.proto"),
            r(file_containing_symbol="sluice.v1.Scoring.Score"), r(file_containing_symbol="no.such.Thing"),
            r(all_extension_numbers_of_type="sluice.v1.ScoreRequest"), r(list_services=""))
        names = [s.name for s in listed.list_services_response.service]
        self.assertEqual(names, ["sluice.v1.Scoring", "sluice.test.Echo", "grpc.health.v1.Health",
                                 "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"])
        self.assertEqual(len(by_name.file_descriptor_response.file_descriptor_proto), 1)
        self.assertTrue(by_symbol.file_descriptor_response.file_descriptor_proto)
        self.assertEqual(missing.error_response.error_code, grpc.StatusCode.NOT_FOUND.value[0])
        self.assertIn("no.such.Thing", missing.error_response.error_message)
        self.assertEqual(numbers.all_extension_numbers_response.base_type_name, "sluice.v1.ScoreRequest")
        self.assertEqual(len(again.list_services_response.service), 5)

    def test_reflection_v1_has_the_same_answers(self):
        """grpcio ships v1alpha stubs only; v1 has the same bytes under another path."""
        r = reflection_pb2.ServerReflectionRequest
        call = self.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                                          request_serializer=r.SerializeToString,
                                          response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)
        answers = list(call(iter([r(list_services="*")] * 300), timeout=WAIT))
        self.assertEqual(len(answers), 300)
        self.assertEqual(len(answers[-1].list_services_response.service), 5)

    def test_drain_finishes_what_runs(self):
        sleep = raw(self.channel, "/sluice.test.Echo/Sleep")
        sleep(b"", timeout=WAIT)
        call = sleep.future(b"x" * 400, timeout=WAIT)
        time.sleep(.1)
        self.server.terminate()
        self.assertEqual(call.result(), b"")

    def test_idle_costs_nothing(self):
        raw(self.channel, "/sluice.test.Echo/Echo")(b"a", timeout=WAIT)
        time.sleep(.5)

        def ticks():
            with open(f"/proc/{self.server.pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        before = ticks()
        time.sleep(2)
        self.assertLessEqual(ticks() - before, 1)


if __name__ == "__main__":
    threading.excepthook = lambda args: os._exit(9)
    unittest.main(verbosity=2)
