"""Reading the conversation of an Anthropic request (protocols B.2): blocks, media, and calls with their results, turned into OpenAI's form.

The trap is the pairing: every `tool_use` has its `tool_result` in the very next message, before anything else there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchllm.core import json
from batchllm.simulator.wrong import WrongError

STRICT_SINCE = "2026-10-21"
"""From this `anthropic-version` on, sampling parameters, documents in assistant turns and citations in user texts are refused."""
_BLOCKS = {
    "user": ("text", "image", "document", "tool_result", "search_result", "container_upload"),
    "assistant": ("text", "tool_use", "thinking", "redacted_thinking", "document", "server_tool_use", "web_search_tool_result"),
}
# Tuples, not sets: a client may send a list where a word belongs, and that can be looked up here only.
_SOURCES = ("base64", "url", "file", "text", "content")
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def messages_of(document: Mapping[str, Any], version: str, *, no_prefill: bool) -> list[dict[str, Any]]:
    """The conversation in OpenAI's form, once it is seen to be right."""
    given = document.get("messages")
    if not isinstance(given, list):
        raise WrongError("messages: Input should be a valid list")
    if not given:
        raise WrongError("messages: at least one message is required")
    messages = _system(document.get("system"))
    open_calls: set[str] = set()
    for index, message in enumerate(given):
        place = f"messages.{index}"
        role = message.get("role") if isinstance(message, dict) else None
        if role == "system":
            raise WrongError(
                f'{place}: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not "system" as an input message role.'
            )
        if role not in tuple(_BLOCKS):
            raise WrongError(f"{place}.role: Input should be 'user' or 'assistant'")
        for name in message:
            if name not in ("role", "content"):
                raise WrongError(f"{place}.{name}: Extra inputs are not permitted")
        content = message.get("content")
        last = index == len(given) - 1
        if isinstance(content, str):
            if not content and not (last and role == "assistant"):
                raise WrongError(f"{place}: all messages must have non-empty content except for the optional final assistant message")
            content = [{"type": "text", "text": content}] if content else []
        elif not isinstance(content, list):
            raise WrongError(f"{place}.content: Input should be a valid string or list")
        open_calls = _paired(content, role, place, open_calls)
        messages.append({"role": role, "content": [_block(block, role, f"{place}.content.{at}", version) for at, block in enumerate(content)]})
        if last and role == "assistant":
            if no_prefill:
                raise WrongError("This model does not support assistant message prefill. The conversation must end with a user message.")
            ending = messages[-1]["content"][-1].get("text", "") if messages[-1]["content"] else ""
            if ending != ending.rstrip():
                raise WrongError("messages: final assistant content cannot end with trailing whitespace")
    if open_calls:
        raise WrongError(f"messages: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(sorted(open_calls))}")
    return messages


def _is(block: Any, kind: str) -> bool:
    return isinstance(block, dict) and block.get("type") == kind


def _paired(content: list[Any], role: str, place: str, open_calls: set[str]) -> set[str]:
    """Every call has its result in the very next message, and every result its call; results stand first."""
    results = [str(block.get("tool_use_id")) for block in content if _is(block, "tool_result")]
    for identifier in results:
        if identifier not in open_calls:
            raise WrongError(
                f"{place}.content: unexpected `tool_use_id` found in `tool_result` blocks: {identifier}. Each must have a `tool_use` block before."
            )
    missing = open_calls - set(results)
    if missing:
        raise WrongError(f"{place}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(sorted(missing))}")
    if results and any(not _is(block, "tool_result") for block in content[: len(results)]):
        raise WrongError(f"{place}: `tool_result` blocks must stand before all other content")
    return {str(block.get("id")) for block in content if _is(block, "tool_use")} if role == "assistant" else set()


def _system(system: Any) -> list[dict[str, Any]]:
    if system is None:
        return []
    if isinstance(system, str):
        return [{"role": "system", "content": system}]
    if not isinstance(system, list) or not all(_is(block, "text") and isinstance(block.get("text"), str) for block in system):
        raise WrongError("system: Input should be a valid string or a list of text blocks")
    if any(not block["text"] for block in system):
        raise WrongError("system: text content blocks must be non-empty")
    return [{"role": "system", "content": [{"type": "text", "text": block["text"]} for block in system]}]


def _block(block: Any, role: str, place: str, version: str) -> dict[str, Any]:
    """One content block as a part that `count_messages` can count."""
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in _BLOCKS[role]:
        raise WrongError(
            f"{place}: Input tag '{kind}' found using 'type' does not match any of the expected tags: {', '.join(sorted(_BLOCKS[role]))}"
        )
    match kind:
        case "text":
            if not isinstance(block.get("text"), str):
                raise WrongError(f"{place}.text: Field required")
            if not block["text"]:
                raise WrongError(f"{place}: text content blocks must be non-empty")
            if role == "user" and block.get("citations") and version >= STRICT_SINCE:
                raise WrongError(f"{place}.citations: not permitted in a user message")
            return {"type": "text", "text": block["text"]}
        case "image" | "document":
            if kind == "document" and role == "assistant" and version >= STRICT_SINCE:
                raise WrongError(f"{place}: `document` blocks are not permitted in assistant messages")
            _source(block.get("source"), kind, place)
            return {"type": kind}
        case "tool_use":
            if not isinstance(block.get("id"), str) or not isinstance(block.get("name"), str) or not isinstance(block.get("input"), dict):
                raise WrongError(f"{place}: `tool_use` needs an id, a name and an input that is an object")
            return {"type": "text", "text": f"{block['name']} {json.text(block['input'])}"}
        case "tool_result":
            return {"type": "tool_result", "text": _result_text(block.get("content"), place)}
        case "thinking":
            if not isinstance(block.get("signature"), str):
                raise WrongError(f"{place}.signature: Field required")
            return {"type": "text", "text": str(block.get("thinking", ""))}
    return {"type": str(kind)}


def _source(source: Any, kind: str, place: str) -> None:
    form = source.get("type") if isinstance(source, dict) else None
    if form not in _SOURCES:
        raise WrongError(f"{place}.source.type: Input should be one of {', '.join(sorted(_SOURCES))}")
    if form == "base64":
        media = source.get("media_type")
        if kind == "image" and media not in _IMAGE_TYPES:
            raise WrongError(f"{place}.source.base64.media_type: Input should be {', '.join(sorted(_IMAGE_TYPES))}")
        if kind == "document" and media != "application/pdf":
            raise WrongError(f"{place}.source.base64.media_type: Input should be 'application/pdf'")
        data = source.get("data")
        if not isinstance(data, str) or not data or data.startswith("data:"):
            raise WrongError(f"{place}.source.base64.data: Input should be base64")
    if form == "url" and not str(source.get("url", "")).startswith("https://"):
        raise WrongError(f"{place}.source.url.url: Only HTTPS URLs are supported.")


def _result_text(content: Any, place: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise WrongError(f"{place}.content: Input should be a valid string or list")
    return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))


def last_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Text of the last user message, results of tools left out."""
    for message in reversed(messages):
        if message["role"] == "user":
            return " ".join(part["text"] for part in message["content"] if part["type"] == "text")
    return ""
