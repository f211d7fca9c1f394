"""What a fault means for the row once it is not the first: caps, delays, codes; and which answers a row may keep."""

from __future__ import annotations

import random

import pytest

from batchllm.core.nouns import REFUSALS, Code, Fault, Kind, Reply, RowError, Usage
from batchllm.retry.backoff import full_jitter
from batchllm.retry.decide import Again, Down, Fail, ModelOut, Refused, RetryPolicy, Tally, decide, row_error
from batchllm.retry.judge import judge

POLICY = RetryPolicy(max_attempts=8, initial_seconds=0.5, max_seconds=60)


def run(kind: Kind, *, failures: int = 1, same_kind: int = 1, identical: int = 1, wait: float | None = None, seed: int = 1):
    fault = Fault(kind=kind, message="words", http_status=500, provider_code="c", wait_seconds=wait)
    return decide(fault, Tally(failures=failures, same_kind=same_kind, identical=identical), POLICY, random.Random(seed))


@pytest.mark.parametrize("kind", [Kind.TIMEOUT, Kind.GATEWAY_TIMEOUT, Kind.CUT, Kind.PROTOCOL])
def test_what_may_be_paid_is_repeated_twice(kind):
    assert [type(run(kind, failures=n, same_kind=n)) for n in (1, 2, 3)] == [Again, Again, Fail]
    # Another kind's failures don't use up these two.
    assert isinstance(run(kind, failures=5, same_kind=2), Again)


def test_identical_500s_are_a_permanent_error_in_disguise():
    assert [type(run(Kind.SERVER, failures=n, same_kind=n, identical=n)) for n in (1, 2, 3)] == [Again, Again, Fail]
    assert isinstance(run(Kind.SERVER, failures=7, same_kind=7, identical=2), Again)
    assert isinstance(run(Kind.NETWORK, failures=7, same_kind=7, identical=7), Again)


@pytest.mark.parametrize("kind", [Kind.NETWORK, Kind.CONFLICT, Kind.SERVER, Kind.TIMEOUT])
def test_attempts_are_bounded(kind):
    assert isinstance(run(kind, failures=7), Again)
    assert isinstance(run(kind, failures=8), Fail)


@pytest.mark.parametrize("kind", sorted(REFUSALS | {Kind.UNREACHABLE, Kind.BAD_GATEWAY}))
def test_refusals_and_outages_never_use_up_attempts(kind):
    assert isinstance(run(kind, failures=1000, same_kind=1000, identical=1000, wait=7200.0), Refused | Down)


def test_hints_are_handed_on():
    assert run(Kind.RATE, wait=3.0) == Refused(wait_seconds=3.0)
    assert run(Kind.RAMP) == Refused(wait_seconds=None, slower=True)
    assert run(Kind.QUOTA_DAY, wait=432.0) == Refused(wait_seconds=432.0, until_window=True)
    assert run(Kind.OVERLOAD, wait=5.0) == Down(wait_seconds=5.0)
    assert run(Kind.BAD_GATEWAY) == Down(wait_seconds=None)


def test_delay_is_full_jitter_on_top_of_the_hint():
    for failures, cap in ((1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0)):
        for wait in (None, 2.0, 300.0):
            delays = [run(Kind.NETWORK, failures=failures, wait=wait, seed=seed).delay_seconds - (wait or 0.0) for seed in range(200)]
            assert min(delays) >= 0
            assert cap * 0.9 < max(delays) <= cap
            assert min(delays) < cap * 0.1


def test_full_jitter_is_capped_and_never_overflows():
    rng = random.Random(7)
    assert max(full_jitter(k, 0.5, 60.0, rng) for k in (*range(60, 80), 100_000)) <= 60.0
    assert full_jitter(-5, 0.5, 60.0, rng) <= 0.5
    assert full_jitter(3, 0.0, 60.0, rng) == 0.0


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Kind.AUTH, "api_key_env"), (Kind.MONEY, "add credit"), (Kind.MODEL_GONE, "base_url")],
)
def test_a_model_that_is_refused_for_good_says_the_mend(kind, words):
    out = run(kind)
    assert isinstance(out, ModelOut)
    assert words in out.reason
    assert "500: words" in out.reason
    assert out.error == RowError(code=Code.REJECTED, message="words", http_status=500, provider_code="c", retryable=True)


