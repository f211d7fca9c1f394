"""The simulator's limits in exact seconds: refill buckets, settlement, refusals, headers."""

from __future__ import annotations

import pytest

from batchllm.core import json
from batchllm.core.errors import SpecError
from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.simulator.bucket import Buckets, Charge
from batchllm.simulator.openai_errors import go_duration


def call(text="Say something about the weather.", *, model="sim-small", **params):
    body = {"model": model, "messages": [{"role": "user", "content": text}], **params}
    return HttpCall(url="http://sim/v1/chat/completions", body=json.dumps(body))


def once(simulator, request, now, *, delivered=True):
    script = simulator.receive(request, now=now, utc=1e9 + now)
    simulator.finish(script, now=now, utc=1e9 + now, delivered=delivered)
    return script


def error(script):
    return json.loads(script.body)["error"]


def test_requests_pass_at_the_rate_and_not_faster():
    simulator = Simulator(Settings(rpm=600, burst_seconds=1))
    # 10 at once, then one every 100 ms, whatever has been tried in between.
    passed = [now / 100 for now in range(201) if once(simulator, call(str(now)), now / 100).status == 200]
    assert passed[:10] == [n / 100 for n in range(10)]
    assert passed[10:] == pytest.approx([0.1 + 0.1 * n for n in range(20)])


@pytest.mark.parametrize(
    ("hints", "after", "after_ms"),
    [("both", "1", "20"), ("seconds", "1", None), ("ms", None, "20"), ("none", None, None)],
)
def test_the_429_of_the_requests_bucket(hints, after, after_ms):
    simulator = Simulator(Settings(rpm=3000, burst_seconds=0.02, wait_hints=hints))
    assert once(simulator, call("a"), 0.0).status == 200
    refused = once(simulator, call("b"), 0.0)
    assert refused.status == 429
    assert (refused.headers.get("retry-after"), refused.headers.get("retry-after-ms")) == (after, after_ms)
    assert error(refused)["type"] == "requests"
    assert error(refused)["code"] == "rate_limit_exceeded"
    assert "on requests per min (RPM): Limit 3000, Used 3000, Requested 1. Please try again in 20ms." in error(refused)["message"]
    assert once(simulator, call("b"), 0.0199).status == 429
    assert once(simulator, call("b"), 0.02).status == 200


def test_tokens_are_charged_by_the_cap_and_settled_to_what_was_used():
    simulator = Simulator(Settings(tpm=6000, burst_seconds=60))
    held = simulator.receive(call(max_tokens=5000), now=0.0, utc=0.0)
    inputs = held.ticket.usage.input_tokens
    # The reservation stands while the answer is on its way...
    refused = once(simulator, call(max_tokens=1000), 0.0)
    assert f"Limit 6000, Used {inputs + 5000}, Requested {inputs + 1000}. Please try again in" in error(refused)["message"]
    wait = int(refused.headers["retry-after-ms"]) / 1000
    assert wait == pytest.approx((inputs + 5000 + inputs + 1000 - 6000) / 100)
    # ...and only the real usage stays when it has come.
    simulator.finish(held, now=0.0, utc=0.0, delivered=True)
    real = inputs + held.ticket.usage.output_tokens
    following = simulator.receive(call(max_tokens=1), now=0.0, utc=0.0)
    assert following.headers["x-ratelimit-remaining-tokens"] == str(6000 - real - inputs - 1)
    assert following.headers["x-ratelimit-reset-tokens"] == go_duration((real + inputs + 1) / 100)


def test_tokens_charged_as_they_are_used():
    simulator = Simulator(Settings(tpm=6000, charge="real"))
    script = simulator.receive(call(max_tokens=5000), now=0.0, utc=0.0)
    usage = script.ticket.usage
    assert script.headers["x-ratelimit-remaining-tokens"] == str(6000 - usage.input_tokens)
    simulator.finish(script, now=0.0, utc=0.0, delivered=True)
    bucket = simulator._buckets["sim-small"].tokens[0]
    assert bucket.level == 6000 - usage.input_tokens - usage.output_tokens


