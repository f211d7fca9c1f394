"""Messages as one text, for endpoints that take no conversation: completions and embeddings.

The trap: what such a wire can't say (turns of an assistant, images) must not be dropped in silence; the row is told so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SYSTEM = ("system", "developer")


def text_in(content: Any, what: str) -> str:
    """The text of a message's content. ValueError for parts that are no text; `what` names the wire in it."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    texts = []
    for part in content:
        if part.get("type") not in ("text", "input_text"):
            raise ValueError(f"{what} take text only, not a content part of type {part.get('type')}")
        texts.append(str(part.get("text")))
    return "\n".join(texts)


def system_and_user(messages: Sequence[Mapping[str, Any]], what: str) -> tuple[str, str]:
    """The system's words and the user's one message. ValueError for any other conversation."""
    said: dict[str, list[str]] = {"system": [], "user": []}
    for message in messages:
        role = message.get("role")
        side = "system" if role in _SYSTEM else role
        if side not in said or message.get("tool_calls"):
            raise ValueError(f"{what} take one prompt, not a conversation with a message of role {role!r}")
        said[side].append(text_in(message.get("content"), what))
    if len(said["user"]) != 1:
        raise ValueError(f"{what} take one user message, not {len(said['user'])}")
    return "\n\n".join(said["system"]), said["user"][0]


def one_text(messages: Sequence[Mapping[str, Any]], what: str) -> str:
    """The prompt, after a system message and a blank line if there is one. ValueError for what is no single prompt."""
    if len(messages) == 1 and messages[0].get("role") == "user" and type(content := messages[0].get("content")) is str:
        return content
    system, user = system_and_user(messages, what)
    return f"{system}\n\n{user}" if system else user
