"""Columns of readings as PostgreSQL's binary arrays.

psycopg dumps a list element by element in Python; packing a whole column at once is several times faster.
The format is that of PostgreSQL's `array_send`: dimensions, a null flag, the element type, the length and the lower
bound of the one dimension, then each element with its length in front.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from struct import pack

import psycopg
from psycopg.adapt import Dumper
from psycopg.postgres import types
from psycopg.pq import Format

from shared.database import POSTGRES_EPOCH

_MICROSECOND = timedelta(microseconds=1)


class Array(bytes):
    """A packed array, which is sent as it is. The statement says of which type."""


def texts(values: Sequence[str]) -> Array:
    """A `text[]` of strings that hold no NUL."""
    parts = [_head("text", len(values))]
    for value in values:
        encoded = value.encode()
        parts += (len(encoded).to_bytes(4), encoded)
    return Array(b"".join(parts))


def timestamps(values: Sequence[datetime]) -> Array:
    """A `timestamptz[]` of datetimes that have an offset, to the microsecond."""
    elements = [number for value in values for number in (8, (value - POSTGRES_EPOCH) // _MICROSECOND)]
    return Array(_head("timestamptz", len(values)) + pack(f">{'iq' * len(values)}", *elements))


def floats(values: Sequence[float]) -> Array:
    """A `float8[]` of finite numbers."""
    elements = [number for value in values for number in (8, value)]
    return Array(_head("float8", len(values)) + pack(f">{'id' * len(values)}", *elements))


def _head(element: str, length: int) -> bytes:
    return pack(">iiIii", 1, 0, types[element].oid, length, 1)


class _Dumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


psycopg.adapters.register_dumper(Array, _Dumper)
