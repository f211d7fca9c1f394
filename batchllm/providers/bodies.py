"""What every wire does alike with its bodies and headers: JSON in and out, the spec's raw parts merged last, and faults for a 200 that holds no answer.

The trap: a body that strict JSON refuses (a byte order mark, NaN, half an emoji where the cap fell) may hold an answer that was paid for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchllm.core.json import JSONDecodeError, dumps, loads
from batchllm.core.nouns import Fault, Kind, Usage
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpReply
from batchllm.providers.envelope import SHOWN, header_text, read_error

_MOST_DIGITS = 20
"""Of an integer of 64 bits, with its sign."""


def plain(value: Any) -> Any:
    """For orjson: mappings and sequences of other types than dict and list. TypeError for what is no JSON."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | range) or hasattr(value, "__iter__"):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def read_json(body: bytes | str) -> Any:
    """The JSON of a body, also of one that strict JSON refuses; None when there is none. Never raises."""
    try:
        return loads(body)
    except JSONDecodeError:
        return _salvaged(body)


def _salvaged(body: bytes | str) -> Any:
    import json

    try:
        data = json.loads(body.decode("utf-8-sig") if isinstance(body, bytes) else body, parse_int=_number)
        whole = json.dumps(data, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return json.loads(whole)
    except (ValueError, RecursionError):
        return None


def _number(text: str) -> int | float:
    """As strict JSON reads it: an integer beyond 64 bits is a float, or nobody could write it down again."""
    if len(text) <= _MOST_DIGITS and -(2**63) <= (number := int(text)) < 2**64:
        return number
    return float(text)


def json_of(value: Any) -> str:
    """Parsed JSON as JSON text again, whatever numbers a salvaged body brought. Never raises: what is nested too deep becomes a text that is no JSON."""
    try:
        return dumps(value).decode()
    except TypeError:
        import json

        try:
            return json.dumps(value)
        except RecursionError:
            return "(nested too deep)"


def arguments_of(function: Mapping[str, Any]) -> Mapping[str, Any]:
    """A tool call's arguments as an object. ValueError when they are no JSON object."""
    written = function.get("arguments")
    if isinstance(written, Mapping):
        return written
    try:
        made = loads(written) if written else {}
    except (JSONDecodeError, TypeError):
        made = None
    if not isinstance(made, dict):
        raise ValueError(f"the arguments of a call of {function.get('name')!r} are no JSON object")  # noqa: TRY004 - the row's fault, as data
    return made


def text_of(value: Any) -> str | None:
    """A text with something in it, else None."""
    return value if isinstance(value, str) and value else None


def headers_over(ours: Mapping[str, str | Secret], own: Mapping[str, Secret | str]) -> dict[str, str | Secret]:
    """Our headers, overruled by the spec's whatever their case. A value read from a file or a shell often ends in a newline, which no header may carry."""
    headers = dict(ours)
    for name, value in own.items():
        for same in [same for same in headers if same.lower() == name.strip().lower()]:
            del headers[same]
        headers[name.strip()] = Secret(value.reveal().strip()) if isinstance(value, Secret) else value.strip()
    return headers


def merge_into(body: dict[str, Any], raw: Mapping[str, Any]) -> None:
    """The spec's raw parts over a wire body. Objects are merged key by key, so that one raw setting doesn't wipe out the ones beside it; all else is replaced."""
    for name, value in raw.items():
        there = body.get(name)
        if isinstance(there, dict) and isinstance(value, Mapping):
            inner = dict(there)
            merge_into(inner, value)
            body[name] = inner
        else:
            body[name] = value


def no_answer(reply: HttpReply, message: str, *, usage: Usage | None = None, request_id: str | None = None) -> Fault:
    """A 200 that can't be understood: it was executed as far as anybody knows."""
    return Fault(
        kind=Kind.PROTOCOL,
        message=message[:SHOWN],
        http_status=reply.status,
        billed="maybe" if usage is None else "yes",
        usage=usage,
        request_id=header_text(reply.headers, "request-id", "x-request-id") or request_id,
    )


def unreadable(reply: HttpReply) -> Fault:
    """A 200 without a JSON object, in words."""
    error = read_error(reply.body)
    what = {"html": "an HTML page", "empty": "an empty body", "text": "no JSON"}.get(error.form, "no JSON object")
    if reply.headers.get("content-type", "").startswith("text/event-stream") and reply.body:
        what = "a stream that nobody asked for"
    return no_answer(reply, f"{reply.status} with {what}" + (f": {error.message[:200]}" if error.message else ""))
