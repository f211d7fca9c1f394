"""Vectors as the store holds them: little-endian float32, four bytes a number, in the column `output`.

As JSON text a vector of 3,072 numbers takes five times as much; SQLite's vector extensions and `numpy.frombuffer(output, '<f4')` read this form as it is. The
trap is precision: what a provider sends beyond float32 is gone, so results give the stored numbers from the start, not the sent ones until a resume.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from sys import byteorder


def blob_of(vector: Sequence[float]) -> bytes:
    """The stored form. A number beyond float32 becomes infinite, as in numpy."""
    numbers = array("f", vector)
    if byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def output_of(stored: str | bytes | None) -> str | list[float] | None:
    """A result's `output`, from what is stored: a text, or the numbers of a vector."""
    if not isinstance(stored, bytes):
        return stored
    numbers = array("f")
    numbers.frombytes(stored[: len(stored) // 4 * 4])
    if byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
