"""Tensors of the Open Inference Protocol as raw bytes and as JSON's values: little-endian, row by row.

A tensor that comes as bytes becomes JSON, since that is what a row keeps and every model server understands. Missing
numbers are NaN in bytes and null in JSON; an infinity, and text that is not UTF-8, JSON cannot say, and are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from math import isfinite, isinf, nan, prod
from struct import Struct, error, pack, unpack
from typing import Any

from services.router.errors import TensorMalformed
from shared.errors import TooLarge

FORMATS = {
    "BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I",
    "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d", "BF16": "H",
}  # fmt: skip
SIZES = {datatype: Struct(f"<{code}").size for datatype, code in FORMATS.items()}
FLOATS = frozenset(("FP16", "BF16", "FP32", "FP64"))
AS_JSON = {"FP16": "FP32", "BF16": "FP32"}
"""JSON's tensors know neither; every value of theirs is one of FP32 too."""
MOST_VALUES = 2_000_000
"""Of one request: 40 MB of JSON at the most, and a fifth of a second in which nobody else is served."""
MOST_DIMENSIONS = 64
"""As many as numpy knows. The product of 200,000 takes three seconds, in which nobody else is served."""
_LENGTH = Struct("<I")


def count_of(name: str, datatype: Any, shape: Any) -> int:
    """How many values a tensor so described has. Raises TensorMalformed, TooLarge."""
    if not isinstance(datatype, str) or (datatype not in FORMATS and datatype != "BYTES"):
        raise TensorMalformed(name, f"its datatype {str(datatype)[:40]!r} is none of the protocol's")
    if isinstance(shape, list) and len(shape) > MOST_DIMENSIONS:
        raise TensorMalformed(name, f"its shape has {len(shape)} dimensions; it may have {MOST_DIMENSIONS}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise TensorMalformed(name, "its shape must be a list of whole numbers from 0")
    count = prod(shape)
    if count > MOST_VALUES:
        raise TooLarge(f"The tensor {name[:100]!r} has {count} values; send at most {MOST_VALUES} a request.")
    return count


def values_of(name: str, datatype: str, count: int, raw: bytes) -> list[Any]:
    """The tensor's values, as JSON has them. Raises TensorMalformed."""
    if datatype == "BYTES":
        return [text_of(name, one) for one in _elements(name, count, raw)]
    needed = count * SIZES[datatype]
    if len(raw) != needed:
        raise TensorMalformed(name, f"{count} values of {datatype} are {needed} bytes and {len(raw)} were sent")
    if datatype == "BF16":  # the upper half of an FP32
        wide = bytearray(2 * len(raw))
        wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
        return finite(name, list(unpack(f"<{count}f", wide)))
    found = list(unpack(f"<{count}{FORMATS[datatype]}", raw))
    return finite(name, found) if datatype in FLOATS else found


def finite(name: str, values: list[Any]) -> list[Any]:
    """The same values with null for NaN. Raises TensorMalformed for an infinity."""
    if isfinite(sum(values)):  # ten times as fast as a look at each
        return values
    if any(isinf(one) for one in values):
        raise TensorMalformed(name, "it holds an infinity, which cannot be passed on")
    return [None if one != one else one for one in values]


def text_of(name: str, value: bytes) -> str:
    """An element of BYTES. Raises TensorMalformed."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise TensorMalformed(name, "it holds bytes that are not UTF-8; send them as base64") from None
    if "\x00" in text:
        raise TensorMalformed(name, "it holds a NUL character, which no inference table can keep")
    return text


def raw_of(datatype: str, values: Any) -> bytes:
    """JSON's values of a model's answer as bytes. Raises ValueError for what is none of the datatype."""
    found = flat(values)
    try:
        if datatype == "BYTES":
            return b"".join([_LENGTH.pack(len(one)) + one for one in map(str.encode, found)])
        if datatype in FLOATS:
            found = [nan if one is None else one for one in found]
        elif datatype == "BOOL" and not all(type(one) is bool for one in found):
            raise ValueError("a value is not true or false")
        if datatype == "BF16":
            return _brain(unpack(f"<{len(found)}I", pack(f"<{len(found)}f", *found)))
        return pack(f"<{len(found)}{FORMATS[datatype]}", *found)
    except (error, KeyError, TypeError, OverflowError) as why:
        raise ValueError(str(why)) from None


def flat(values: Any) -> list[Any]:
    """Nested lists as one. Raises ValueError for what is no list."""
    if not isinstance(values, list):
        raise ValueError("its data is no list")
    found: list[Any] = values
    while found and all(isinstance(one, list) for one in found):
        found = list(chain.from_iterable(found))
    return found


def _brain(words: Sequence[int]) -> bytes:
    """The upper halves of FP32's words, rounded to the nearest, ties to even."""
    return pack(f"<{len(words)}H", *[(word + 0x7FFF + (word >> 16 & 1)) >> 16 & 0xFFFF for word in words])


def _elements(name: str, count: int, raw: bytes) -> list[bytes]:
    found: list[bytes] = []
    place = 0
    while place < len(raw) and len(found) < count:
        if place + 4 > len(raw):
            break
        (length,) = _LENGTH.unpack_from(raw, place)
        if place + 4 + length > len(raw):
            raise TensorMalformed(name, f"element {len(found)} says it has {length} bytes and fewer follow")
        found.append(raw[place + 4 : place + 4 + length])
        place += 4 + length
    if len(found) != count or place != len(raw):
        raise TensorMalformed(
            name, f"its shape needs {count} elements; {len(found)} were sent and {len(raw) - place} bytes are left over"
        )
    return found
