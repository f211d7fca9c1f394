"""The two things that can be said of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A good answer."""

    value: Any
    """As JSON has it; None is JSON's null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """An answer that is not what was asked for."""

    message: str
    """What is wrong and where, for people and for the model that is asked to mend it. It may quote the answer."""
