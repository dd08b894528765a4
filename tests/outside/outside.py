"""Common code of the two examples in Python: options, connecting and accepting, and one connection.
A subclass of Connection adds the protocol. Needs only Python 3 and its standard library."""

import argparse
import os
import select
import signal
import socket
import ssl
import struct
import sys
import threading
import time

READ_SIZE = 65536
MAX_DUE = 64  # PONGs that wait; when full, the oldest is dropped


class Failed(Exception):
    """An expectation that failed, or an illegal message from the other end."""


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def plain(data):
    """Returns bytes as printable text."""
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


def now_ms():
    return time.monotonic_ns() // 1_000_000


class Connection:
    """One connection, in either role. A protocol adds the methods at the end."""

    def __init__(self, sock, options, number):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.options, self.number = sock, options, number
        self.server = options.role == "server"
        self.opened = self.last_sent = now_ms()
        self.greeted_at = None  # from here on PINGs may be sent
        self.ping_at = None
        self.sent = self.confirmed = 0  # our PINGs
        self.due = []  # PONGs that wait: (when, sequence)
        self.quiet = options.no_hello  # nothing more is sent
        self.goodbye = False  # the last message has been sent or has arrived
        self.echoed = False
        self.cut = False  # the client ends the connection as if the network had
        self.received = bytearray()

    def run(self):
        """Runs the connection until it ends; True if another one is to go on with its session."""
        self.start()
        while True:
            wait_ms = self.on_time(now_ms())
            if self.is_readable(wait_ms) and not self.receive():
                break
        if self.cut:  # a reset, not an orderly end
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        if self.resumes():
            return True
        silence = f" {now_ms() - self.last_sent} ms after the last byte sent"
        say("closed by the other end" + (silence if self.quiet else ""))
        if self.server or self.quiet:
            return False
        if not self.is_complete():
            missing = ", no echo" if self.options.expect_echo and not self.echoed else ""
            raise Failed(f"closed too early: {self.confirmed} of {self.options.pings} PINGs "
                         f"answered{missing}")
        if not self.goodbye:
            raise Failed("the other end closed first")
        return False

    def is_readable(self, wait_ms):
        """Waits until there is something to read; TLS may hold some that the system has not."""
        held = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0
        return held or bool(select.select([self.sock], [], [], wait_ms / 1000)[0])

    def is_complete(self):
        """Whether a client has received everything that it expects."""
        return (self.greeted_at is not None and self.confirmed >= self.options.pings
                and (self.echoed or not self.options.expect_echo)
                and self.has_all_messages())

    def on_time(self, now):
        """Does what is due; returns the milliseconds until something is due next."""
        options = self.options
        times = [now + 1000]
        if self.greeted_at is not None and options.silent_after is not None and not self.quiet:
            if now >= self.greeted_at + options.silent_after:
                self.fall_silent()
            times.append(self.greeted_at + options.silent_after)
        if self.quiet or self.goodbye:
            return times[0] - now
        while self.due and self.due[0][0] <= now:
            self.send_pong(self.due.pop(0)[1])
        if self.greeted_at is not None and self.sent < options.pings:
            if self.ping_at <= now:
                self.sent += 1
                self.ping_at = now + options.every
                self.send_ping(self.sent & 0xFF)
            times.append(self.ping_at)
        close_at = self.close_at()
        if close_at is not None and now >= close_at:
            self.send_goodbye()
            self.end_writing()
        elif close_at is not None:
            times.append(close_at)
        times += [when for when, _ in self.due[:1]]
        return max(0, min(times) - now)

    def close_at(self):
        options = self.options
        if self.server:
            return None if options.close_after is None else self.opened + options.close_after
        if self.is_complete() and options.silent_after is None:
            return self.greeted_at + options.stay
        return None

    def receive(self):
        """Reads what has arrived; False if the other end has closed. Messages may be split."""
        try:
            data = self.sock.recv(READ_SIZE)
        except ConnectionError:
            say("reset by the other end")
            return False
        self.received += data
        while not self.cut and (used := self.take(bytes(self.received))):
            del self.received[:used]
        return bool(data) and not self.cut

    def send(self, data):
        if self.quiet or self.goodbye:
            return
        try:
            for at in range(0, len(data), self.options.pieces):
                self.sock.sendall(data[at:at + self.options.pieces])
            self.last_sent = now_ms()
        except OSError:
            pass  # the next read reports the reason

    def end_writing(self):
        self.goodbye = True
        if isinstance(self.sock, ssl.SSLSocket):
            return  # its shutdown would end reading too
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # closed already; the next read reports it

    def greet(self):
        self.greeted_at = self.ping_at = now_ms()
        if self.options.silent_after == 0:
            self.fall_silent()

    def fall_silent(self):
        self.quiet = True
        say("silent from now on")

    def queue_pong(self, sequence):
        """Queues the answer to a PING, delayed by --delay."""
        if self.options.mute or self.quiet:
            return
        self.due = self.due[-(MAX_DUE - 1):]
        self.due.append((now_ms() + self.options.delay, sequence))

    def since_last_sent(self):
        return f", {now_ms() - self.last_sent} ms after the last byte sent" if self.quiet else ""

    # Hooks, which a protocol implements.

    def start(self):
        """Called when the connection is established."""
        raise NotImplementedError

    def take(self, data):
        """Handles the first message: bytes used, or 0 if it is not complete."""
        raise NotImplementedError

    def send_ping(self, sequence):
        raise NotImplementedError

    def send_pong(self, sequence):
        raise NotImplementedError

    def send_goodbye(self):
        """Sends the last message, if the protocol has one."""

    def has_all_messages(self):
        """Whether all of --messages have come back."""
        return True

    def resumes(self):
        """Whether the session goes on on another connection."""
        return False


