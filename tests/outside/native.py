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

PING, PONG, HELLO, WELCOME, DATA, RETUNE, CLOSE = range(1, 8)
BOUNDS = {PING: 1024, PONG: 1024, HELLO: 2048, WELCOME: 2048, DATA: 65536, RETUNE: 256, CLOSE: 256}
FLAGS = {PING: 3, PONG: 3, HELLO: 0, WELCOME: 0, DATA: 1, RETUNE: 0, CLOSE: 0}
ACKNOWLEDGES, BUSINESS, CONTINUES = 1, 2, 1
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


class Native(Connection):
    """A client and a server of the native protocol."""

    message = b""

    def start(self):
        if self.server:
            return
        asked = self.options.policy
        head = HELLO_HEAD.pack(b"SYS1", 1, 1 if asked else 0, 0, UNKNOWN_BOOT, INSTANCE, 0, 0, 0,
                               POLICY.pack(*asked, 0) if asked else NO_POLICY, NO_ACCOUNT)
        texts = (b"", self.options.identity.encode(), self.options.token.encode())
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
            if frame not in (PING, PONG) or flags & BUSINESS:
                length = reader.varint()
                if length > BOUNDS[frame]:
                    raise Failed(f"illegal: {length} bytes in kind {kind:02x}")
                body = reader.take(length)
        except Incomplete:
            return 0
        self.check_order(frame)
        try:
            if sequence is not None:
                self.on_beat(frame, sequence, acknowledged, body if flags & BUSINESS else None)
            elif frame == DATA:
                self.on_data(flags, body)
            else:
                {HELLO: self.on_hello, WELCOME: self.on_welcome, RETUNE: self.on_retune,
                 CLOSE: self.on_close}[frame](Reader(body))
        except Incomplete:
            raise Failed(f"illegal: body of kind {kind:02x} is too short") from None
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
        version, flags, _, _, _, session, epoch, *_, policy = reader.fields(WELCOME_HEAD)
        reader.text()
        reader.end("WELCOME")
        if version != 1 or flags:
            raise Failed("illegal: WELCOME")
        say(f"welcome session {session:016x} epoch {epoch} " + policy_text(policy))
        self.greet()
        if self.options.data is not None:
            self.send_body(DATA, self.options.data.encode())

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
        if not flags & CONTINUES:
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
