"""Answers of other jobs (`cache`): looked up before a row is sent, and kept for others when one came.

The trap: an answer must not stand for another question or another model. The key is made of the request's fingerprint and of who was asked (provider, base
URL, model id; for the simulator what makes its answers), and an answer from the cache is judged like one that has just come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from batchllm.core import json
from batchllm.core.events import Listener, Note
from batchllm.core.nouns import Draft, Reply, RowError
from batchllm.engine.twin_keys import KEY_BYTES, repeatable
from batchllm.rows.request import fingerprint
from batchllm.store.cache import AnswerCache, CachedAnswer, CacheProblem

if TYPE_CHECKING:
    from batchllm.engine.answers import Answers
    from batchllm.engine.lane import Lane
    from batchllm.engine.work import Work
    from batchllm.spec import JobSpec
    from batchllm.store.records import Answer

_FLUSH_SECONDS = 1.0
_WHOLE = frozenset({"stop", "tool"})
"""Ends of answers that are worth keeping."""


class Caching:
    """One per run; belongs to the run's loop. After a problem with the file it finds and keeps nothing more."""

    def __init__(
        self,
        cache: AnswerCache,
        spec: JobSpec,
        *,
        job_id: str,
        bases: Mapping[str, str],
        answers: Answers,
        listener: Listener,
        inline: bool,
    ) -> None:
        """`bases`: base URLs by model name, as they are really called."""
        self._cache: AnswerCache | None = cache
        self._all = spec.dedupe is True
        # What functions of the program say may be another thing each time, and a job without them ends where they would be called.
        self._functions = spec.toolkit is not None
        self._job, self._job_id = spec.name, job_id
        self._bases = bases
        self._answers = answers
        self._listener = listener
        self._inline = inline
        self._who: dict[str, bytes] = {}
        self._new: list[CachedAnswer] = []

    def key(self, lane: Lane, draft: Draft, told: str | None = None) -> bytes | None:
        """What a row's answer by this model is kept under; None: answers to such requests are not reused. `told`: the fingerprint, where it is known."""
        request = lane.request(draft)
        if not self._all and (self._functions or not repeatable(draft.endpoint, request.params, lane.spec.body)):
            return None
        who = self._who.get(lane.name)
        if who is None:
            spec = lane.spec
            made: list[Any] = [spec.provider, self._bases.get(lane.name) or "", spec.model]
            if spec.provider == "simulated":
                made.append(spec.simulator.seed)
            if self._functions:
                made.append("functions")
            who = self._who[lane.name] = sha256(json.canonical(made)).digest()
        return sha256(who + (told or fingerprint(request)).encode()).digest()[:KEY_BYTES]

    async def find(self, keys: Collection[bytes]) -> dict[bytes, CachedAnswer]:
        """What other jobs kept."""
        cache = self._cache
        if cache is None or not keys:
            return {}
        return await self._done(lambda: cache.get(keys, but_job_id=self._job_id)) or {}

    def read(self, cached: CachedAnswer, fields: Mapping[str, Any] | None) -> tuple[bool, str | None]:
        """(whether this job takes the answer for a good one, its value as JSON)."""
        if not self._answers.checks:
            return True, None
        if isinstance(cached.output, bytes):
            return False, None
        calls = json.loads(cached.tool_calls) if cached.tool_calls else ()
        reply = Reply(text=cached.output, tool_calls=calls, finish="stop", finish_raw=cached.finish_reason, usage=None)
        parsed = self._answers.read(reply, fields, offered=True)
        if isinstance(parsed, RowError):
            return False, None
        return True, None if parsed is None else json.text(parsed.value)

    def source(self, cached: CachedAnswer) -> str:
        """What `shared_from` says of it."""
        return f"cache:{cached.job}:{cached.custom_id}"

    def keep(self, lane: Lane, work: Work, answer: Answer, finish: str) -> None:
        """An answer that has just come, for other jobs. Those that tools had a part in are not kept: tools may say something else tomorrow. Nor are those to a
        prompt that lost a part of what is asked.
        """
        if self._cache is None or finish not in _WHOLE or work.turns or work.trimmed or work.draft is None:
            return
        key = self.key(lane, work.draft, answer.fingerprint)
        if key is not None:
            self._new.append(
                CachedAnswer(
                    key,
                    self._job_id,
                    self._job,
                    work.custom_id,
                    answer.finished_at,
                    answer.output,
                    answer.provider_model,
                    answer.finish_reason,
                    answer.tool_calls,
                    answer.input_tokens,
                    answer.output_tokens,
                    answer.cached_input_tokens,
                    answer.cache_write_tokens,
                    answer.reasoning_tokens,
                    answer.latency_seconds,
                )
            )

    async def run(self) -> None:
        """Keeps what came for other jobs every second, so that a run that dies has given most of it. Goes on until it is cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Writes down what is new."""
        cache, new = self._cache, self._new
        if cache is not None and new:
            self._new = []
            await self._done(lambda: cache.put(new))

    async def close(self) -> None:
        """At the run's end."""
        await self.flush()
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    async def _done(self, work: Callable[[], Any]) -> Any:
        try:
            return work() if self._inline else await anyio.to_thread.run_sync(work)
        except CacheProblem as problem:
            if self._cache is not None:
                self._cache.close()
                self._cache = None
                self._listener(Note(level="warning", text=f"the cache is not used any more in this run: {problem}"))
            return None
