"""The simulator's content, faults and books, in virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest

from batchllm.core import json
from batchllm.core.nouns import Fault, Kind
from batchllm.core.secret import Secret
from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.core.words import count_messages, count_text
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.simulator.draw import Draw
from batchllm.simulator.faults import KINDS
from batchllm.simulator.shape import sample


def call(text, *, url="http://sim/v1/chat/completions", headers=None, method="POST", **params):
    body = {"model": "sim-small", "messages": [{"role": "user", "content": text}], **params}
    return HttpCall(url=url, body=json.dumps(body), headers=headers or {}, method=method)


def once(simulator, request, *, now=0.0, delivered=True):
    script = simulator.receive(request, now=now, utc=1e9 + now)
    simulator.finish(script, now=now, utc=1e9 + now, delivered=delivered)
    return script


def said(script):
    return json.loads(script.body)["choices"][0]["message"]["content"]


def sent(request, settings=None, *, timeout=30.0):
    """What the in-process transport brings, when, and the books."""

    async def main():
        clock = VirtualClock()
        simulator = Simulator(settings or Settings(), price=lambda _, usage: usage.input_tokens + usage.output_tokens)
        outcome = await SimulatedTransport(simulator, clock).send(request, timeout_seconds=timeout)
        return outcome, clock.now(), simulator

    return run_virtual(main)


# Content


def test_the_same_answers_in_any_order_and_on_any_server():
    requests = [call(f"Question {n} about rivers", temperature=0, max_tokens=50) for n in range(50)]
    first = Simulator(Settings(seed=3))
    answers = [said(once(first, request)) for request in requests]
    shuffled = list(range(50))
    random.Random(1).shuffle(shuffled)
    second = Simulator(Settings(seed=3))
    again = {n: said(once(second, requests[n])) for n in shuffled}
    assert [again[n] for n in range(50)] == answers
    assert len(set(answers)) > 45
    assert said(once(Simulator(Settings(seed=4)), requests[0])) != answers[0]


@pytest.mark.parametrize(
    ("params", "same"),
    [
        ({"temperature": 0.0}, True),  # 0 and 0.0 are one number
        ({"temperature": 0, "stream_options": None, "metadata": {"row": "1"}}, True),
        ({"temperature": 1}, False),
        ({"temperature": 0, "model": "sim-large"}, False),
    ],
)
def test_what_an_answer_depends_on(params, same):
    base = said(once(Simulator(), call("Tell me about lakes", temperature=0)))
    assert (said(once(Simulator(), call("Tell me about lakes", **params))) == base) is same


def test_faults_do_not_depend_on_order_time_or_refusals():
    requests = [call(f"Question {n}") for n in range(200)]

    def faults(order, **settings):
        simulator = Simulator(Settings(faults=0.5, **settings))
        met = {n: [] for n in range(200)}
        now = 0.0
        for n in order:
            while len(met[n]) < 3:
                script = once(simulator, requests[n], now=now)
                now += 0.0005
                if script.ticket.fault != "limit":
                    met[n].append(script.ticket.fault)
        return met

    forward = faults(range(200))
    assert faults(reversed(range(200))) == forward
    assert faults(range(200), rpm=60_000, burst_seconds=0.001) == forward
    # A retry meets a new draw.
    assert any(first != second for first, second, _ in forward.values())
    share = sum(fault is not None for row in forward.values() for fault in row) / 600
    assert 0.4 < share < 0.6


@pytest.mark.parametrize("cap", [1, 2, 5, 16, 200])
def test_the_cap_is_kept_and_counted_exactly(cap):
    finishes = set()
    for n in range(100):
        request = call(f"Describe item {n}", max_tokens=cap)
        reply = json.loads(once(Simulator(), request).body)
        text, usage = reply["choices"][0]["message"]["content"], reply["usage"]
        finish = reply["choices"][0]["finish_reason"]
        finishes.add(finish)
        assert usage["completion_tokens"] == count_text(text) <= cap
        assert finish == "stop" or usage["completion_tokens"] == cap
        assert usage["prompt_tokens"] == count_messages([{"role": "user", "content": f"Describe item {n}"}])
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert "stop" in finishes


def test_a_larger_cap_gives_the_same_text_longer():
    cut = [n for n in range(300) if json.loads(once(Simulator(), call(f"Item {n}", max_tokens=4)).body)["choices"][0]["finish_reason"] == "length"]
    assert cut
    for n in cut:
        short, long = (said(once(Simulator(), call(f"Item {n}", max_tokens=cap))) for cap in (4, 400))
        assert long.startswith(short + " ")
        assert len(short.split()) == 4


SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["positive", "negative", "mixed"]},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "sure": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 3},
        "child": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        "when": {"type": "string", "format": "date"},
        "code": {"type": "string", "minLength": 30, "maxLength": 32},
    },
    "required": ["label", "stars", "share", "sure", "tags", "child", "when", "code"],
}


def check(value, depth=0):
    assert set(value) == set(SCHEMA["properties"])
    assert value["label"] in {"positive", "negative", "mixed"}
    assert value["stars"] in range(1, 6)
    assert 0 <= value["share"] <= 1
    assert value["sure"] in (True, False)
    assert len(value["tags"]) in (2, 3)
    assert all(isinstance(tag, str) for tag in value["tags"])
    assert value["when"] == "2026-03-14"
    assert 30 <= len(value["code"]) <= 32
    if value["child"] is not None:
        assert depth < 30
        check(value["child"], depth + 1)


def test_values_fit_their_schema():
    for n in range(100):
        check(sample(SCHEMA, Draw(b"%d" % n)))


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        ({"const": 7}, lambda value: value == 7),
        ({"type": ["string", "null"]}, lambda value: value is None or isinstance(value, str)),
        ({"type": "integer", "multipleOf": 5, "minimum": 11, "maximum": 19}, lambda value: value == 15),
        ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5}, lambda value: value == 4),
        ({"type": "integer", "maximum": -5}, lambda value: value <= -5),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"required": ["a"]}]}, lambda value: value == {"a": 1}),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"enum": [9]}}}, lambda value: value == 9),
        ({"$ref": "https://example.com/x"}, lambda value: isinstance(value, str)),
        (
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            lambda value: isinstance(value, dict),
        ),  # endless: it ends all the same
        (True, lambda value: value is None),
    ],
)
def test_corners_of_schemas(schema, fits):
    for n in range(20):
        assert fits(sample(schema, Draw(b"%d" % n)))


def test_structured_requests():
    simulator = Simulator()
    form = {"type": "json_schema", "json_schema": {"name": "review", "schema": SCHEMA}}
    check(json.loads(said(once(simulator, call("Label this", response_format=form)))))
    assert isinstance(json.loads(said(once(simulator, call("Answer as JSON", response_format={"type": "json_object"})))), dict)
    tool = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object", "properties": {"stars": {"enum": [1]}}}}}
    choice = json.loads(once(simulator, call("Look it up", tools=[tool], tool_choice="required")).body)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "lookup", "arguments": '{"stars":1}'}
    several = json.loads(once(simulator, call("Three, please", n=3, logprobs=True)).body)["choices"]
    assert len({choice["message"]["content"] for choice in several}) == 3
    assert "".join(piece["token"] for piece in several[0]["logprobs"]["content"]) == several[0]["message"]["content"]


# The door


@pytest.mark.parametrize(
    ("request_", "settings", "status", "code"),
    [
        (HttpCall(url="http://sim/v1/chat/completions", body=b"{"), {}, 400, None),
        (HttpCall(url="http://sim/v1/chat/completions", body=b"[]"), {}, 400, None),
        (HttpCall(url="http://sim/v1/chat/completions", body=b'{"messages": []}'), {}, 400, None),
        (call("x", messages=[]), {}, 400, None),
        (call("x", messages=[{"role": "robot", "content": ""}]), {}, 400, None),
        (call("x", messages=[{"role": "user", "content": None}]), {}, 400, None),
        (call("x", max_tokens=0), {}, 400, None),
        (call("x", max_tokens="9"), {}, 400, None),
        (call("x", n=0), {}, 400, None),
        (call("x", temperature=3), {}, 400, None),
        (call("x", response_format={"type": "json_object"}), {}, 400, None),
        (call("x", response_format={"type": "xml"}), {}, 400, None),
        (call("x", tool_choice="required"), {}, 400, None),
        (call("x", max_tokens=200), {"context_tokens": 100}, 400, "context_length_exceeded"),
        (call("x", headers={"X-Client-Request-Id": "y" * 513}), {}, 400, "invalid_value"),
        (call("[[sim:nonsense]]"), {}, 400, "unknown_fault"),
        (call("x"), {"keys": frozenset({"right"})}, 401, None),
        (call("x", headers={"Authorization": "Bearer wrong"}), {"keys": frozenset({"right"})}, 401, "invalid_api_key"),
        (call("x", headers={"Authorization": Secret("Bearer right")}), {"keys": frozenset({"right"})}, 200, None),
        (call("x"), {"models": ("other",)}, 404, "model_not_found"),
        (call("x", url="http://sim/v1/nothing"), {}, 404, "unknown_url"),
        (call("x", method="GET"), {}, 405, "method_not_supported"),
        (call("x", url="http://sim/chat/completions/"), {}, 200, None),
    ],
)
def test_the_door(request_, settings, status, code):
    simulator = Simulator(Settings(**settings))
    script = once(simulator, request_)
    assert script.status == status
    if status != 200:
        assert json.loads(script.body)["error"]["code"] == code
        assert simulator.audit.executed == simulator.audit.billed == 0


def test_slots():
    simulator = Simulator(Settings(concurrency=2))
    held = [simulator.receive(call(str(n)), now=0, utc=0) for n in range(3)]
    assert [script.status for script in held] == [200, 200, 503]
    for script in held:
        simulator.finish(script, now=1, utc=1, delivered=True)
    assert once(simulator, call("3")).status == 200
    assert simulator.in_flight == 0


# Faults


@pytest.mark.parametrize(
    ("fault", "outcome", "at"),
    [
        ("refuse", (Kind.UNREACHABLE, "no"), 0.0),
        ("reset", (Kind.NETWORK, "maybe"), 1.0),
        ("reset_mid", (Kind.NETWORK, "maybe"), 1.0),
        ("short_body", (Kind.NETWORK, "maybe"), 1.0),
        ("stall", (Kind.TIMEOUT, "maybe"), 30.0),
        ("stall_mid", (Kind.TIMEOUT, "maybe"), 30.0),
        ("slow_drip", 200, 2.0),
        ("close_idle", 200, 1.0),
        ("gzip", 200, 1.0),
        ("padding", 200, 1.0),
        ("half_json", 200, 1.0),
        ("504", 504, 1.0),
        ("500", 500, 0.1),
        ("empty_200", 200, 0.1),
    ],
)
def test_what_the_transport_brings_and_when(fault, outcome, at):
    got, now, simulator = sent(call(f"[[sim:{fault}]] hello"), Settings(latency_ms=1000, latency_sigma=0))
    assert now == pytest.approx(at, abs=1e-3)
    if isinstance(outcome, int):
        assert isinstance(got, HttpReply)
        assert got.status == outcome
    else:
        assert isinstance(got, Fault)
        assert (got.kind, got.billed) == outcome
        assert got.counts is (fault != "refuse")
    record = simulator.audit.records[0]
    assert record.delivered is isinstance(got, HttpReply)
    assert record.fault == fault
    assert record.seconds == pytest.approx(at, abs=1e-3)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_fault_can_be_asked_for_and_is_booked_as_it_says(kind, stream):
    executed = set()
    for n in range(40):
        simulator = Simulator(price=lambda _, usage: usage.input_tokens + usage.output_tokens)
        script = once(simulator, call(f"[[sim:{kind.name}]] Row {n}", stream=stream))
        fits = kind.wire in ("any", "stream" if stream else "plain")
        assert script.ticket.fault == (kind.name if fits else None)
        record = simulator.audit.records[0]
        assert record.executed is record.billed
        assert (record.cost_pico > 0) is record.billed
        executed.add(record.executed)
        if not fits:
            return
    expected = {0.0: {False}, 1.0: {True}}.get(kind.executed, {True, False})
    assert executed == expected


def test_a_marker_may_ask_for_the_first_times_only():
    simulator = Simulator()
    statuses = [once(simulator, call("Hello [[sim:500*2]]")).status for _ in range(4)]
    assert statuses == [500, 500, 200, 200]
    # It stands in the last user message only.
    messages = [{"role": "user", "content": "[[sim:500]]"}, {"role": "assistant", "content": "?"}, {"role": "user", "content": "Again"}]
    assert once(simulator, call("", messages=messages)).status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_rate_never_changes_an_answer_that_a_client_accepts(stream):
    """What `--faults` draws either fails or says the same as without it."""
    plain, shaky = Simulator(), Simulator(Settings(faults=1.0))
    met = set()
    for n in range(600):
        request = call(f"Row {n}", stream=stream, **({"stream_options": {"include_usage": True}} if stream else {}))
        script = once(shaky, request)
        met.add(script.ticket.fault)
        kind = next(kind for kind in KINDS if kind.name == script.ticket.fault)
        assert kind.group in ("transient", "variation")
        if kind.group == "variation" and not stream and kind.name != "gzip":
            assert said(script) == said(once(plain, request))
    drawn = {kind.name for kind in KINDS if kind.weight and kind.wire in ("any", "stream" if stream else "plain")}
    assert met == drawn


def test_only_the_named_faults_are_drawn():
    simulator = Simulator(Settings(faults=1.0, fault_kinds=("insufficient_quota",)))
    script = once(simulator, call("x"))
    assert (script.status, json.loads(script.body)["error"]["code"]) == (429, "insufficient_quota")


def test_outages_refuse_every_connection():
    settings = Settings(outages=((10.0, 20.0),))
    simulator = Simulator(settings, started=100.0)
    assert [once(simulator, call("x"), now=now).ending for now in (109.9, 110.0, 119.9, 120.0)] == ["complete", "refuse", "refuse", "complete"]


def test_latency_is_log_normal_around_the_median_and_belongs_to_the_request():
    simulator = Simulator(Settings(latency_ms=300))
    seconds = [once(simulator, call(str(n))).seconds for n in range(500)]
    assert sorted(seconds)[250] == pytest.approx(0.3, rel=0.1)
    assert max(seconds) < 2
    assert once(Simulator(Settings(latency_ms=300)), call("7")).seconds == seconds[7]


# The books


def test_the_audit_counts_what_was_paid_for_and_never_arrived():
    simulator = Simulator(price=lambda _, usage: 10 * usage.input_tokens + usage.output_tokens)
    texts = ["fine", "[[sim:reset_mid]]", "[[sim:503]]", "[[sim:stall]]", "[[sim:401]]"]
    scripts = [once(simulator, call(text, headers={"x-client-request-id": f"job.{n}.1"}), delivered=text == "fine") for n, text in enumerate(texts)]
    usages = [script.ticket.usage for script in (scripts[0], scripts[1], scripts[3])]
    summary = simulator.summary()
    assert (summary["requests"], summary["executed"], summary["billed"], summary["delivered"], summary["billed_undelivered"]) == (5, 3, 3, 1, 2)
    assert summary["cost_pico"] == sum(10 * usage.input_tokens + usage.output_tokens for usage in usages)
    assert summary["tokens"] == {"input": sum(u.input_tokens for u in usages), "output": sum(u.output_tokens for u in usages)}
    assert summary["by_status"] == {"200": 2, "401": 1, "503": 1, "none": 1}
    lines = [json.loads(line) for line in simulator.audit.lines()]
    assert [line["client_request_id"] for line in lines] == [f"job.{n}.1" for n in range(5)]
    assert sum(line["cost_pico"] for line in lines) == summary["cost_pico"]
    assert summary["sent_max"] == 1


def test_a_script_is_booked_once_and_the_list_is_bounded():
    simulator = Simulator(Settings(audit_records=3))
    script = simulator.receive(call("x"), now=0, utc=0)
    for _ in range(2):
        simulator.finish(script, now=0, utc=0, delivered=True)
    assert simulator.audit.requests == 1
    for n in range(5):
        once(simulator, call(str(n)))
    assert (simulator.audit.requests, len(simulator.audit.records)) == (6, 3)


def test_an_unknown_price_is_not_zero():
    simulator = Simulator(price=lambda _model, _usage: None)
    once(simulator, call("x"))
    assert simulator.audit.records[0].cost_pico is None
    assert simulator.summary()["unpriced"] == 1


def test_a_cancelled_request_is_booked_as_billed_and_not_delivered():
    async def main():
        clock = VirtualClock()
        simulator = Simulator(Settings(latency_ms=1000, latency_sigma=0))
        task = asyncio.create_task(SimulatedTransport(simulator, clock).send(call("x"), timeout_seconds=30))
        await clock.sleep(0.5)
        assert simulator.in_flight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return simulator

    simulator = run_virtual(main)
    record = simulator.audit.records[0]
    assert (record.executed, record.billed, record.delivered, record.seconds) == (True, True, False, 0.5)
    assert simulator.in_flight == 0


def test_an_unread_gzip_body_is_the_plain_one():
    got, _, _ = sent(call("[[sim:gzip]] x"))
    assert json.loads(got.body)["object"] == "chat.completion"
