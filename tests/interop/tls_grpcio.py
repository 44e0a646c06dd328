"""Google's own client (grpcio) asks the real sluice-scorer over TLS and mutual TLS, and is refused where it must be.

usage: tls_grpcio.py SLUICE_SCORER SCORE_FEEDER CONFIG TLS_CERTIFICATES SLUICE_SIM
"""
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SCORER, FEEDER, CONFIG, CERTIFICATES, SIM = sys.argv[1:6]
del sys.argv[1:6]
WAIT = 20
SERVING = health_pb2.HealthCheckResponse.SERVING


class Tls(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp()
        subprocess.run([CERTIFICATES, self.dir], check=True)
        self.feeder = subprocess.Popen([FEEDER, CONFIG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.brokers = self.feeder.stdout.readline().strip().split("=")[1]
        self.feeder.stdin.write("base\n")
        self.feeder.stdin.flush()
        self.feeder.stdout.readline()
        self.process = None

    def tearDown(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.reader.join(WAIT)
            self.process.stderr.close()
        self.feeder.stdin.close()
        self.feeder.wait(WAIT)
        self.feeder.stdout.close()
        shutil.rmtree(self.dir)

    def at(self, name):
        return os.path.join(self.dir, name)

    def bytes_of(self, name):
        with open(self.at(name), "rb") as f:
            return f.read()

    def command(self, *sets):
        settings = ["kafka.brokers=" + self.brokers, "serving.store=" + self.at("store"), "serving.listen=127.0.0.1:0",
                    "admin.scorer=127.0.0.1:0", "log.format=logfmt", *sets]
        return [SCORER, "--config", CONFIG] + [x for s in settings for x in ("--set", s)]

    def tls(self, pair="server", *more):
        return ["serving.tls.certificate=" + self.at(pair + ".pem"), "serving.tls.key=" + self.at(pair + ".key"), *more]

    def mtls(self):
        return self.tls("server", "serving.tls.client_ca=" + self.at("ca.pem"))

    def start(self, *sets):
        self.process = subprocess.Popen(self.command(*sets), stderr=subprocess.PIPE, text=True)
        self.log = []
        self.arrived = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.expect("component=scorer msg=serving ")
        line = self.expect("component=scorer msg=listening")
        self.port = int(re.search(r" port=(\d+)", line).group(1))
        self.admin = int(re.search(r" admin_port=(\d+)", line).group(1))

    def read(self):
        for line in self.process.stderr:
            with self.arrived:
                self.log.append(line)
                self.arrived.notify_all()

    def expect(self, text, times=1):
        end = time.time() + WAIT
        with self.arrived:
            while True:
                lines = [line for line in self.log if text in line]
                if len(lines) >= times:
                    return lines[-1]
                if not self.arrived.wait(end - time.time()):
                    raise AssertionError("no log line with %r in:\n%s" % (text, "".join(self.log)))

    def metric(self, name):
        with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % self.admin, timeout=WAIT) as r:
            for line in r.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.split()[-1])
        return None

    def channel(self, ca="ca", client=None, host="localhost"):
        if ca is None:
            return grpc.insecure_channel("127.0.0.1:%d" % self.port)
        pair = (self.bytes_of(client + ".key"), self.bytes_of(client + ".pem")) if client else (None, None)
        credentials = grpc.ssl_channel_credentials(self.bytes_of(ca + ".pem"), *pair)
        return grpc.secure_channel("%s:%d" % (host, self.port), credentials,
                                   [("grpc.use_local_subchannel_pool", 1)])

    def ask(self, **kw):
        with self.channel(**kw) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            return stub.Check(health_pb2.HealthCheckRequest(service="sluice.v1.Scoring"), timeout=WAIT).status

    def refused(self, result, words, **kw):
        """The client gets UNAVAILABLE, the metric counts why, the log says it."""
        name = 'sluice_tls_handshakes_total{result="%s"}' % result
        before = self.metric(name)
        with self.assertRaises(grpc.RpcError) as caught:
            self.ask(**kw)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE, caught.exception.details())
        if not result:
            return
        self.expect(words)
        end = time.time() + WAIT
        while not self.metric(name) > before:
            self.assertLess(time.time(), end, "%s does not count" % name)
            time.sleep(0.02)

    def test_tls(self):
        self.start(*self.tls())
        self.assertEqual(self.ask(), SERVING)
        self.assertEqual(self.ask(host="127.0.0.1"), SERVING)
        self.assertEqual(self.ask(client="client"), SERVING, "a certificate that nobody asked for does no harm")
        self.refused("hung_up", "the client hung up", ca="other-ca")  # grpcio says nothing more
        self.refused("not_tls", "does not speak TLS", ca=None)
        self.assertEqual(self.ask(), SERVING)
        self.assertGreater(self.metric('sluice_tls_certificate_expiry_timestamp_seconds{file="certificate"}'),
                           time.time() + 80 * 86400)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=self.at("ca.pem"))
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2"])
            with socket.create_connection(("127.0.0.1", self.port), WAIT) as raw:
                with context.wrap_socket(raw, server_hostname="localhost") as s:
                    self.assertEqual(s.selected_alpn_protocol(), "h2")
        context.set_alpn_protocols(["http/1.1"])
        with socket.create_connection(("127.0.0.1", self.port), WAIT) as raw:
            with self.assertRaises(ssl.SSLError):
                context.wrap_socket(raw, server_hostname="localhost")
        self.expect("does not offer HTTP/2")

    def test_mutual_tls(self):
        self.start(*self.mtls())
        self.assertEqual(self.ask(client="client"), SERVING)
        self.refused("no_client_certificate", "peer did not return a certificate")
        self.refused("bad_client_certificate", "unable to get local issuer certificate", client="other-client")
        self.refused("bad_client_certificate", "certificate has expired", client="old-client")
        self.assertEqual(self.ask(client="client"), SERVING)

    def test_tls_to_a_plain_port(self):
        self.start()
        self.refused(None, None)
        self.expect("the client speaks TLS, but serving.tls.certificate is not set")
        self.assertEqual(self.ask(ca=None), SERVING)

    def test_expired_certificate_is_refused_at_the_start(self):
        for more in ([], ["--check"]):
            r = subprocess.run(self.command(*self.tls("expired")) + more, stderr=subprocess.PIPE, text=True,
                               timeout=WAIT)
            self.assertEqual(r.returncode, 2)
            self.assertRegex(r.stderr, r"serving.tls.certificate: a certificate in \S+ expired on \S+; renew it")

    def test_check(self):
        r = subprocess.run(self.command(*self.mtls()) + ["--check"], stderr=subprocess.PIPE, text=True, timeout=WAIT)
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        os.chmod(self.at("server.key"), 0o644)
        r = subprocess.run(self.command(*self.mtls()) + ["--check"], stderr=subprocess.PIPE, text=True, timeout=WAIT)
        self.assertEqual(r.returncode, 0)
        self.assertIn("mode 0644, so others can read it", r.stderr)

    def test_slow_handshakes_starve_nobody(self):
        """Far more silent connections than there may be handshakes: clients get through, the silent ones go."""
        self.start(*self.tls("server", "serving.max_connections=16", "serving.threads=1",
                             "serving.tls.handshake=1s"))
        silent = [socket.create_connection(("127.0.0.1", self.port), WAIT) for _ in range(40)]
        for s in silent[::3]:
            s.sendall(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a hello
        for _ in range(5):
            self.assertEqual(self.ask(), SERVING)
        self.assertGreater(self.metric('sluice_tls_handshakes_total{result="crowded"}'), 0)
        end = time.time() + WAIT
        while self.metric("sluice_tls_handshakes_open") > 0 and time.time() < end:
            time.sleep(0.05)
        self.assertEqual(self.metric("sluice_tls_handshakes_open"), 0)
        self.assertGreater(self.metric('sluice_tls_handshakes_total{result="timeout"}'), 0)
        for s in silent:
            s.close()

    def peer_serial(self):
        context = ssl.create_default_context(cafile=self.at("ca.pem"))
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(("127.0.0.1", self.port), WAIT) as raw:
            with context.wrap_socket(raw, server_hostname="localhost") as s:
                return s.getpeercert()["serialNumber"]

    def replace(self, pair):
        for end in (".key", ".pem"):
            shutil.copy(self.at(pair + end), self.at("new" + end))
            os.rename(self.at("new" + end), self.at("server" + end))

    def test_reload_while_traffic_runs(self):
        """Certificates change under load, by SIGHUP and by themselves; not one call fails, old connections live on."""
        self.start(*self.tls())
        stop = threading.Event()
        fresh = lambda: self.ask()
        with self.channel() as old:
            stub = health_pb2_grpc.HealthStub(old)
            request = health_pb2.HealthCheckRequest(service="sluice.v1.Scoring")

            def hammer(call):
                count = 0
                while not stop.is_set():
                    self.assertEqual(call(), SERVING)
                    count += 1
                return count

            kept = lambda: stub.Check(request, timeout=WAIT).status
            with ThreadPoolExecutor(4) as pool:
                running = [pool.submit(hammer, call) for call in (kept, kept, fresh, fresh)]
                first = self.peer_serial()
                self.replace("renewed")
                self.process.send_signal(signal.SIGHUP)
                self.expect("msg=\"certificate loaded\"", 2)
                second = self.peer_serial()
                self.assertNotEqual(first, second)
                shutil.copy(self.at("client.key"), self.at("server.key"))  # not the certificate's
                self.process.send_signal(signal.SIGHUP)
                line = self.expect("the new certificate is refused, the old one stays in use")
                self.assertIn("does not belong to the first certificate", line)
                self.assertEqual(self.peer_serial(), second)
                self.replace("third")  # nobody says anything: the change is noticed
                self.expect("msg=\"certificate loaded\"", 3)
                self.assertNotIn(self.peer_serial(), (first, second))
                stop.set()
                counts = [r.result(WAIT) for r in running]
        self.assertTrue(all(n > 0 for n in counts), counts)
        self.assertEqual(self.metric('sluice_tls_reloads_total{result="ok"}'), 2)
        self.assertEqual(self.metric('sluice_tls_reloads_total{result="refused"}'), 1)
        self.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.process.wait(WAIT), 0)

    def sim(self, *more):
        r = subprocess.run([SIM, "ask", "--config", CONFIG, "--to", "127.0.0.1:%d" % self.port, "--requests", "50",
                            "--wait", "300ms", "--load", *more], capture_output=True, text=True, timeout=WAIT)
        return r.returncode, r.stdout + r.stderr

    def test_sluice_sim_asks(self):
        self.start(*self.mtls())
        ca, pair = ["--tls-ca", self.at("ca.pem")], ["--tls-cert", self.at("client.pem"), "--tls-key", self.at("client.key")]
        status, text = self.sim(*ca, *pair)
        self.assertEqual(status, 0, text)
        self.assertIn("50 requests of 20 candidates, 0 failed", text)
        for options, words in ((ca, "certificate required"), (["--tls-ca", self.at("other-ca.pem"), *pair],
                                                              "the server's certificate: self-signed"),
                               ([], "closed the connection")):
            status, text = self.sim(*options)
            self.assertEqual(status, 1, text)
            self.assertIn(words, text)
        self.assertEqual(self.sim("--tls-cert", "x")[0], 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
