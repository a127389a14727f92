"""Columns of readings as PostgreSQL's binary arrays.

psycopg dumps a list element by element in Python; packing a whole column at once is several times faster.
The format is that of PostgreSQL's `array_send`: dimensions, a null flag, the element type, the length and the lower
bound of the one dimension, then each element with its length in front.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from struct import pack

from psycopg import pq
from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.postgres import types

from shared.database import POSTGRES_EPOCH

_MICROSECOND = timedelta(microseconds=1)


class TextArray(bytes):
    """A packed `text[]`."""

    @classmethod
    def of(cls, values: Sequence[str]) -> "TextArray":
        """Pack strings that hold no NUL."""
        parts = [_head("text", len(values))]
        for value in values:
            encoded = value.encode()
            parts += (len(encoded).to_bytes(4), encoded)
        return cls(b"".join(parts))


class TimestampArray(bytes):
    """A packed `timestamptz[]`."""

    @classmethod
    def of(cls, values: Sequence[datetime]) -> "TimestampArray":
        """Pack datetimes that have an offset, to the microsecond."""
        elements = [number for value in values for number in (8, (value - POSTGRES_EPOCH) // _MICROSECOND)]
        return cls(_head("timestamptz", len(values)) + pack(f">{'iq' * len(values)}", *elements))


class FloatArray(bytes):
    """A packed `float8[]`."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "FloatArray":
        """Pack finite numbers."""
        elements = [number for value in values for number in (8, value)]
        return cls(_head("float8", len(values)) + pack(f">{'id' * len(values)}", *elements))


def _head(element: str, length: int) -> bytes:
    return pack(">iiIii", 1, 0, types[element].oid, length, 1)


class _Dumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


class _TextArrayDumper(_Dumper):
    oid = types["text"].array_oid


class _TimestampArrayDumper(_Dumper):
    oid = types["timestamptz"].array_oid


class _FloatArrayDumper(_Dumper):
    oid = types["float8"].array_oid


def register(context: AdaptContext) -> None:
    """Teach a connection to send the packed arrays as they are."""
    adapters = context.adapters
    assert adapters is not None
    adapters.register_dumper(TextArray, _TextArrayDumper)
    adapters.register_dumper(TimestampArray, _TimestampArrayDumper)
    adapters.register_dumper(FloatArray, _FloatArrayDumper)