def test_larger_than_the_bucket_passes_when_it_is_full_and_leaves_debt():
    buckets = Buckets(Settings(tpm=6000, burst_seconds=1), now=0.0)  # 100 tokens, 100 a second
    assert buckets.admit(Charge(10), 0.0) is None
    refusal = buckets.admit(Charge(1000), 0.0)
    assert refusal.wait_seconds == pytest.approx(0.1)
    assert buckets.admit(Charge(1000), 0.1) is None
    assert buckets.tokens[0].level == pytest.approx(-900)
    assert buckets.admit(Charge(1), 0.1).wait_seconds == pytest.approx(9.01)


def test_larger_than_the_limit_never_passes():
    refused = once(Simulator(Settings(tpm=100)), call(max_tokens=100), 0.0)
    assert refused.status == 429
    assert error(refused)["message"].startswith(
        "Request too large for sim-small in organization org-simulated on tokens per min (TPM): Limit 100, Requested 1"
    )
    assert error(refused)["type"] == "tokens"
    assert "retry-after" not in refused.headers


def test_all_or_nothing():
    buckets = Buckets(Settings(rpm=60, tpm=600), now=0.0)
    assert buckets.admit(Charge(590), 0.0) is None
    assert buckets.admit(Charge(20), 0.0).dimension == "tokens"
    assert buckets.requests[0].level == 59


def test_the_sub_window_holds_within_a_full_bucket():
    simulator = Simulator(Settings(rpm=600, burst_seconds=60, sub_window_seconds=1))
    statuses = [once(simulator, call(str(n)), 0.0).status for n in range(12)]
    assert statuses == [200] * 10 + [429] * 2


@pytest.mark.parametrize(("count", "again_at"), [(False, 1.0), (True, 2.0)])
def test_refusals_may_use_up_the_limit(count, again_at):
    for later, expected in ((again_at - 0.001, 429), (again_at, 200)):
        simulator = Simulator(Settings(rpm=60, burst_seconds=1, refusals_count=count))
        assert [once(simulator, call("a"), now).status for now in (0.0, 0.0, later)] == [200, 429, expected]


def test_models_have_limits_of_their_own_unless_they_share_an_account():
    for scope, expected in (("model", 200), ("account", 429)):
        simulator = Simulator(Settings(rpm=60, burst_seconds=1, scope=scope))
        once(simulator, call(model="one"), 0.0)
        assert once(simulator, call(model="two"), 0.0).status == expected


def test_what_never_reached_the_model_gives_its_tokens_back():
    simulator = Simulator(Settings(tpm=6000))
    assert once(simulator, call("[[sim:408]]", max_tokens=500), 0.0).status == 408
    assert simulator._buckets["sim-small"].tokens[0].level == 6000


def test_headers_say_how_long_until_full():
    script = once(Simulator(Settings(rpm=3000, tpm=250_000)), call("hi", max_tokens=1), 0.0)
    assert {name: value for name, value in script.headers.items() if "limit" in name} == {
        "x-ratelimit-limit-requests": "3000",
        "x-ratelimit-remaining-requests": "2999",
        "x-ratelimit-reset-requests": "20ms",
        "x-ratelimit-limit-tokens": "250000",
        "x-ratelimit-remaining-tokens": "249991",
        "x-ratelimit-reset-tokens": "2ms",
    }
    assert script.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.002, "2ms"), (0.02, "20ms"), (1, "1s"), (1.4, "1.4s"), (8.64, "8.64s"), (66.4, "1m6.4s"), (360, "6m0s"), (3723.5, "1h2m3.5s")],
)
def test_durations_as_go_prints_them(seconds, text):
    assert go_duration(seconds) == text


def test_a_paced_client_uses_the_whole_limit_without_a_refusal():
    async def main():
        clock = VirtualClock()
        simulator = Simulator(Settings(rpm=600, burst_seconds=1, latency_ms=100))
        transport = SimulatedTransport(simulator, clock)
        for number in range(600):
            assert isinstance(await transport.send(call(str(number)), timeout_seconds=10), HttpReply)
            await clock.sleep(max((number + 1) * 0.1 - clock.now(), 0))
        return simulator.summary()

    summary = run_virtual(main)
    assert summary["by_status"] == {"200": 600}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rpm": 0}, "simulator.rpm: must be above 0"),
        ({"faults": 5}, "5 % is 0.05"),
        ({"latency_ms": -1}, "must not be below 0"),
        ({"fault_kinds": ("stal",)}, "did you mean 'stall'?"),
        ({"burst_seconds": 0}, "simulator.burst_seconds"),
    ],
)
def test_settings_that_make_no_sense(wrong, words):
    with pytest.raises(SpecError) as caught:
        Settings(**wrong)
    assert words in str(caught.value)


