#!/usr/bin/env python3
"""A client and a server of message1028, written from docs/protocol.md alone: messages of exactly
1,028 bytes, a 32-bit big-endian type and 1,024 bytes of data.

    python3 message1028.py client HOST PORT [options]
    python3 message1028.py server PORT [options]      0 chooses; prints "listening on PORT"

`--help` after the role lists the options. There is no handshake, no policy and no CLOSE here, and
no sequence numbers either: the program counts what it sends and what it receives.
"""

import struct

from outside import Connection, Failed, main, plain, say

PING, PONG, DATA, OTHER_DATA = 1, 2, 11, 21
FORGOTTEN_HTONL = 0x02000000  # PONG, written in little-endian
MESSAGE = struct.Struct(">I1024s")


class Message1028(Connection):
    """A client and a server of message1028."""

    pings_received = 0

    def start(self):
        self.greet()
        if self.options.data is not None:
            self.send_message(DATA, self.options.data.encode())

    def take(self, data):
        if len(data) < MESSAGE.size:
            return 0
        kind, content = MESSAGE.unpack_from(data)
        text = content.rstrip(b"\0")
        if kind == PING:
            self.pings_received += 1
            what = f"received PING {self.pings_received & 0xFF}"
        elif kind in (PONG, FORGOTTEN_HTONL):
            what = self.on_pong() + (", in little-endian" if kind == FORGOTTEN_HTONL else "")
        elif kind in (DATA, OTHER_DATA):
            what = self.on_data(kind, text)
        else:
            raise Failed(f"illegal: message of type {kind}")
        if text and kind in (PING, PONG, FORGOTTEN_HTONL):
            what += f', business "{plain(text)}"'
        say(what + self.since_last_sent())
        if kind == PING:
            self.queue_pong(0)
        return MESSAGE.size

    def on_pong(self):
        if self.confirmed == self.sent:
            return "received PONG, which answers nothing"
        self.confirmed += 1
        return f"received PONG {self.confirmed & 0xFF}"

    def on_data(self, kind, text):
        if self.options.data is not None:
            self.echoed |= text == self.options.data.encode()
        if self.server and not self.options.mute:
            self.send_message(kind, text)
        return f"received DATA of {len(text)} bytes: {plain(text)}"

    def send_ping(self, sequence):
        self.send_message(PING, (self.options.business or "").encode())
        say(f"sent PING {sequence}")

    def send_pong(self, _sequence):
        self.send_message(FORGOTTEN_HTONL if self.options.little_endian_pong else PONG, b"")
        say("sent PONG")

    def send_message(self, kind, text):
        if len(text) > 1024:
            raise Failed("too long for one message")
        self.send(MESSAGE.pack(kind, text))


if __name__ == "__main__":
    main(Message1028)
