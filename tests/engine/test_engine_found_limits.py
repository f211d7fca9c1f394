"""Guarantee 4, second half: limits that nobody declared are found within seconds and then kept, by headers or, without them, by refusals alone."""

from __future__ import annotations

import random

import pytest
from world import rows

from batchllm.admit.finder import per_minute
from batchllm.core.nouns import LimitHint
from batchllm.core.wire import HttpReply
from batchllm.simulator import SimulatedTransport

FOUND = [
    # headers?, the provider's settings, least share of the quota after 30 s, most refusals per 100 answers
    (True, {"rpm": 3000, "burst_seconds": 1}, 0.98, 0.1),
    (True, {"rpm": 3000, "burst_seconds": 60}, 0.98, 0.1),
    (True, {"tpm": 60_000, "burst_seconds": 1}, 0.98, 0.1),
    (False, {"rpm": 3000, "burst_seconds": 1}, 0.95, 1.0),
    (False, {"rpm": 3000, "burst_seconds": 60}, 0.95, 1.0),
    (False, {"rpm": 3000, "burst_seconds": 1, "wait_hints": "none"}, 0.95, 1.0),
]


@pytest.mark.parametrize(("headers", "sim", "share", "per_hundred"), FOUND)
def test_a_hidden_limit_is_found_and_kept(world, headers, sim, share, per_hundred):
    count = 4500 if sim["burst_seconds"] == 1 else 7500  # a full minute's burst hides the limit for 3,000 requests
    w = world(rows(count), sims={"m": {"latency_ms": 300.0, "latency_sigma": 0.3, **sim}})
    if not headers:
        receive = w.sims["m"].receive

        def silent(call, *, now, utc):
            script = receive(call, now=now, utc=utc)
            for name in [name for name in script.headers if "ratelimit" in name]:
                del script.headers[name]
            return script

        w.sims["m"].receive = silent
    summary = w.run()
    records = w.records()
    answers = [record for record in records if record.status == 200]
    refusals = len(records) - len(answers)
    assert summary.rows.ok == count
    assert refusals * 100 / len(answers) <= per_hundred
    late = [record for record in answers if 30 <= record.now < summary.seconds - 2]
    minutes = (summary.seconds - 32) / 60
    used = len(late) / minutes / sim["rpm"] if "rpm" in sim else sum(r.input_tokens + r.output_tokens for r in late) / minutes / sim["tpm"]
    assert used >= share


@pytest.mark.parametrize(("sim", "most_seconds"), [({}, 400), ({"rpm": 1200}, 400)])
def test_refusals_that_come_at_random_dont_slow_a_run_for_ever(world, monkeypatch, sim, most_seconds):
    # A gateway that is busy now and then, whatever the rate: 2 in 100. Whoever lowered the rate at each would take a day for these rows.
    w = world(rows(1500), sims={"m": {"latency_ms": 300.0, "latency_sigma": 0.3, **sim}})
    drawn, send = random.Random(1), SimulatedTransport.send
    busy = HttpReply(status=429, body=b'{"error": {"message": "busy upstream", "code": "rate_limit_exceeded"}}')

    async def sometimes(transport, call, *, timeout_seconds):
        if drawn.random() < 0.02:
            return busy
        reply = await send(transport, call, timeout_seconds=timeout_seconds)
        headers = {name: text for name, text in reply.headers.items() if "ratelimit" not in name}
        return HttpReply(status=reply.status, body=reply.body, headers=headers)

    monkeypatch.setattr(SimulatedTransport, "send", sometimes)
    summary = w.run()
    assert summary.rows.ok == 1500
    assert summary.seconds < most_seconds


def test_a_lower_limit_than_declared_is_kept_and_said(world):
    w = world(rows(600), sims={"m": {"rpm": 600, "burst_seconds": 1}}, models={"m": {"limits": {"rpm": 1200}}})
    summary = w.run()
    assert summary.exit_code == 0
    assert w.sims["m"].audit.refusals <= 2
    assert any("the provider's rpm is 600, not 1,200" in note.text for note in w.notes)


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "found"),
    [
        (3000, 2999, 0.02, 3000.0),  # OpenAI
        (250_000, 249_989, 0.002, None),  # rounded to a millisecond: 45 s, too far off to be sure
        (250_000, 240_000, 2.4, 250_000.0),
        (14_400, 14_399, 6.0, None),  # Groq: per day
        (10, 9, 0.1, 600.0),  # per second
        (3000, 3000, 0.0, None),
    ],
)
def test_the_window_of_a_header_is_computed(limit, remaining, reset, found):
    assert per_minute(LimitHint(dimension="requests", limit=limit, remaining=remaining, reset_seconds=reset)) == found
