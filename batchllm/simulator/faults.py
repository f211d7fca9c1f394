"""The catalogue of everything that goes wrong on purpose: one row per fault, with who may draw it and what the provider did behind it.

Four groups. `transient` and `variation` are what a fault rate draws from: a correct client ends with the same answer as without them. `accepted` changes what a
client sees of an answer that it rightly accepts (no usage, no finish reason), so results would differ; `permanent` no retry heals. Those two come only when they
are asked for: by a marker in the last user message, `[[sim:NAME]]` or `[[sim:NAME*2]]` (the first two times only), or by naming them in `fault_kinds`.

`executed` is the share of draws in which the model did work, and was paid for, although the client may never see it. The trap: an error status proves nothing
about the bill (protocols F, column "billed"), so a 500 is sometimes billed here as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from batchllm.simulator.draw import Draw

Group = Literal["transient", "variation", "accepted", "permanent"]
Wire = Literal["any", "plain", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultKind:
    """One thing that can go wrong."""

    name: str
    group: Group
    about: str
    weight: int = 0
    """How often a fault rate draws it, relative to the others; 0: never."""
    executed: float = 0.0
    """Share of draws in which the model worked and billed."""
    wire: Wire = "any"
    """Which replies can carry it."""
    error: bool = False
    """Whether it is an error reply instead of an answer."""
    door: bool = False
    """Whether it happens before limits are looked at, so that it uses up none of them."""


def _error(name: str, about: str, weight: int = 0, *, group: Group = "transient", executed: float = 0.0, door: bool = False) -> FaultKind:
    return FaultKind(name=name, group=group, about=about, weight=weight, executed=executed, error=True, door=door)


def _answer(name: str, about: str, weight: int = 0, *, group: Group = "transient", executed: float = 1.0, wire: Wire = "any") -> FaultKind:
    return FaultKind(name=name, group=group, about=about, weight=weight, executed=executed, wire=wire)


KINDS: tuple[FaultKind, ...] = (
    # Error replies that a retry heals.
    _error("500", "500 server_error; one in four was executed and billed", 6, executed=0.25),
    _error("502", "502 with nginx's HTML page; one in four was executed and billed", 4, executed=0.25),
    _error("503", "503 server_is_overloaded without a wait hint", 4, door=True),
    _error("503_retry_after", "503 server_is_overloaded with Retry-After: 1", 3, door=True),
    _error("503_html", "503 with nginx's HTML page (limit_req), no wait hint", 2, door=True),
    _error("504", "504 with nginx's HTML page; executed and billed", 2, executed=1.0),
    _error("524", "524 with a gateway's HTML page; executed and billed", executed=1.0),
    _error("529", "529 overloaded_error", 2, door=True),
    _error("498", "498 capacity_exceeded (Groq's flex tier)", door=True),
    _error("408", "408 request timeout", 2),
    _error("409", "409 lock conflict", 2),
    _error("499", "499: the server gave the request up"),
    _error("429_retry_after", "429 rate_limit_exceeded with Retry-After: 1", 3, door=True),
    _error("429_retry_after_ms", "429 rate_limit_exceeded with retry-after-ms: 250", 3, door=True),
    _error("429_date", "429 rate_limit_exceeded with Retry-After as an HTTP date", 1, door=True),
    _error("429_text", "429 rate_limit_exceeded, the wait only in the text", 2, door=True),
    _error("429_bare", "429 rate_limit_exceeded without any hint", 2, door=True),
    _error("slow_down", "429 slow_down: traffic rose too fast", 1, door=True),
    _error("resource_unavailable", "429 resource_unavailable: no flex capacity", door=True),
    _error("402_retry_after", "402 with Retry-After: in-flight budget (OpenRouter)", door=True),
    # Connections.
    FaultKind(name="refuse", group="transient", about="connection refused", weight=3, door=True),
    _answer("reset", "connection reset before the headers; every second one was executed and billed", 3, executed=0.5),
    _answer("reset_mid", "connection reset in the body; executed and billed", 3),
    _answer("stall", "silence instead of headers, for ever; executed and billed", 1),
    _answer("stall_mid", "silence after half of the body, for ever; executed and billed", 1),
    _answer("short_body", "closed before Content-Length bytes were sent; executed and billed", 2),
    # 200s that are none.
    _answer("half_json", "a complete 200 whose JSON ends in the middle; executed and billed", 2, wire="plain"),
    _answer("html_200", "200 with an HTML page", 2, executed=0.0),
    _answer("empty_200", "200 with an empty body", 1, executed=0.0),
    _answer("error_200", "200 whose body is an error object (server_error)", 2, executed=0.0),
    _answer("finish_error", "200 with finish_reason error and half of the text; executed and billed", 1),
    _answer("no_choices", "200 without choices; executed and billed", 1, wire="plain"),
    # Streams.
    _answer("stream_error", "an error frame after some tokens; executed and billed", 3, wire="stream"),
    _answer("stream_no_finish", "the stream ends without a finish reason", 2, wire="stream"),
    _answer("stream_cut", "the body ends in the middle of a frame, as if it were whole", 2, wire="stream"),
    _answer("stream_stall_comments", "the answer begins, then comment keep-alives only, for ever", 1, wire="stream"),
    # Right answers, sent strangely.
    _answer("slow_drip", "the body comes in small pieces over a second", 2, group="variation"),
    _answer("close_idle", "the connection is closed after the answer without a word: whoever reuses it too soon is reset", 3, group="variation"),
    _answer("gzip", "the body is gzipped", 3, group="variation", wire="plain"),
    _answer("padding", "blank lines before the JSON", 3, group="variation"),
    _answer("usage_strings", "token counts are strings", 1, group="variation"),
    _answer("stream_split", "frames cut at any byte, several in one packet", 3, group="variation", wire="stream"),
    _answer("stream_no_done", "no [DONE] at the stream's end", 1, group="variation", wire="stream"),
    _answer("stream_usage_every", "usage on every chunk", 1, group="variation", wire="stream"),
    _answer("stream_comments", "comment keep-alives between frames", 1, group="variation", wire="stream"),
    _answer("stream_plain", "a plain JSON answer although a stream was asked for", 1, group="variation", wire="stream"),
    _answer("stream_first_empty", "a first chunk without choices (Azure)", 1, group="variation", wire="stream"),
    _answer("stream_usage_in_choices", "the usage chunk has a choice (LiteLLM)", 1, group="variation", wire="stream"),
    # Accepted, with something missing.
    _answer("usage_missing", "200 without usage", group="accepted"),
    _answer("usage_zero", "200 whose usage is all zeros", group="accepted"),
    _answer("usage_cached", "half of the input is reported as cached", group="accepted"),
    _answer("usage_cache_write", "half of the input is reported as written to the cache", group="accepted"),
    _answer("usage_reasoning", "200 reasoning tokens on top, more than the output cap", group="accepted"),
    _answer("finish_null", "200 with finish_reason null", group="accepted"),
    _answer("length", "cut at the cap (or after 5 tokens), finish_reason length", group="accepted"),
    _answer("window_full", "cut in the middle: the model's context window is full (Anthropic's model_context_window_exceeded)", group="accepted"),
    _answer("paused", "cut in the middle, to be sent again (Anthropic's pause_turn, Gemini's CONTINUATION)", group="accepted"),
    _answer("empty", "200 with empty text, finish_reason stop", group="accepted"),
    _answer("empty_length", "200 with empty text, finish_reason length: reasoning used up the cap", group="accepted"),
    _answer("bad_json", "text that is broken JSON", group="accepted"),
    _answer("schema_violation", "text that is JSON of another schema", group="accepted"),
    _answer("bad_arguments", "a tool call whose arguments are broken JSON", group="accepted"),
    _answer("refusal", "200 with a refusal instead of content; billed", group="permanent"),
    _answer("content_filter", "200 with finish_reason content_filter and no content; billed", group="permanent"),
    _answer("prompt_blocked", "200 without an answer: the prompt was blocked (Gemini's promptFeedback); the prompt is billed", group="permanent"),
    # Errors that no retry heals.
    _error("401", "401 invalid_api_key", group="permanent", door=True),
    _error("403", "403: no access", group="permanent", door=True),
    _error("402", "402 insufficient balance", group="permanent", door=True),
    _error("insufficient_quota", "429 insufficient_quota: no credit", group="permanent", door=True),
    _error("credit_balance_exhausted", "429 credit_balance_exhausted", group="permanent", door=True),
    _error("spend_limit", "429 project_spend_limit_exceeded", group="permanent", door=True),
    _error("usage_limits", "400: the account's own usage limit is reached (Anthropic)", group="permanent", door=True),
    _error("on_hold", "400 organization_on_hold (Anthropic)", group="permanent", door=True),
    _error("region", "403 or 400 FAILED_PRECONDITION: not served in this country", group="permanent", door=True),
    _error("budget", "422 budget of the key used up (LiteLLM)", group="permanent", door=True),
    _error("rpd", "429 requests per day, wait in the text and in Retry-After", group="permanent", door=True),
    _error("limit_zero", "429 with a limit of 0 for this model", group="permanent", door=True),
    _error("oversize", "429 Request too large: larger than the whole limit", group="permanent", door=True),
    _error("model_not_found", "404 model_not_found", group="permanent", door=True),
    _error("path_not_found", '404 {"detail": "Not Found"}', group="permanent", door=True),
    _error("context_length", "400 context_length_exceeded", group="permanent"),
    _error("content_policy", "400 content_policy_violation", group="permanent"),
    _error("invalid_request", "400 invalid_request_error", group="permanent"),
    _error("unsupported_parameter", "400 unsupported_parameter", group="permanent"),
    _error("413", "413 with nginx's HTML page", group="permanent", door=True),
    _error("422", '422 {"detail": ...}', group="permanent"),
    _error("redirect", "302 to a login page", group="permanent", door=True),
)

BY_NAME = {kind.name: kind for kind in KINDS}

_MARKER = re.compile(r"\[\[sim:([a-z0-9_]+)(?:\*(\d+))?\]\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A fault that a prompt asks for."""

    name: str
    times: int | None
    """How often; None: every time."""


