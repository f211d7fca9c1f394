"""Prompts that begin alike: the beginning is marked for the provider's cache (`prompt_cache`), and one request writes it before the others go out.

The trap: requests that leave together before the first of them is answered all pay the price of writing (protocols B). So while nothing is known to be in the
cache, one request is on its way and the others wait - for its answer, or for the first part of it where answers are streamed. The marks are no part of what is
asked: fingerprints are taken without them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchllm.core.clock import Clock
from batchllm.core.nouns import Request
from batchllm.engine.stop import Stopper
from batchllm.spec.model import HOSTS, is_own_host

if TYPE_CHECKING:
    from batchllm.spec import JobSpec, ModelSpec
    from batchllm.tokens import Counter

LEAST_TOKENS = 1024
"""Shorter beginnings are not kept by any model (protocols B)."""
NOTHING_TO_KEEP = f"that takes a model of Anthropic (or OpenAI) and a prompt whose first {LEAST_TOKENS:,} tokens are the same for all rows"
SURELY_KEPT_TOKENS = {"sonnet": 2048, "": 4096}
"""From here on a beginning is kept by every present model whose id says so; some keep shorter ones."""
_TTL_SECONDS = {"5m": 300.0, "1h": 3600.0}
_TRUST = 0.9
"""Of a lifetime: as long after the last answer the beginning is taken to be there."""
_TAG = re.compile(r"\{[{%#]")


class Beginning:
    """What all prompts of a job begin with, as far as the spec says it."""

    __slots__ = ("lead", "whole")

    def __init__(self, spec: JobSpec) -> None:
        self.whole: list[str] = []
        """Contents of the first messages, which are the same for all rows."""
        self.lead = ""
        """What the message behind them begins with."""
        for message in spec.prompt.messages if spec.prompt is not None else ():
            content = message.content
            if not isinstance(content, str):
                break
            tag = _TAG.search(content)
            if tag is not None:
                self.lead = content[: tag.start()].rstrip() if message.role == "user" else ""
                break
            self.whole.append(content)

    def messages(self, lead: str | None = None) -> list[dict[str, Any]]:
        """As messages, to be counted; with another lead than its own, if one is given."""
        return [{"role": "user", "content": text} for text in (*self.whole, self.lead if lead is None else lead) if text]

    def lead_of(self, request: Request) -> str | None:
        """What can be marked behind the whole messages: the lead, or nothing (empty). None: this request can't be marked, or has marks of its own."""
        messages, whole = request.messages, self.whole
        at = len(whole)
        if request.endpoint != "chat" or len(messages) < at or "cache_control" in request.params or "cache_control" in request.body:
            return None
        if any(message.get("content") != text for message, text in zip(messages, whole, strict=False)):
            return None
        content = messages[at].get("content") if len(messages) > at else None
        if self.lead and isinstance(content, str) and content.startswith(self.lead) and content[len(self.lead) :].strip():
            return self.lead
        return "" if whole else None


class PromptCache:
    """One per lane whose prompts are marked; belongs to the run's loop."""

    def __init__(self, beginning: Beginning, *, lifetime: str, clock: Clock, stopper: Stopper) -> None:
        self._beginning = beginning
        self._mark: Mapping[str, str] = {"type": "ephemeral"} if lifetime == "5m" else {"type": "ephemeral", "ttl": lifetime}
        self._keep_seconds = _TTL_SECONDS[lifetime] * _TRUST
        self._warm_until = float("-inf")
        self._warming = False
        self._changed = asyncio.Event()
        stopper.on_stop(lambda _stop: self._changed.set())
        self._clock = clock
        self._stopper = stopper

    def marked(self, request: Request) -> Request:
        """The request with a mark at the end of what it has in common with all others; one that has it not, or has marks of its own, stays as it is."""
        lead = self._beginning.lead_of(request)
        if lead is None:
            return request
        messages = list(request.messages)
        at = len(self._beginning.whole)
        if lead:
            rest = {"type": "text", "text": messages[at]["content"][len(lead) :]}
            messages[at] = {**messages[at], "content": [self._block(lead), rest]}
        else:
            messages[at - 1] = {**messages[at - 1], "content": [self._block(self._beginning.whole[-1])]}
        return replace(request, messages=messages)

    def _block(self, text: str) -> dict[str, Any]:
        return {"type": "text", "text": text, "cache_control": dict(self._mark)}

    async def enter(self) -> bool:
        """Before a request is sent: waits while another one writes the beginning. Whether this one is to write it, and must `leave`."""
        while self._clock.now() >= self._warm_until and self._stopper.stop is None:
            if not self._warming:
                self._warming = True
                return True
            self._changed.clear()
            await self._changed.wait()
        return False

    def began(self) -> None:
        """The first part of a streamed answer came: from then on the beginning is there, and nobody needs to wait for the rest."""
        self._warm_until = max(self._warm_until, self._clock.now() + self._keep_seconds)
        self._changed.set()

    def leave(self, *, warmed: bool, answered: bool) -> None:
        """A request is over. With an answer the beginning is there for another lifetime; `warmed`: it was the one to write it, and without an answer the next one is."""
        if answered:
            self._warm_until = self._clock.now() + self._keep_seconds
        if warmed:
            self._warming = False
            self._changed.set()


class PromptKey:
    """OpenAI keeps beginnings by itself; a key of the job's own makes its requests meet where theirs is kept (protocols A)."""

    def __init__(self, job_id: str) -> None:
        self._key = f"batchllm-{job_id}"

    def marked(self, request: Request) -> Request:
        """The request with the key, unless it has one."""
        if "prompt_cache_key" in request.params or "prompt_cache_key" in request.body:
            return request
        return replace(request, params={**request.params, "prompt_cache_key": self._key})

    async def enter(self) -> bool:
        """Nobody waits: writing costs nothing or little, and is not asked for."""
        return False

    def began(self) -> None:
        """Nothing follows from it."""

    def leave(self, *, warmed: bool, answered: bool) -> None:
        """Nothing is to be known of it."""


def prompt_cache_of(
    spec: JobSpec, model: ModelSpec, *, counter: Counter, job_id: str, clock: Clock, stopper: Stopper
) -> PromptCache | PromptKey | None:
    """How a model's prompts are marked; None where they aren't: another wire, no common beginning that is long enough, or a price of writing that isn't known."""
    beginning = beginning_kept(spec, model, counter)
    if beginning is None:
        return None
    if model.provider == "openai":
        return PromptKey(job_id)
    return PromptCache(beginning, lifetime="1h" if spec.prompt_cache == "1h" else "5m", clock=clock, stopper=stopper)


def beginning_kept(spec: JobSpec, model: ModelSpec, counter: Counter) -> Beginning | None:
    """What a run wants the provider to keep; None where it doesn't ask for that."""
    if model.provider not in {"anthropic", "openai"} or spec.prompt_cache == "off" or spec.endpoint not in {"chat", "responses"}:
        return None
    beginning = Beginning(spec)
    if counter.estimate(beginning.messages(), {}) < LEAST_TOKENS:
        return None
    if model.provider == "openai":
        # Another server may refuse a parameter that it doesn't know.
        return beginning if is_own_host("openai", model.base_url or HOSTS["openai"].base_url) else None
    return None if model.price is not None and model.price.cache_write is None else beginning
