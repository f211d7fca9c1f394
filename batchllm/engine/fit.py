"""Prompts that fit (`context`): before a row is sent to a model, its conversation is trimmed to that model's window, or the row fails as `too_long` unsent.

The trap is the estimate. Where the tokenizer is not the model's own the count may be too low, so it is taken a sixth higher; what the provider still finds too
long fails there, and goes on to a larger window like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Code, Request, RowError
from batchllm.engine.access import Access
from batchllm.engine.facts import documented
from batchllm.rows.trim import trimmed
from batchllm.spec import JobSpec
from batchllm.tokens import Counter, output_cap

_MARGIN = 7 / 6
"""On a count by a tokenizer that isn't the model's own."""


class Windowed(Protocol):
    """What is asked of a model: a lane, or a plan's view of one."""

    name: str
    counter: Counter
    window: int | None


class Fit:
    """The job's `context`. One per run."""

    def __init__(self, spec: JobSpec) -> None:
        self._context = spec.context
        self.cut = 0
        """Requests that lost turns."""

    @property
    def applies(self) -> bool:
        """Whether the spec asks for anything."""
        context = self._context
        return context.max_tokens is not None or context.reserve is not None or context.trim != "error"

    def fitted(self, lane: Windowed, request: Request) -> tuple[Request, int] | RowError:
        """(what is sent, how many messages it lost), or `too_long`."""
        most = self._most(lane, request)
        if most is None:
            return request, 0
        params: Mapping[str, Any] = {**request.params, **request.body} if request.body else request.params

        def count(messages: Sequence[Mapping[str, Any]]) -> int:
            estimate, bound = lane.counter.both(messages, params)
            if lane.counter.exact:
                return bound if bound is not None else estimate
            upper = int(estimate * _MARGIN)
            return upper if bound is None else min(upper, bound)

        tokens = count(request.messages)
        if tokens <= most:
            return request, 0
        trim = self._context.trim
        shorter = trimmed(request.messages, most=most, count=count, trim=trim) if trim != "error" else None
        if shorter is None:
            why = "" if trim == "error" else ", and system and last turn alone don't fit either"
            mend = "; `context: {trim: oldest}` would drop its first turns" if trim == "error" and len(request.messages) > 2 else ""
            words = f"the prompt has about {tokens:,} tokens and {lane.name} is to get at most {most:,}{why}{mend}"
            return RowError(code=Code.TOO_LONG, message=words)
        self.cut += 1
        return replace(request, messages=shorter), len(request.messages) - len(shorter)

    def _most(self, lane: Windowed, request: Request) -> int | None:
        """The longest prompt; None: nobody knows a limit."""
        context = self._context
        most = context.max_tokens
        if lane.window is not None:
            reserve = context.reserve if context.reserve is not None else output_cap({**request.params, **request.body}) or 0
            room = max(1, lane.window - reserve)
            most = room if most is None else min(most, room)
        return most


def check_context(spec: JobSpec, access: Mapping[str, Access]) -> None:
    """A window that is to be kept must be known, and leave room for a prompt. Raises SpecError."""
    context = spec.context
    if not Fit(spec).applies:
        return
    file = str(spec.path) if spec.path is not None else None
    problems: list[Problem] = []
    for name, reach in access.items():
        model = spec.models[name]
        window = documented(model, reach.base_url).context_window
        if window is None and context.max_tokens is None:
            words = f"how long a prompt {model.model!r} takes is not known; say it: context_window: 32768 (or bound all prompts: context: {{max_tokens: 8000}})"
            problems.append(Problem(file=file, path=f"models.{name}", message=words))
        elif window is not None and context.reserve is not None and context.reserve >= window:
            words = f"leaves no room for a prompt: {model.model!r} takes {window:,} tokens, prompt and answer together"
            problems.append(Problem(file=file, path="context.reserve", message=words))
    if problems:
        raise SpecError(problems)
