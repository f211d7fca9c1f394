"""One HTTP error reply, or an error inside a 200, becomes a `Fault`: by status, code, type and text together (retry taxonomy, protocols F).

The trap: the status alone lies. Money comes as 400, 402, 403, 422 and 429; a wrong key as 400; a permanent limit as 429; an overload as 500. So identifiers
are asked first, then the status, then - inside the status - the provider's words. The order of the checks below is the order of trust.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from batchllm.core.nouns import Billed, Fault, Kind, Usage
from batchllm.providers import signals
from batchllm.providers.envelope import SHOWN, ErrorBody, header_text, read_error
from batchllm.providers.waits import header_wait, wait_hint

_LIMIT_AND_REQUEST = re.compile(r"\blimit:?\s+([\d,]+)\b.{0,80}?\brequested:?\s+([\d,]+)", re.DOTALL)
_LIMIT_ZERO = re.compile(r"\blimit(?: of|:)? 0(?![\d.,]*\d)")
_ZERO_LIMIT_HEADERS = ("x-ratelimit-limit-req-minute", "x-ratelimit-limit-tokens-minute")
"""Mistral: a limit of 0 means that the model is not in the plan. (OpenAI's own names carry meaningless zeros at Azure.)"""

_UNREACHED = frozenset({502, 521, 522, 523, 525, 526, 530})
_COSTS: dict[Kind, tuple[Billed, bool]] = {
    Kind.BAD_GATEWAY: ("maybe", True),
    Kind.GATEWAY_TIMEOUT: ("maybe", True),
    Kind.SERVER: ("maybe", True),
    Kind.PROTOCOL: ("maybe", True),
    Kind.CUT: ("maybe", True),
    Kind.CONFLICT: ("no", True),
    Kind.OVERLOAD: ("no", True),
    Kind.RATE: ("no", True),
    Kind.RAMP: ("no", True),
    Kind.CONTEXT: ("no", True),
    Kind.FILTER: ("no", True),
    Kind.BAD_REQUEST: ("no", True),
    Kind.QUOTA_DAY: ("no", False),
    Kind.OVERSIZE: ("no", False),
    Kind.MONEY: ("no", False),
    Kind.AUTH: ("no", False),
    Kind.MODEL_GONE: ("no", False),
}
"""Table F's columns "billed" and "counts"; where it says "possibly" of the limits, they are taken as used, and so are lock conflicts: many a gateway counts at its door."""


def _any(texts: tuple[str, ...], text: str) -> bool:
    return any(part in text for part in texts)


def _is_context(error: ErrorBody, text: str) -> bool:
    if signals.NOT_CONTEXT in error.words or signals.NOT_CONTEXT in text:
        return False
    return _any(signals.CONTEXT_TEXTS, text) or all(part in text for part in signals.CONTEXT_PAIR)


def _is_money(text: str) -> bool:
    return _any(signals.MONEY_TEXTS, text) or (signals.QUOTA_TEXT in text and signals.QUOTA_SITE in text)


def _limit(status: int, error: ErrorBody, text: str, headers: Mapping[str, str]) -> Kind:
    """A rate limit, or what only looks like one: a limit that this request, this model or this day can never pass."""
    numbers = _LIMIT_AND_REQUEST.search(text)
    limit, requested = (int(part.replace(",", "") or 0) for part in numbers.groups()) if numbers else (None, None)
    if limit == 0 or error.quota_value == "0" or _LIMIT_ZERO.search(text) or any(headers.get(name) == "0" for name in _ZERO_LIMIT_HEADERS):
        return Kind.MODEL_GONE
    # Without numbers the words decide: a refusal never uses up attempts, so a request that can't pass would be sent for ever.
    too_large = requested > limit if limit is not None and requested is not None else signals.TOO_LARGE_TEXT in text
    if too_large or status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Kind.OVERSIZE
    if _is_money(text):
        return Kind.MONEY
    if _any(signals.DAY_TEXTS, text) or any("perday" in word or "per_day" in word for word in error.words):
        return Kind.QUOTA_DAY
    return Kind.RATE


def _bad_request(error: ErrorBody, text: str) -> Kind:
    """400: mostly the row's own fault, but also where gateways put keys, money and model names."""
    if _is_money(text):
        return Kind.MONEY
    if _any(signals.MODEL_TEXTS, text):
        return Kind.MODEL_GONE
    if _any(signals.FILTER_TEXTS, text) or error.filter_result:
        return Kind.FILTER
    if _any(signals.AUTH_TEXTS, text):
        return Kind.AUTH
    return Kind.BAD_REQUEST


def _forbidden(error: ErrorBody, text: str) -> Kind:
    """403: OpenRouter's budgets and moderation, a model that this key may not use, else the key."""
    if _is_money(text) or any(word.endswith(("_budget", "_key_limit")) for word in error.words):
        return Kind.MONEY
    if _any(signals.MODERATION_TEXTS, text) or _any(signals.FILTER_TEXTS, text):
        return Kind.FILTER
    return Kind.MODEL_GONE if "model" in text else Kind.AUTH


def _payment(text: str, headers: Mapping[str, str]) -> Kind:
    """402: no credit, unless the server says when to come back (OpenRouter: too many paid requests in flight)."""
    if "weight_exceeds_budget" in text:
        return Kind.OVERSIZE
    return Kind.RATE if header_wait(headers) is not None else Kind.MONEY


def _server(text: str) -> Kind:
    """500: an overload and a dead upstream come dressed as one."""
    if _any(signals.OVERLOAD_TEXTS, text):
        return Kind.OVERLOAD
    return Kind.BAD_GATEWAY if _any(signals.DEAD_UPSTREAM_TEXTS, text) else Kind.SERVER


def _by_status(status: int, error: ErrorBody, text: str, headers: Mapping[str, str]) -> Kind:
    match status:
        case 400:
            return _bad_request(error, text)
        case 401 | 407:
            return Kind.AUTH
        case 402:
            return _payment(text, headers)
        case 403:
            return _forbidden(error, text)
        case 404:
            return Kind.BAD_REQUEST if _any(signals.ROW_THINGS, text) and "model" not in text else Kind.MODEL_GONE
        case 405 | 410:
            return Kind.MODEL_GONE
        case 408 | 409 | 425 | 499:
            return Kind.CONFLICT
        case 413:
            return Kind.OVERSIZE if _LIMIT_AND_REQUEST.search(text) else Kind.BAD_REQUEST
        case 422:
            return Kind.MONEY if _is_money(text) else Kind.FILTER if _any(signals.FILTER_TEXTS, text) else Kind.BAD_REQUEST
        case 429:
            return _limit(status, error, text, headers)
        case 498 | 503 | 529:
            return Kind.OVERLOAD
        case 504 | 524:
            return Kind.GATEWAY_TIMEOUT
        case _ if status in _UNREACHED:
            return Kind.BAD_GATEWAY
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _server(text)
    return Kind.BAD_REQUEST if status >= HTTPStatus.BAD_REQUEST else Kind.PROTOCOL


def _kind(status: int, error: ErrorBody, headers: Mapping[str, str]) -> Kind:
    text = error.text
    kind = next((signals.CODES[word] for word in error.words if word in signals.CODES), None)
    if kind is Kind.RAMP and status == HTTPStatus.SERVICE_UNAVAILABLE:
        return Kind.OVERLOAD
    if kind is Kind.RATE and status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        return _limit(status, error, text, headers)
    if kind is not None:
        return kind
    if status in (400, 413, 422, 500) and _is_context(error, text):
        return Kind.CONTEXT
    return _by_status(status, error, text, headers)


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _words(status: int, error: ErrorBody, kind: Kind, headers: Mapping[str, str]) -> str:
    """The provider's own words, and a mend where only we know one."""
    words = error.message[:SHOWN]
    if not words or error.form == "html":
        about = {"html": f"an HTML page: {words}" if words else "an HTML page", "empty": "an empty body"}.get(error.form, "no message")
        words = f"{_phrase(status)}, {about}"
    if 300 <= status < 400:
        words = f"{_phrase(status)}: the endpoint redirects to {header_text(headers, 'location') or 'somewhere'}; base_url may be wrong"
    elif kind is Kind.MODEL_GONE and status in (404, 405, 410) and "model" not in error.text and "deployment" not in error.text:
        words = f"{words[: SHOWN - 90]} (nothing answers at this path: base_url may be wrong, it usually ends in /v1)"
    return words[:SHOWN]


def _costs(status: int, error: ErrorBody, kind: Kind) -> tuple[Billed, bool]:
    billed, counts = _COSTS[kind]
    if status == HTTPStatus.REQUEST_TIMEOUT:
        return "maybe", True
    if status in (402, 498):
        return "no", False
    if kind is Kind.FILTER and error.filter_result:
        return "maybe", True
    return billed, counts


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """The fault that an error reply (any status but 2xx) is. `headers` have lower-case names. Never raises, whatever the bytes."""
    error = read_error(body)
    kind = _kind(status, error, headers)
    billed, counts = _costs(status, error, kind)
    return Fault(
        kind=kind,
        message=_words(status, error, kind, headers),
        http_status=status,
        provider_code=error.name,
        wait_seconds=_wait(kind, error, headers),
        billed=billed,
        counts=counts,
        request_id=header_text(headers, "x-request-id", "request-id") or error.request_id,
    )


def classify_inner(
    error: ErrorBody, headers: Mapping[str, str], *, usage: Usage | None = None, status: int = 200, request_id: str | None = None
) -> Fault:
    """The fault that an error inside a 200 is: by its inner code, as if that were the status; an unknown one is the server's failure (500).

    It was executed as far as anybody knows: billed "yes" when usage is told, else "maybe".
    """
    inner = error.number
    if inner is None or not 400 <= inner < 600:
        inner = next((signals.STATUS_OF_WORD[word] for word in error.words if word in signals.STATUS_OF_WORD), 500)
    kind = _kind(inner, error, headers)
    return Fault(
        kind=kind,
        message=(error.message or f"an error without words inside a {status}")[:SHOWN],
        http_status=status,
        provider_code=error.name,
        wait_seconds=_wait(kind, error, headers),
        billed="maybe" if usage is None else "yes",
        usage=usage,
        request_id=header_text(headers, "x-request-id", "request-id") or request_id or error.request_id,
    )


def _wait(kind: Kind, error: ErrorBody, headers: Mapping[str, str]) -> float | None:
    if kind in (Kind.AUTH, Kind.MONEY, Kind.MODEL_GONE, Kind.BAD_REQUEST, Kind.CONTEXT, Kind.FILTER, Kind.OVERSIZE):
        return None
    # Gemini's RetryInfo looks short even where the day's quota is used up (protocols C.5).
    delay = None if kind is Kind.QUOTA_DAY else error.retry_delay
    return wait_hint(headers, error.message, delay, resets=kind in (Kind.RATE, Kind.RAMP, Kind.QUOTA_DAY))
