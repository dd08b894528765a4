#!/usr/bin/env python3
"""A client and a server of the native protocol, written from docs/protocol.md alone.

    python3 native.py client HOST PORT [options]
    python3 native.py server PORT [options]           0 chooses; prints "listening on PORT"

`--help` after the role lists the options.
"""

import os
import struct
import time

from outside import Connection, Failed, main, plain, say

PING, PONG, HELLO, WELCOME, DATA, RETUNE, CLOSE, ACK = range(1, 9)
BOUNDS = {PING: 1024, PONG: 1024, HELLO: 2048, WELCOME: 2048, DATA: 65536, RETUNE: 256, CLOSE: 256,
          ACK: 0}
FLAGS = {PING: 3, PONG: 3, HELLO: 0, WELCOME: 0, DATA: 7, RETUNE: 0, CLOSE: 0, ACK: 1}
ACKNOWLEDGES, BUSINESS = 1, 2  # flags of heartbeats
CONTINUES, DATA_ACKNOWLEDGES, ASKS = 1, 2, 4  # flags of DATA
ACK_ASKS = 1
WINDOWS = 1  # a capability
TO_RESUME = 2  # a flag of HELLO
RESUMED = 1  # a flag of WELCOME
REASONS = ["done", "drained", "kicked", "silent", "unauthorized", "replaced", "slow", "version",
           "full", "flooding"]
DONE, DRAINED, OTHER_VERSION = 0, 1, 7
MAX_MESSAGE = 4 * 65536

# Fixed parts, little-endian; "s" fields are bytes.
POLICY = struct.Struct("<QQBB")  # idle, interval, probes, flags
HELLO_HEAD = struct.Struct("<4sBBI16s16sQQQ18s25s")
WELCOME_HEAD = struct.Struct("<BBI16s16sQQQQII18s")
CLOSE_HEAD = struct.Struct("<BBI")
NO_POLICY = bytes(POLICY.size)
NO_ACCOUNT = bytes(25)  # there was no link before this one
UNKNOWN_BOOT = bytes(16)
INSTANCE = os.urandom(16)


class Incomplete(Exception):
    """More bytes are needed."""


