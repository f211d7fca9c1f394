"""Prompts that begin alike: marked for the provider's cache, written by one request before the others go out, and paid for as bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from world import Scripted, World, rows

from batchllm.core.errors import SpecError
from batchllm.core.nouns import Request
from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.core.wire import HttpReply
from batchllm.engine import RunOptions
from batchllm.engine.plan import plan_job
from batchllm.engine.prompt_cache import PromptKey, prompt_cache_of
from batchllm.engine.stop import Stopper
from batchllm.report.plan import as_dict
from batchllm.spec import ModelSpec, build
from batchllm.tokens import counter

RULES = "Label the review with care. " * 300
PRICE = {"input": 3, "output": 15, "cached_input": 0.3, "cache_write": 3.75}
CLAUDE: dict[str, Any] = {
    "provider": "anthropic",
    "model": "claude-sonnet-5-5",
    "base_url": "http://127.0.0.1:9",
    "api_key_env": "none",
    "price": PRICE,
}


class Wire(Scripted):
    """Answers as Anthropic does, after a second; the first to ask for a beginning writes it, whoever comes after its answer reads it."""

    def __init__(self, *, faults: int = 0) -> None:
        super().__init__(lambda nth, text, now: (1.0, HttpReply(status=500, body=b"{}")))
        self.bodies: list[dict[str, Any]] = []
        self._faults = faults
        self._there_from = float("inf")

    async def send(self, call: Any, *, timeout_seconds: float) -> Any:
        body = json.loads(call.body)
        nth, now = len(self.bodies), self.clock.now()
        self.bodies.append(body)
        self.arrivals.append((now, ""))
        await self.clock.sleep(1.0)
        if nth < self._faults:
            return HttpReply(status=500, body=b'{"type":"error","error":{"type":"api_error","message":"oops"}}', headers={})
        marked = "cache_control" in json.dumps(body)
        reads = marked and now >= self._there_from
        if marked:
            self._there_from = min(self._there_from, self.clock.now())
        usage = {"input_tokens": 50, "output_tokens": 5}
        if marked:
            usage |= {"cache_read_input_tokens": 2000 * reads, "cache_creation_input_tokens": 2000 * (not reads)}
        answer = {
            "id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5",
            "content": [{"type": "text", "text": "fine"}], "stop_reason": "end_turn", "usage": usage,
        }  # fmt: skip
        return HttpReply(status=200, body=json.dumps(answer).encode(), headers={"content-type": "application/json"})


def claude(world: Any, count: int = 8, wire: Wire | None = None, **keys: Any) -> tuple[World, Wire]:
    wire = wire or Wire()
    given = {"prompt": {"system": RULES, "user": "{{ text }}"}, "models": {"m": CLAUDE}, "concurrency": 4, **keys}
    return world(rows(count), scripts={"m": wire}, **given), wire


def test_one_writes_and_the_others_read(world):
    w, wire = claude(world, budget={"usd": 1})
    summary = w.run()
    assert summary.exit_code == 0
    assert wire.times[:5] == pytest.approx([0, 1, 1, 1, 1], abs=0.01)
    assert wire.bodies[0]["system"] == [{"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}}]
    assert (summary.tokens.cache_write, summary.tokens.cached_input) == (2000, 14_000)
    # The mark is no part of what is asked: nothing changes without it.
    assert w.run(prompt_cache="off", budget={"usd": 2}).attempts == 8


@pytest.mark.parametrize(
    ("prompt", "system", "content"),
    [
        ({"system": "Short.", "user": RULES + "\n{{ text }}"}, None, True),
        (RULES + "{{ text }}", None, True),
        ("{{ text }}" + RULES, None, False),
        ({"system": "Short.", "user": "{{ text }}"}, None, False),
        ({"system": "{{ text }}" + RULES, "user": "hello"}, None, False),
    ],
)
def test_what_is_marked(world, prompt, system, content):
    w, wire = claude(world, 1, prompt=prompt)
    assert w.run().exit_code == 0
    (message,) = wire.bodies[0]["messages"]
    assert ("cache_control" in json.dumps(wire.bodies[0])) is content
    if content:
        first, rest = message["content"]
        assert first == {"type": "text", "text": RULES.rstrip(), "cache_control": {"type": "ephemeral"}}
        assert rest["text"].strip() == "row 0 says hello"


@pytest.mark.parametrize(
    ("keys", "mark"),
    [
        ({"prompt_cache": "1h"}, {"type": "ephemeral", "ttl": "1h"}),
        ({"prompt_cache": "5m"}, {"type": "ephemeral"}),
        ({"prompt_cache": "off"}, None),
        # Its own price without one for writing: what is written might cost more than is held for it.
        ({"models": {"m": {**CLAUDE, "price": {"input": 3, "output": 15}}}}, None),
    ],
)
def test_lifetimes(world, keys, mark):
    w, wire = claude(world, 3, **keys)
    assert w.run().exit_code == 0
    system = wire.bodies[0]["system"]
    assert (system[0]["cache_control"] if isinstance(system, list) else None) == mark
    assert wire.times == pytest.approx([0, 0, 0] if mark is None else [0, 1, 1], abs=0.01)


def test_what_cannot_be_kept_is_said(world):
    with pytest.raises(SpecError, match="cache_write"):
        claude(world, prompt_cache="1h", models={"m": {**CLAUDE, "price": {"input": 3, "output": 15}}})[0].run()
    w, _ = claude(world, 1, prompt_cache="1h", prompt="{{ text }}")
    assert w.run().exit_code == 0
    assert any("`prompt_cache: 1h` has nothing to keep" in note.text for note in w.notes)


def test_the_next_one_writes_when_the_first_has_no_answer(world):
    w, wire = claude(world, wire=Wire(faults=2), retry={"initial_seconds": 5, "max_seconds": 5})
    assert w.run().exit_code == 0
    # One at a time until the first answer.
    assert wire.times[:5] == pytest.approx([0, 1, 2, 3, 3], abs=0.01)


class Streamed(Wire):
    """The first part of an answer comes after a fifth of a second."""

    async def stream(self, call: Any, reader: Any, **_: float) -> Any:
        self.arrivals.append((self.clock.now(), ""))
        events = [
            {"type": "message_start", "message": {"id": "m", "model": "claude-sonnet-5-5", "usage": {"input_tokens": 50, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fine"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        ]
        for wait_seconds, part in ((0.2, events[:3]), (0.8, events[3:])):
            await self.clock.sleep(wait_seconds)
            reader.feed(b"".join(b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in part))
        return HttpReply(status=200, body=b"", headers={"content-type": "text/event-stream"})


def test_the_others_wait_for_no_more_than_the_first_part_of_a_stream(world):
    w, wire = claude(world, wire=Streamed(), stream=True)
    assert w.run().exit_code == 0
    assert wire.times[:4] == pytest.approx([0, 0.2, 0.2, 0.2], abs=0.01)


def test_after_its_lifetime_it_is_written_anew():
    async def main() -> list[bool]:
        clock = VirtualClock()
        cache = prompt_cache_of(
            build({"name": "t", "prompt": {"system": RULES, "user": "{{ text }}"}, "models": {"m": CLAUDE}}),
            ModelSpec.model_validate(CLAUDE),
            counter=counter("anthropic", "claude-sonnet-5-5"),
            job_id="j",
            clock=clock,
            stopper=Stopper(),
        )
        assert cache is not None
        writes = []
        for wait_seconds in (0, 200, 200, 280):
            await clock.sleep(wait_seconds)
            writes.append(await cache.enter())
            cache.leave(warmed=writes[-1], answered=True)
        return writes

    # Each use keeps it for another while.
    assert run_virtual(main) == [True, False, False, True]


def test_a_stop_lets_those_go_that_wait(world):
    w, wire = claude(world, deadline="0.4s")
    summary = w.run()
    assert (summary.stopped_by, summary.rows.ok, len(wire.bodies)) == ("deadline", 1, 1)
    assert w.run(deadline=None).exit_code == 0


def test_openai_gets_a_key_at_its_own_host_only():
    def made(**model: Any) -> Any:
        spec = build(
            {"name": "t", "prompt": {"system": RULES, "user": "{{ text }}"}, "models": {"m": {"provider": "openai", "model": "gpt-x", **model}}}
        )
        return prompt_cache_of(spec, spec.models["m"], counter=counter("openai", "gpt-x"), job_id="j1", clock=None, stopper=None)  # type: ignore[arg-type]  # no clock runs for a key alone

    key = made()
    assert isinstance(key, PromptKey)
    request = Request(endpoint="chat", messages=(), params={"seed": 1})
    assert key.marked(request).params == {"seed": 1, "prompt_cache_key": "batchllm-j1"}
    own = Request(endpoint="chat", messages=(), params={"prompt_cache_key": "mine"})
    assert key.marked(own) is own
    assert made(base_url="http://localhost:1/v1", api_key_env="none") is None


def test_a_plan_counts_what_will_be_read(world, tmp_path):
    """Written once and read by all others: expected so, never counted on for the most."""

    def plan(rules: str = RULES, **keys: Any) -> dict[str, Any]:
        w, _ = claude(world, 50, prompt={"system": rules, "user": "{{ text }}"}, request={"max_tokens": 10}, **keys)
        return as_dict(plan_job(build(w.keys, folder=w.folder), {}, RunOptions(), utc=1_795_219_200.0))

    long = RULES * 3
    kept, unkept = plan(long), plan(long, prompt_cache="off")
    tokens = counter("anthropic", "claude-sonnet-5-5", base_url=CLAUDE["base_url"]).estimate([{"role": "user", "content": long}], {})
    assert unkept["cost_usd"]["expected"] - kept["cost_usd"]["expected"] == pytest.approx((49 * (3 - 0.3) - 0.75) * tokens / 1e6, rel=0.01)
    assert kept["cost_usd"]["worst"] == unkept["cost_usd"]["worst"]
    assert any("read from the provider's cache" in note for note in kept["notes"])
    assert {saving["by"] for saving in kept["savings"]} & {"prompt_cache"} == set()
    assert {saving["by"] for saving in unkept["savings"]} >= {"prompt_cache"}
    # What not every model keeps is no more than a saving that may come.
    short = plan()
    assert short["cost_usd"]["expected"] == plan(prompt_cache="off")["cost_usd"]["expected"]
    assert {saving["by"] for saving in short["savings"]} >= {"prompt_cache"}


def test_a_plan_believes_the_store(world):
    """A beginning that few models keep is counted where earlier answers show that this one does."""
    w, _ = claude(world, 50)
    w.run(RunOptions(limit=10))
    told = as_dict(plan_job(build(w.keys, folder=w.folder), {}, RunOptions(), utc=1_795_219_200.0))
    assert told["models"]["m"]["rows"] == 40
    assert told["cost_usd"]["expected"] == pytest.approx(40 * (50 * 3 + 2000 * 0.3 + 5 * 15) / 1e6, rel=0.1)
