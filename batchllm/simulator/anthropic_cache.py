"""What an Anthropic request asks to be cached (protocols B.2): the starts of its prompt that `cache_control` marks.

A start is known by its bytes as they were sent, so that a changed picture is another start; and it belongs to one model with its tools.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from batchllm.core import json
from batchllm.core.words import count_messages
from batchllm.simulator.dialect import Prefix
from batchllm.simulator.wrong import WrongError

_TTL_SECONDS = {"5m": 300.0, "1h": 3600.0}
_MARKS_MAX = 4


def _marks(document: Mapping[str, Any]) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """Places of `cache_control`: (message, block) as `_contents` counts them, -1 for tools."""
    for entry in document.get("tools") or ():
        if isinstance(entry, dict) and isinstance(entry.get("cache_control"), dict):
            yield -1, 0, entry["cache_control"]
    for at, content in enumerate(_contents(document)):
        for place, block in enumerate(content if isinstance(content, list) else ()):
            if isinstance(block.get("cache_control"), dict):
                yield at, place, block["cache_control"]


def prefixes_of(document: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> tuple[Prefix, ...]:
    """The marked starts, from the shortest to the longest. Raises WrongError for marks that the server refuses."""
    marks = list(_marks(document))
    if document.get("cache_control") is not None:
        content = messages[-1]["content"]
        marks.append((len(messages) - 1, len(content) - 1 if isinstance(content, list) else 0, document["cache_control"]))
    if not marks:
        return ()
    if len(marks) > _MARKS_MAX:
        raise WrongError(f"A maximum of {_MARKS_MAX} blocks with cache_control may be provided. Found {len(marks)}.")
    head = {name: bare(document.get(name)) for name in ("model", "tools", "thinking", "output_config")}
    contents = _contents(document)
    prefixes: list[Prefix] = []
    for at, place, mark in marks:
        ttl = mark.get("ttl") or "5m"
        if mark.get("type") != "ephemeral" or ttl not in tuple(_TTL_SECONDS):
            raise WrongError("cache_control: Input should be `type: ephemeral`, with a `ttl` of '5m' or '1h'")
        start = [*messages[:at], _until(messages[at], place)] if at >= 0 else []
        written = contents[: at + 1]
        if written and isinstance(written[-1], list):
            written[-1] = written[-1][: place + 1]
        key = sha256(json.canonical({**head, "start": bare(written)})).digest()
        tokens = min(count_messages(start), count_messages(messages))
        prefixes.append(Prefix(key=key, tokens=tokens, keep_seconds=_TTL_SECONDS[ttl]))
    return tuple(prefixes)


def _contents(document: Mapping[str, Any]) -> list[Any]:
    """Contents as sent, system first: as many as `anthropic_talk.messages_of` makes."""
    system = document.get("system")
    return ([] if system is None else [system]) + [message["content"] for message in document["messages"]]


def _until(message: Mapping[str, Any], place: int) -> dict[str, Any]:
    content = message["content"]
    return {"role": message["role"], "content": content[: place + 1] if isinstance(content, list) else content}


def bare(value: Any) -> Any:
    """Without `cache_control`: it changes the price of an answer and not its words."""
    if isinstance(value, dict):
        return {name: bare(item) for name, item in value.items() if name != "cache_control"}
    return [bare(item) for item in value] if isinstance(value, list) else value