# Every dimension, and whose accounting


def levels(simulator, name="sim-small"):
    buckets = simulator._buckets[name]
    return [bucket.level for bucket in (*buckets.tokens, *buckets.input_tokens, *buckets.output_tokens)]


@pytest.mark.parametrize(
    ("accounting", "name", "start"),
    [
        ("openai", "sim-small", (507, 7, 0)),
        ("wire", "sim-small", (507, 7, 0)),
        ("anthropic", "anthropic:sim-small", (7, 7, 0)),
        ("gemini", "gemini:sim-small", (7, 7, 0)),
    ],
)
def test_what_is_charged_at_the_start_and_at_the_end(accounting, name, start):
    simulator = Simulator(Settings(tpm=10_000, itpm=10_000, otpm=10_000, accounting=accounting))
    held = simulator.receive(call("", max_tokens=500), now=0.0, utc=0.0)
    assert levels(simulator, name) == [10_000 - charged for charged in start]
    simulator.finish(held, now=0.0, utc=0.0, delivered=True)
    output = held.ticket.usage.output_tokens
    assert output > 0
    assert levels(simulator, name) == [10_000 - 7 - (0 if accounting == "gemini" else output), 10_000 - 7, 10_000 - output]


@pytest.mark.parametrize("accounting", ["openai", "anthropic", "gemini"])
def test_what_was_not_executed_counts_towards_no_token_limit(accounting):
    simulator = Simulator(Settings(tpm=1000, itpm=1000, otpm=1000, rpd=10, tpd=1000, accounting=accounting))
    assert once(simulator, call("[[sim:408]]"), 0.0).status == 408
    (buckets,) = simulator._buckets.values()
    assert [bucket.level for bucket in (*buckets.tokens, *buckets.input_tokens, *buckets.output_tokens, *buckets.tokens_day)] == [1000] * 4
    assert buckets.requests_day[0].level == 9


def test_requests_of_the_day_come_back_one_by_one():
    simulator = Simulator(Settings(rpd=24))
    statuses = [once(simulator, call(str(n)), 0.0).status for n in range(24)]
    assert statuses == [200] * 24
    refused = once(simulator, call("x"), 0.0)
    assert "on requests per day (RPD): Limit 24, Used 24, Requested 1. Please try again in 1h0m0s." in error(refused)["message"]
    assert refused.headers["retry-after"] == "3600"
    assert refused.headers["x-ratelimit-limit-requests"] == "24"
    assert refused.headers["x-ratelimit-reset-requests"] == "24h0m0s"
    assert once(simulator, call("x"), 3599.0).status == 429
    assert once(simulator, call("x"), 3600.0).status == 200


def test_tokens_of_the_day():
    simulator = Simulator(Settings(tpd=1000))
    assert once(simulator, call("", max_tokens=990), 0.0).status == 200
    assert "tokens per day (TPD): Limit 1000" in error(once(simulator, call("", max_tokens=990), 0.0))["message"]
    assert "Request too large" in error(once(simulator, call("", max_tokens=1000), 0.0))["message"]


def test_output_in_debt_keeps_others_out_until_it_is_paid_back():
    simulator = Simulator(Settings(otpm=60, accounting="anthropic"))
    held = simulator.receive(call("[[sim:usage_reasoning]]"), now=0.0, utc=0.0)
    assert simulator.receive(call("y"), now=0.0, utc=0.0).status == 200  # nothing is produced yet
    simulator.finish(held, now=0.0, utc=0.0, delivered=True)
    debt = held.ticket.usage.output_tokens - 60
    assert once(simulator, call("x"), debt - 0.1).status == 429
    assert once(simulator, call("x"), debt + 0.1).status == 200


@pytest.mark.parametrize("name", ["itpm", "otpm", "rpd", "tpd"])
def test_every_limit_is_above_0(name):
    with pytest.raises(SpecError, match=f"simulator.{name}: must be above 0"):
        Settings(**{name: 0})