def marker(text: str) -> Marker | None:
    """The first `[[sim:NAME]]` of a text."""
    found = _MARKER.search(text)
    return Marker(name=found[1], times=int(found[2]) if found[2] else None) if found else None


class Deck:
    """Draws faults at a rate, by weight, from the named kinds or from all that have a weight."""

    def __init__(self, rate: float, names: tuple[str, ...] | None) -> None:
        self._rate = rate
        self._plain = self._spread(names, "plain")
        self._stream = self._spread(names, "stream")

    @staticmethod
    def _spread(names: tuple[str, ...] | None, wire: Wire) -> tuple[FaultKind, ...]:
        kinds = KINDS if names is None else tuple(BY_NAME[name] for name in names)
        # Named kinds without a weight of their own come as often as the rarest.
        return tuple(kind for kind in kinds if kind.wire in ("any", wire) for _ in range(kind.weight if names is None else max(kind.weight, 1)))

    def draw(self, draw: Draw, *, stream: bool) -> FaultKind | None:
        """The fault of this attempt, if it has one."""
        if draw.unit() >= self._rate:
            return None
        kinds = self._stream if stream else self._plain
        return kinds[draw.below(len(kinds))] if kinds else None


def listing() -> str:
    """The catalogue as text, for `simulate --list-faults`."""
    lines: list[str] = []
    titles: dict[Group, str] = {
        "transient": "A retry heals these (drawn by --faults)",
        "variation": "Right answers, sent strangely (drawn by --faults)",
        "accepted": "Answers with something missing (only by marker)",
        "permanent": "No retry heals these (only by marker)",
    }
    for group, title in titles.items():
        lines += [title + ":", *(f"  {kind.name:<22} {kind.about}" for kind in KINDS if kind.group == group), ""]
    lines += ["A marker in the last user message asks for one: [[sim:stall]], or [[sim:500*2]] for the first two times only."]
    return "\n".join(lines)
