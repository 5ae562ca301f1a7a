"""A writer of TensorBoard's event files, for fixtures."""

import struct
from collections.abc import Iterable, Mapping

POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected


def event_file(events: Iterable[tuple[int, Mapping[str, float]]]) -> bytes:
    """Events of one run: (step, {tag: value})."""
    said = [_field(3, 2, _sized(b"brain.Event:2"))]
    for step, values in events:
        said += [
            _field(2, 0, _varint(step)) + _field(5, 2, _sized(_value(tag, value))) for tag, value in values.items()
        ]
    return b"".join(_record(struct.pack("<Bd", 9, 1.7e9 + i) + event) for i, event in enumerate(said))


def _value(tag: str, value: float) -> bytes:
    return _field(1, 2, _sized(_field(1, 2, _sized(tag.encode())) + _field(2, 5, struct.pack("<f", value))))


def _field(number: int, wire_type: int, payload: bytes) -> bytes:
    return bytes([number << 3 | wire_type]) + payload


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _table() -> list[int]:
    entries = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (POLYNOMIAL if entry & 1 else 0)
        entries.append(entry)
    return entries


TABLE = _table()


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