class Reader:
    """Reads fields from the front of some bytes."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        if len(self.data) - self.at < length:
            raise Incomplete
        self.at += length
        return self.data[self.at - length:self.at]

    def byte(self):
        return self.take(1)[0]

    def varint(self):
        value = 0
        for place in range(5):
            byte = self.byte()
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                if (place and byte == 0) or value > 0xFFFFFFFF:
                    break
                return value
        raise Failed("illegal: varint")

    def text(self):
        return self.take(self.varint())

    def fields(self, head):
        return head.unpack(self.take(head.size))

    def end(self, what):
        if self.at != len(self.data):
            raise Failed(f"illegal: bytes left over in {what}")


def varint(value):
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def text_field(data):
    return varint(len(data)) + data


def policy_text(data):
    idle, interval, probes, _flags = POLICY.unpack(data)
    return f"idle {idle} interval {interval} probes {probes}"


class Session:
    """What a client keeps of its session from one connection to the next. Its messages are numbers,
    so those that may have to be sent again need not be kept."""

    number = epoch = window = 0
    token = b""
    sent = acknowledged = 0  # messages to the server
    received = told = 0  # messages from the server, and how many of them were acknowledged
    connections = 0


class Native(Connection):
    """A client and a server of the native protocol."""

    message = b""
    session = Session()  # the one of this process, if it is a client

    def start(self):
        if self.server:
            return
        asked, session = self.options.policy, self.session
        session.connections += 1
        flags = (1 if asked else 0) | (TO_RESUME if session.token else 0)
        head = HELLO_HEAD.pack(b"SYS1", 1, flags, WINDOWS if self.options.messages else 0,
                               UNKNOWN_BOOT, INSTANCE, session.number, session.epoch,
                               session.received, POLICY.pack(*asked, 0) if asked else NO_POLICY, NO_ACCOUNT)
        texts = (session.token, self.options.identity.encode(), self.options.token.encode())
        self.send_body(HELLO, head + b"".join(text_field(text) for text in texts))

    def take(self, data):
        reader = Reader(data)
        try:
            kind = reader.byte()
            frame, flags = kind >> 4, kind & 15
            if frame not in BOUNDS or flags & ~FLAGS[frame]:
                raise Failed(f"illegal: kind {kind:02x}")
            sequence = acknowledged = None
            body = b""
            if frame in (PING, PONG):
                sequence = reader.byte()
                if flags & ACKNOWLEDGES:
                    acknowledged = reader.varint()
            if frame == ACK or (frame == DATA and flags & DATA_ACKNOWLEDGES):
                acknowledged = reader.varint()
            if frame not in (PING, PONG, ACK) or (sequence is not None and flags & BUSINESS):
                length = reader.varint()
                if length > BOUNDS[frame]:
                    raise Failed(f"illegal: {length} bytes in kind {kind:02x}")
                body = reader.take(length)
        except Incomplete:
            return 0
        self.check_order(frame)
        windows = not self.server and self.options.messages
        if not windows and (frame == ACK or frame == DATA and flags & ~CONTINUES):
            raise Failed("illegal: an acknowledgement without a window")
        try:
            if sequence is not None:
                self.on_beat(frame, sequence, acknowledged, body if flags & BUSINESS else None)
            elif frame == DATA:
                self.on_data(flags, body)
            elif frame == ACK:
                if flags & ACK_ASKS:
                    self.acknowledge()
            else:
                {HELLO: self.on_hello, WELCOME: self.on_welcome, RETUNE: self.on_retune,
                 CLOSE: self.on_close}[frame](Reader(body))
        except Incomplete:
            raise Failed(f"illegal: body of kind {kind:02x} is too short") from None
        if acknowledged is not None and windows:
            self.on_acknowledged(acknowledged)
        return reader.at

    def check_order(self, frame):
        if self.greeted_at is not None:
            legal = frame not in (HELLO, WELCOME)
        else:
            legal = frame in ((HELLO,) if self.server else (WELCOME, CLOSE))
        if not legal:
            raise Failed(f"illegal: frame of type {frame} at this point")

    def on_hello(self, reader):
        magic, version, flags, *_, policy, _account = reader.fields(HELLO_HEAD)
        if magic != b"SYS1":
            raise Failed("illegal: HELLO")
        if version != 1:
            self.send_close(OTHER_VERSION)
            self.end_writing()
            return
        _resume_token, identity, _token = reader.text(), reader.text(), reader.text()
        reader.end("HELLO")
        say(f'hello identity "{plain(identity)}"')
        if flags & 1:
            say("asked for " + policy_text(policy))
        else:
            policy = POLICY.pack(15000, 5000, 3, 0)
        # Session and epoch: both count the clients of this process.
        head = WELCOME_HEAD.pack(1, 0, 0, UNKNOWN_BOOT, INSTANCE, self.number, self.number, 0,
                                 time.time_ns() // 1_000_000, 0, 65536, policy)
        self.send_body(WELCOME, head + text_field(b""))
        self.greet()
        if self.options.retune:
            self.send_body(RETUNE, POLICY.pack(*self.options.retune, 0))

    def on_welcome(self, reader):
        (version, flags, capabilities, _, _, session, epoch, received, _, _, _,
         policy) = reader.fields(WELCOME_HEAD)
        token = reader.text()
        window = 0
        if capabilities & WINDOWS:
            window, _bytes = struct.unpack("<II", reader.take(8))
        outcome = struct.unpack("<I", reader.take(4))[0] if flags else 0
        reader.end("WELCOME")
        if version != 1 or flags & ~RESUMED or (flags and not self.session.token):
            raise Failed(f"not resumed: flags {flags}, outcome {outcome}")
        say(f"welcome session {session:016x} epoch {epoch} " + policy_text(policy))
        self.greet()
        if self.options.messages:
            self.go_on(session, epoch, window, token, received, flags, outcome)
        if self.options.data is not None:
            self.send_body(DATA, self.options.data.encode())

    def go_on(self, number, epoch, window, token, received, flags, dropped):
        """Begins a session with windows, or goes on with one."""
        session = self.session
        if not window or not token:
            raise Failed("this session cannot be resumed")
        if flags & RESUMED:
            if (number, epoch) != (session.number, session.epoch) or dropped:
                raise Failed(f"resumed another session, or {dropped} messages were dropped")
            if not session.acknowledged <= received <= session.sent:
                raise Failed(f"the server has received {received} of {session.sent} messages")
            say(f"resumed: {received} of {session.sent} have arrived, "
                f"{session.sent - received} are sent again")
        session.number, session.epoch, session.window = number, epoch, window
        session.token = token
        session.sent = received
        # What has arrived and is not acknowledged takes room in the window still, so ask for it.
        self.acknowledge(ACK_ASKS if session.sent > session.acknowledged else 0)
        self.send_messages()

    def send_messages(self):
        """Sends as many of --messages as the window takes, but one that a cut is to lose."""
        session = self.session
        room = session.window - (1 if self.options.cut_after else 0)
        last = min(self.options.messages, session.acknowledged + room)
        while session.sent < last:
            session.sent += 1
            self.send_body(DATA, b"%d" % session.sent, ASKS if session.sent == last else 0)

    def on_acknowledged(self, count):
        newly = (count - self.session.acknowledged) & 0xFFFFFFFF
        if newly <= self.session.sent - self.session.acknowledged:
            self.session.acknowledged += newly  # else a later one has overtaken this one
        if not self.cut:
            self.send_messages()

    def acknowledge(self, flags=0):
        self.session.told = self.session.received
        self.send(bytes([ACK << 4 | flags]) + varint(self.session.received & 0xFFFFFFFF))

    def on_numbered(self, flags):
        """Takes one of --messages that has come back: each once, in order."""
        session, after = self.session, self.options.cut_after
        session.received += 1
        if self.message != b"%d" % session.received:
            raise Failed(f"{plain(self.message)} came instead of {session.received}")
        if after and session.received % after == 0 and not self.has_all_messages():
            self.cut_off()
        elif flags & ASKS or 2 * (session.received - session.told) >= session.window:
            self.acknowledge()
        if self.has_all_messages():
            say(f"all {session.received} messages came back, each once, "
                f"over {session.connections} connections")

    def cut_off(self):
        """Ends the connection as if the network had, within a message if there is one."""
        session = self.session
        if session.sent < min(self.options.messages, session.acknowledged + session.window):
            session.sent += 1
            self.send((bytes([DATA << 4]) + text_field(b"%d" % session.sent))[:-1])
        self.cut = True

    def has_all_messages(self):
        return self.session.received >= self.options.messages

    def resumes(self):
        return bool(self.session.token) and not self.goodbye and not self.server

    def on_beat(self, frame, sequence, acknowledged, business):
        what = f"received {'PING' if frame == PING else 'PONG'} {sequence}"
        if acknowledged is not None:
            what += f", acknowledges {acknowledged}"
        if business is not None:
            what += f', business "{plain(business)}"'
        if frame == PING:
            self.queue_pong(sequence)
        else:
            newly = (sequence - self.confirmed) & 0xFF  # a PONG confirms every earlier PING too
            if 1 <= newly <= self.sent - self.confirmed:
                self.confirmed += newly
            else:
                what += ", which answers nothing"
        say(what + self.since_last_sent())

    def on_data(self, flags, body):
        self.message += body
        if len(self.message) > MAX_MESSAGE:
            raise Failed("a message of too many pieces")
        if not flags & CONTINUES and self.options.messages:
            self.on_numbered(flags)
            self.message = b""
        elif not flags & CONTINUES:
            say(f"received DATA of {len(self.message)} bytes: {plain(self.message)}")
            if self.options.data is not None:
                self.echoed |= self.message == self.options.data.encode()
            self.message = b""
        if self.server and not self.options.mute:
            self.send_body(DATA, body, flags)

    def on_retune(self, reader):
        policy = reader.take(POLICY.size)
        reader.end("RETUNE")
        say("received RETUNE " + policy_text(policy))
        if self.server:
            self.send_body(RETUNE, policy)  # granted as asked

    def on_close(self, reader):
        reason, flags, return_after = reader.fields(CLOSE_HEAD)
        text = reader.text()
        reader.end("CLOSE")
        name = REASONS[reason] if reason < len(REASONS) else "other"
        say(f'received CLOSE {reason} ({name}) flags {flags} return-after {return_after} '
            f'"{plain(text)}"')
        self.goodbye = True

    def send_body(self, frame, body, flags=0):
        self.send(bytes([frame << 4 | flags]) + text_field(body))

    def send_ping(self, sequence):
        business = self.options.business
        flags, rest = (0, b"") if business is None else (BUSINESS, text_field(business.encode()))
        self.send(bytes([PING << 4 | flags, sequence]) + rest)
        say(f"sent PING {sequence}")

    def send_pong(self, sequence):
        self.send(bytes([PONG << 4, sequence]))
        say(f"sent PONG {sequence}")

    def send_close(self, reason, return_after=0):
        self.send_body(CLOSE, CLOSE_HEAD.pack(reason, 0, return_after) + text_field(b""))

    def send_goodbye(self):
        if self.server:
            self.send_close(DRAINED, 2500)
        else:
            self.send_close(DONE)


if __name__ == "__main__":
    main(Native)