@pytest.mark.parametrize(
    ("kind", "code", "retryable"),
    [
        (Kind.UNREACHABLE, "unavailable", True),
        (Kind.NETWORK, "unavailable", True),
        (Kind.TIMEOUT, "timeout", True),
        (Kind.GATEWAY_TIMEOUT, "unavailable", True),
        (Kind.BAD_GATEWAY, "unavailable", True),
        (Kind.OVERLOAD, "unavailable", True),
        (Kind.RATE, "rate_limited", True),
        (Kind.RAMP, "rate_limited", True),
        (Kind.QUOTA_DAY, "rate_limited", True),
        (Kind.OVERSIZE, "rate_limited", False),
        (Kind.MONEY, "rejected", True),
        (Kind.AUTH, "rejected", True),
        (Kind.MODEL_GONE, "rejected", True),
        (Kind.CONTEXT, "too_long", False),
        (Kind.FILTER, "refused", False),
        (Kind.BAD_REQUEST, "rejected", False),
        (Kind.CONFLICT, "unavailable", True),
        (Kind.SERVER, "unavailable", True),
        (Kind.PROTOCOL, "bad_response", True),
        (Kind.CUT, "bad_response", True),
    ],
)
def test_row_errors(kind, code, retryable):
    error = row_error(Fault(kind=kind, message="m", http_status=418, provider_code="p"))
    assert error == RowError(code=Code(code), message="m", http_status=418, provider_code="p", retryable=retryable)


def test_every_kind_has_a_decision():
    assert {kind: type(run(kind)) for kind in Kind}.keys() == set(Kind)


USAGE = Usage(input_tokens=5, output_tokens=1)


@pytest.mark.parametrize(
    ("reply", "on_length", "outcome"),
    [
        ({"text": "a", "finish": "stop"}, "fail", None),
        ({"text": "", "finish": "stop"}, "fail", None),
        ({"text": None, "finish": "tool", "tool_calls": ({"id": "1"},)}, "fail", None),
        ({"text": "a", "finish": "length"}, "ok", None),
        ({"text": "a", "finish": "length"}, "fail", "truncated"),
        ({"text": "", "finish": "length"}, "ok", "truncated"),
        ({"text": " \n", "finish": "length"}, "ok", "truncated"),
        ({"text": None, "finish": "length", "tool_calls": ({"id": "1"},)}, "ok", None),
        ({"text": None, "finish": "refusal", "refusal": "I can't."}, "ok", "refused"),
        ({"text": "half", "finish": "stop", "refusal": "I can't."}, "ok", "refused"),
        ({"text": "half", "finish": "filter"}, "ok", "refused"),
        ({"text": None, "finish": "filter"}, "ok", "refused"),
        ({"text": "a", "finish": "unknown"}, "fail", None),
        ({"text": None, "finish": "unknown"}, "ok", "protocol yes"),
        ({"text": "", "finish": "unknown", "usage": None}, "ok", "protocol maybe"),
        ({"text": None, "finish": "tool"}, "ok", "protocol yes"),
        ({"text": "a", "finish": "error"}, "ok", "cut yes"),
    ],
)
def test_which_answers_a_row_may_keep(reply, on_length, outcome):
    found = judge(Reply(**{"finish_raw": "raw", "usage": USAGE, **reply}), on_length=on_length)
    match found:
        case None:
            assert outcome is None
        case RowError(code=code, provider_code="raw", http_status=200, retryable=False):
            assert code == outcome
        case Fault(kind=kind, billed=billed, usage=usage):
            assert f"{kind} {billed}" == outcome
            assert usage == reply.get("usage", USAGE)
        case other:
            pytest.fail(repr(other))


def test_a_refusal_keeps_its_words():
    assert judge(Reply(text=None, finish="refusal", finish_raw="stop", usage=USAGE, refusal="I can't."), on_length="ok").message == "I can't."
    # What came before a filter struck is no reason.
    assert "filter cut" in judge(Reply(text="Once upon", finish="filter", finish_raw="SAFETY", usage=USAGE), on_length="ok").message
