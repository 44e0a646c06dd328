"""Clients that ask a scorer and never read an answer, again and again.

usage: deaf_clients.py PORT CONNECTIONS CANDIDATES

Plain sockets, so that nothing reads on their behalf: HTTP/2 frames are made by hand, with headers that need no
table. Half of the connections send whole requests, the others begin one and do not end it. Runs until it is killed;
connections that the scorer closes are made anew.
"""
import socket
import struct
import sys
import time

PORT, CONNECTIONS, CANDIDATES = (int(a) for a in sys.argv[1:4])


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


HEADERS = b"".join(literal(n, v) for n, v in [
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/sluice.v1.Scoring/Score"), (b":authority", b"x"),
    (b"content-type", b"application/grpc"), (b"te", b"trailers")])
MESSAGE = b"\x08" + varint(CANDIDATES)  # ScoreRequest.candidates
BODY = b"\x00" + struct.pack(">I", len(MESSAGE)) + MESSAGE
HALF = b"\x00" + struct.pack(">I", 200000) + bytes(15000)
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


class Deaf:
    def __init__(self, whole):
        self.whole = whole
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)
        self.out = GREETING
        self.stream = 1
        self.began = time.time()

    def pump(self):
        if not self.out and self.stream < 240:
            if self.whole:
                self.out = frame(1, 4, self.stream, HEADERS) + frame(0, 1, self.stream, BODY)
            else:
                self.out = frame(1, 4, self.stream, HEADERS) + frame(0, 0, self.stream, HALF)
            self.stream += 2
        if self.out:
            self.out = self.out[self.socket.send(self.out):]


def main():
    clients = [None] * CONNECTIONS
    while True:
        for i, c in enumerate(clients):
            try:
                if c is None or time.time() - c.began > 8:
                    if c:
                        c.socket.close()
                    clients[i] = Deaf(i % 2 == 0)
                else:
                    c.pump()
            except BlockingIOError:
                pass
            except OSError:
                if c:
                    c.socket.close()
                clients[i] = None
        time.sleep(0.01)


main()
