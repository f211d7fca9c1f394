"""Functions that a model may call, as the engine knows them: what the model is told of each, how its arguments are read, and what is called.

They are made of a program's own callables (`api.tools`); a spec only carries them. The trap: what a model was told is part of the request and so of its
fingerprint, what a function does is not - another body of the same function re-runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TURNS = 8
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One function."""

    name: str
    declaration: Mapping[str, Any]
    """What models are told, in OpenAI's form: `{"type": "function", "function": {name, description, parameters}}`."""
    read: Callable[[str], Mapping[str, Any]]
    """JSON text of arguments -> keyword arguments. Raises ValueError with words for the model."""
    call: Callable[..., Any]
    is_async: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolkit:
    """The functions of one job, and how far the loop goes."""

    tools: Mapping[str, Tool]
    turns: int = TURNS
    """Requests per row and model, the one with the answer included."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Of one call."""

    @property
    def declarations(self) -> list[Mapping[str, Any]]:
        """All of them as `tools` of a request."""
        return [tool.declaration for tool in self.tools.values()]