def parse(description):
    def policy(text):
        return tuple(int(part) for part in text.split(","))

    parser = argparse.ArgumentParser(description=description)
    roles = parser.add_subparsers(dest="role", required=True)
    client = roles.add_parser("client")
    client.add_argument("host")
    server = roles.add_parser("server")
    for role in (client, server):
        role.add_argument("port", type=int)
        role.add_argument("--pieces", type=int, default=1 << 30, help="bytes written at a time")
        role.add_argument("--delay", type=int, default=0, metavar="MS", help="before a PONG")
        role.add_argument("--limit", type=int, default=60, metavar="S", help="then exit code 3")
        role.add_argument("--little-endian-pong", action="store_true", help="message1028 only")
        role.set_defaults(pings=0, every=1000, business=None, data=None, expect_echo=False,
                          policy=None, stay=0, silent_after=None, no_hello=False, mute=False,
                          probe=None, retune=None, close_after=None, messages=0, cut_after=0)
    client.add_argument("--pings", type=int, metavar="N", help="send PING 1..N, expect N PONGs")
    client.add_argument("--every", type=int, metavar="MS", help="between PINGs")
    client.add_argument("--business", metavar="TEXT", help="business data on PINGs")
    client.add_argument("--data", metavar="TEXT")
    client.add_argument("--expect-echo", action="store_true")
    client.add_argument("--messages", type=int, metavar="N",
                        help="native: send 1..N in a session with windows, expect each once")
    client.add_argument("--cut-after", type=int, metavar="N",
                        help="reset the connection after each N messages, and resume")
    client.add_argument("--policy", type=policy, metavar="IDLE,INTERVAL,PROBES")
    client.add_argument("--identity", help="[outside; with a token none: it says who]")
    client.add_argument("--token", default="")
    client.add_argument("--tls", metavar="FILE", help="believe the authorities in this file")
    client.add_argument("--cert", metavar="FILE", help="certificate and key to show")
    client.add_argument("--name", help="expected in the certificate, instead of HOST")
    client.add_argument("--stay", type=int, metavar="MS", help="at least, after the handshake")
    client.add_argument("--silent-after", type=int, metavar="MS", help="then send nothing more")
    client.add_argument("--no-hello", action="store_true", help="send nothing at all")
    server.add_argument("--once", action="store_true", help="end with the first client")
    server.add_argument("--mute", action="store_true", help="answer neither PING nor DATA")
    server.add_argument("--probe", type=int, metavar="MS", help="send PINGs too")
    server.add_argument("--retune", type=policy, metavar="IDLE,INTERVAL,PROBES")
    server.add_argument("--close-after", type=int, metavar="MS", help="close MS after accept")
    options = parser.parse_args()
    if getattr(options, "identity", "") is None:
        options.identity = "" if options.token else "outside"
    if options.probe is not None:
        options.pings, options.every = sys.maxsize, options.probe
    return options


def out_of_time(_signal, _frame):
    os.write(2, b"the time limit has passed\n")
    os._exit(3)


def serve(protocol, options):
    listener = socket.create_server(("127.0.0.1", options.port), backlog=128)
    say(f"listening on {listener.getsockname()[1]}")
    number = 0
    while True:
        sock, _ = listener.accept()
        number += 1
        say("accepted")
        connection = protocol(sock, options, number)
        if options.once:
            connection.run()
            return
        threading.Thread(target=run_one, args=(connection,), daemon=True).start()


def run_one(connection):
    try:
        connection.run()
    except Failed as why:
        print(why, file=sys.stderr, flush=True)
        connection.sock.close()


def connect(options):
    sock = socket.create_connection((options.host, options.port))
    say("connected")
    if options.tls:
        context = ssl.create_default_context(cafile=options.tls)
        if options.cert:
            context.load_cert_chain(options.cert)
        sock = context.wrap_socket(sock, server_hostname=options.name or options.host)
        say(f"{sock.version()} with {sock.getpeercert()['subjectAltName'][0][1]}")
    return sock


def main(protocol):
    options = parse(protocol.__doc__)
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(options.limit)
    try:
        if options.role == "server":
            serve(protocol, options)
        else:
            while protocol(connect(options), options, 0).run():
                pass
    except (Failed, OSError) as why:
        print(why, file=sys.stderr)
        sys.exit(1)
