"""What an error body says, whatever its shape: nested object, string, one-element list, flat top level, `detail`, HTML, plain text or nothing.

The trap: error bodies quote the request. Only the provider's own message and its identifiers are kept for matching, never the whole body: a prompt that
talks about `insufficient_quota` must not stop a job.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from batchllm.core.json import JSONDecodeError, loads

SHOWN = 500
"""Characters of a provider's message that are kept."""
_READ = 2000
"""Characters of a message that are looked at."""
_HEADINGS = (re.compile(r"<title[^>]*>([^<]{1,300})<", re.IGNORECASE), re.compile(r"<h1[^>]*>([^<]{1,300})<", re.IGNORECASE))
_NESTED = ("details", "innererror", "inner_error", "metadata", "violations")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """An error body, read."""

    form: Literal["json", "html", "text", "empty"]
    message: str = ""
    """The provider's words on one line, at most 2,000 characters; "" when there are none."""
    code: str | None = None
    type: str | None = None
    words: tuple[str, ...] = ()
    """Its identifiers in lower case, the most telling first: code, nested codes, type, status."""
    retry_delay: str | None = None
    """RetryInfo's `retryDelay`."""
    filter_result: bool = False
    """Azure's `content_filter_result` is there: the filter ran on the prompt, possibly billed."""
    quota_value: str | None = None
    request_id: str | None = None

    @property
    def text(self) -> str:
        """The message in lower case, for matching."""
        return self.message.lower()

    @property
    def number(self) -> int | None:
        """`code` as an HTTP status, when it is one (int at vLLM and OpenRouter, string at LiteLLM and Azure)."""
        return int(self.code) if self.code is not None and len(self.code) == 3 and self.code.isascii() and self.code.isdigit() else None

    @property
    def name(self) -> str | None:
        """`code`, else `type`; a code that only repeats an HTTP status gives way to the type."""
        return (self.type or self.code) if self.number is not None else (self.code or self.type)


def header_text(headers: Mapping[str, str], *names: str) -> str | None:
    """The first of these headers that is there, as text that can be stored: sockets bring what is not UTF-8 as lone surrogates, which no store takes."""
    value = next((value for name in names if (value := headers.get(name))), None)
    return value if value is None or value.isascii() else value.encode("ascii", "replace").decode()


def _line(text: str) -> str:
    return " ".join(text[: 2 * _READ].split())[:_READ]


def _word(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str | int | float):
        return str(value)[:100] or None
    return None


def _objects(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The objects nested under the keys that carry codes, outermost first."""
    if isinstance(value, dict):
        yield value
        if depth < 3:
            for key in _NESTED:
                if key in value:
                    yield from _objects(value[key], depth + 1)
    elif isinstance(value, list):
        for item in value[:10]:
            yield from _objects(item, depth)


def _message(value: Any, depth: int = 0) -> str:
    """The words of an error: a string, the message of an object, or pydantic's list of {loc, msg} without its echo of the input."""
    if isinstance(value, str):
        return _line(value)
    if depth < 4 and isinstance(value, dict):
        for key in ("message", "error", "detail", "msg", "title", "errors"):
            found = _message(value.get(key), depth + 1)
            if found:
                place = value.get("loc")
                return f"{'.'.join(str(part) for part in place)}: {found}"[:_READ] if isinstance(place, list) else found
    if depth < 4 and isinstance(value, list):
        return _line("; ".join(part for item in value[:10] if (part := _message(item, depth + 1))))
    return ""


def _unwrapped(data: Any) -> Any:
    """Gemini's compatible endpoint wraps errors in a list of one."""
    return data[0] if isinstance(data, list) and data else data


def error_of(data: Any) -> ErrorBody | None:
    """The error in a parsed body, whatever its shape; None when there is nothing like one.

    Also for what came with a 200, so a flat top level counts only when it says `object: error` or has a message with a code or type.
    """
    data = _unwrapped(data)
    if isinstance(data, str):
        return ErrorBody(form="json", message=_line(data))
    if not isinstance(data, dict):
        return None
    error = _unwrapped(data.get("error"))
    if not error:
        flat = data.get("object") == "error" or data.get("type") == "error" or ("message" in data and ("code" in data or "type" in data))
        if not flat:
            return None
        error = data
    return _read(error, data)


def _read(error: Any, data: Mapping[str, Any]) -> ErrorBody:
    request_id = data.get("request_id")
    request_id = request_id if isinstance(request_id, str) else None
    if not isinstance(error, dict):
        # {"error": "Bad Request", "message": "what it is"} is common among frameworks; the longer text says more.
        words = max(_message(error), _message(data.get("message")), key=len)
        return ErrorBody(
            form="json", message=words or str(error)[:SHOWN], code=_word(data.get("code")), type=_word(data.get("type")), request_id=request_id
        )
    inner = list(_objects(error))
    codes = [_word(found.get(key)) for found in inner for key in ("code", "error_code", "reason", "limit_source", "error_type")]
    kinds = [_word(found.get(key)) for found in inner for key in ("type", "status", "quotaId")]
    quota_values = [_word(found.get("quotaValue")) for found in inner]
    delays = [found["retryDelay"] for found in inner if isinstance(found.get("retryDelay"), str)]
    return ErrorBody(
        form="json",
        message=_message(error),
        code=_word(error.get("code")),
        type=_word(error.get("type")) or _word(error.get("status")),
        words=tuple(word.lower() for word in (*codes, *kinds) if word),
        retry_delay=delays[0] if delays else None,
        filter_result=any("content_filter_result" in found or "content_filter_results" in found for found in inner),
        quota_value=next((value for value in quota_values if value), None),
        request_id=request_id,
    )


def _page(text: str) -> ErrorBody:
    """Of an HTML page only the title or the first heading says anything."""
    for heading in _HEADINGS:
        found = heading.search(text[:8000])
        if found and found[1].strip():
            from html import unescape

            return ErrorBody(form="html", message=_line(unescape(found[1])))
    return ErrorBody(form="html")


def read_error(body: bytes) -> ErrorBody:
    """An error reply's body, whatever it is. Never raises."""
    start = body[:400].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        return ErrorBody(form="empty")
    try:
        data = loads(body.removeprefix(b"\xef\xbb\xbf"))
    except JSONDecodeError:
        text = body[:8000].decode(errors="replace")
        return _page(text) if start.startswith(b"<") else ErrorBody(form="text", message=_line(text))
    found = error_of(data)
    if found is not None:
        return found
    data = _unwrapped(data)
    return _read(data, data) if isinstance(data, dict) else ErrorBody(form="json", message=_line(str(data)) if data else "")
