"""Just enough of the protobuf wire format (protobuf.dev/programming-guides/encoding) to walk a message."""

from collections.abc import Iterator


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Value and the position after it; raises IndexError if the data ends, ValueError if it is no varint."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint of more than 64 bits")


def fields(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, int, int, int]]:
    """(field number, wire type, value of a varint or 0, start, stop) of every field; start and stop bound its bytes."""
    at, stop = start, len(data) if stop is None else stop
    while at < stop:
        tag, at = varint(data, at)
        number, wire, value, begin = tag >> 3, tag & 7, 0, at
        if wire == 0:
            value, at = varint(data, at)
        elif wire == 1:
            at += 8
        elif wire == 2:
            length, begin = varint(data, at)
            at = begin + length
        elif wire == 5:
            at += 4
        else:
            raise ValueError(f"wire type {wire}")
        if at > stop or number == 0:
            raise ValueError("field runs over its message")
        yield number, wire, value, begin, at
