"""Conversations that are too long for a model lose whole turns until they fit (`context`).

A turn begins with a message of the user and holds everything up to the next one, so that an answer never stands without its question, nor a tool's result without
its call. What the system says and the last turn always stay. Only what is sent is shorter: the row's request, its fingerprint and its answer's standing are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

Messages = Sequence[Mapping[str, Any]]
_SYSTEM = frozenset({"system", "developer"})


def trimmed(messages: Messages, *, most: int, count: Callable[[Messages], int], trim: Literal["oldest", "middle"]) -> Messages | None:
    """The messages within `most` tokens, with as many turns as fit; None when system and last turn alone are too long.

    `oldest` drops the first turns, `middle` those after the first one (and the first one last). `count` is asked some ten times for a long conversation.
    """
    turns = _turns(messages)
    order = [place for place, (system, _) in enumerate(turns) if not system][:-1]
    if trim == "middle":
        order = [*order[1:], *order[:1]]
    if not order:
        return None

    def without(dropped: int) -> Messages:
        gone = set(order[:dropped])
        return [message for place, (_, turn) in enumerate(turns) if place not in gone for message in turn]

    least, enough = 1, len(order)
    if count(without(enough)) > most:
        return None
    while least < enough:
        half = (least + enough) // 2
        if count(without(half)) > most:
            least = half + 1
        else:
            enough = half
    return without(enough)


def _turns(messages: Messages) -> list[tuple[bool, list[Mapping[str, Any]]]]:
    """(whether it is the system's, messages) in order."""
    turns: list[tuple[bool, list[Mapping[str, Any]]]] = []
    for message in messages:
        role = message.get("role")
        if role in _SYSTEM:
            turns.append((True, [message]))
        elif role == "user" and not (turns and not turns[-1][0] and turns[-1][1][-1].get("role") == "user"):
            turns.append((False, [message]))
        elif turns and not turns[-1][0]:
            turns[-1][1].append(message)
        else:
            turns.append((False, [message]))
    return turns
