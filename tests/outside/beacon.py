#!/usr/bin/env python3
"""A beacon, from docs/protocol.md alone:  beacon.py HOST PORT DEVICE KEY TIMES   (in hex, but TIMES)

States TIMES times at D/4, says goodbye, and prints what it hears."""
import hmac, random, socket, struct, sys, time

SIGNED = struct.Struct("<BBHQII")
host, port, device, key, times = sys.argv[1:]
device, key, left = int(device, 16), bytes.fromhex(key), int(times)
tag = lambda signed: hmac.digest(key, signed, "sha256")[:12]
udp = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
udp.connect((host, int(port)))
udp.settimeout(1)
challenge, counter, heard = 0, random.getrandbits(32), False
while left >= 0:
    signed = SIGNED.pack(0xB1, int(left == 0), 0x61, device, challenge, counter)
    udp.send(signed + tag(signed))
    try:
        answer = udp.recv(64)
    except TimeoutError:
        continue
    kind, _, value, whom, told, count = SIGNED.unpack(answer[:20])
    if len(answer) != 32 or not hmac.compare_digest(tag(answer[:20]), answer[20:]) or whom != device:
        continue
    if kind == 0xB3 and value == counter & 0xFFFF:
        print("again", challenge := told, counter := count + 1, flush=True)
    elif kind == 0xB2 and (told, count) == (challenge, counter):
        print("heard" if left else "goodbye", value, flush=True)
        left, counter = left - 1, counter + 1
        time.sleep(value / 40 if left > 0 else 0)
