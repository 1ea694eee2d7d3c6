# pcmoe/train/event_file_oracle.py: reads event files by the formats' definitions, sharing nothing with
# event_file.cc: `event_file_oracle.py FILE` prints "version V", "start STEP" and "STEP TAG VALUE" lines.
"""TFRecord: u64 length, its masked CRC-32C, bytes, their masked CRC-32C. Event: 1 wall_time (double),
2 step, 3 file_version, 5 summary, 7 session_log; Summary: 1 value; Value: 1 tag, 2 simple_value (float)."""
import struct
import sys
import time


def masked_crc(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    at = 0
    while at < len(data):
        length, = struct.unpack_from("<Q", data, at)
        assert struct.unpack_from("<I", data, at + 8)[0] == masked_crc(data[at:at + 8]), "length"
        body = data[at + 12:at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked_crc(body), "body"
        yield body
        at += 16 + length


def fields(message):
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or varint()
        assert key & 7 in (1, 2, 5) and at + size <= len(message), "field"
        yield key >> 3, message[at:at + size]
        at += size


def main():
    with open(sys.argv[1], "rb") as file:
        data = file.read()
    for body in records(data):
        event = dict(fields(body))
        assert abs(struct.unpack("<d", event[1])[0] - time.time()) < 3600, "wall_time"
        if 3 in event:
            print("version", event[3].decode())
        if 7 in event:
            assert dict(fields(event[7])) == {1: 1}, "session_log"
            print("start", event[2])
        for number, value in fields(event.get(5, b"")):
            scalar = dict(fields(value))
            assert number == 1 and set(scalar) == {1, 2}, "value"
            print(event[2], scalar[1].decode(), "%.6g" % struct.unpack("<f", scalar[2]))


main()
