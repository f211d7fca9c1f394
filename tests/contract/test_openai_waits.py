"""Wait hints and limit headers: every spelling, and the garbage that is no hint."""

from __future__ import annotations

import pytest

from batchllm.core.nouns import LimitHint
from batchllm.providers.classify import classify
from batchllm.providers.openai import OpenAIChat
from batchllm.providers.waits import go_seconds, header_wait, text_seconds, wait_hint
from batchllm.spec.hosts import PLAIN

CODEC = OpenAIChat(base_url="https://h/v1", model="m", api_key=None, headers={}, host=PLAIN)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        ("1s", 1.0),
        ("8.64s", 8.64),
        ("6m0s", 360.0),
        ("28m48s", 1728.0),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("1d1h", 90000.0),
        ("500us", 0.0005),
        ("7µs", 7e-6),
        ("45", 45.0),
        ("0s", 0.0),
        ("", None),
        (None, None),
        ("-1s", None),
        ("soon", None),
        ("1.5", 1.5),
        ("nans", None),
        ("inf", None),
        ("1_0", None),
        ("5x", None),
    ],
)
def test_go_durations(text, seconds):
    assert go_seconds(text) == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 1.4s.", 1.4),
        ("Please try again in 6m0s. Visit x", 360.0),
        ("Try again in 20ms", 0.02),
        ("Please retry after 6 seconds.", 6.0),
        ("try again in 2 minutes 30 seconds", 150.0),
        ("tried to retry 3 times, please try again in 2s", 2.0),
        ("try again in 5 moments", None),
        ("try again later", None),
        ("try again in 0s", None),
        ("try again in 999999999s", None),
    ],
)
def test_waits_in_texts(text, seconds):
    assert text_seconds(text) == (pytest.approx(seconds) if seconds is not None else None)


DATE = "Sat, 21 Nov 2026 06:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "Sat, 21 Nov 2026 06:00:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 05:00:30 GMT", "date": DATE}, None),
        ({"retry-after": "Sat, 21 Nov 2026 06:00:30 GMT"}, None),
        ({"retry-after": "soon", "date": DATE}, None),
        ({"retry-after-ms": "1250", "retry-after": "9"}, 1.25),
        ({"retry-after-ms": "0", "retry-after": "9"}, 9.0),
        ({"retry-after": "0", "llm_provider-retry-after": "4"}, 4.0),
        *(({"retry-after": junk}, None) for junk in ("0", "-5", "nan", "inf", "", "1e400", "1795000000", "1_0")),
        ({}, None),
    ],
)
def test_retry_after(headers, seconds):
    assert header_wait(headers) == seconds


def test_order_of_wait_sources():
    exhausted = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "9s"}
    text = "try again in 3s"
    assert wait_hint({"retry-after": "1", **exhausted}, text, "2s", resets=True) == 1
    assert wait_hint(exhausted, text, "2s", resets=True) == 2
    assert wait_hint(exhausted, text, None, resets=True) == 3
    assert wait_hint(exhausted, "", "garbage", resets=True) == 9
    assert wait_hint(exhausted, "", None, resets=False) is None
    assert classify(500, exhausted, b"").wait_seconds is None


REQUESTS = {"x-ratelimit-limit-requests": "3000", "x-ratelimit-remaining-requests": "2999", "x-ratelimit-reset-requests": "20ms"}
TOKENS = {"x-ratelimit-limit-tokens": "250000", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "45"}
R_HINT = LimitHint(dimension="requests", limit=3000, remaining=2999, reset_seconds=0.02)
T_HINT = LimitHint(dimension="tokens", limit=250000, remaining=0, reset_seconds=45.0)


@pytest.mark.parametrize(
    ("headers", "hints"),
    [
        ({}, ()),
        (REQUESTS | TOKENS, (R_HINT, T_HINT)),
        ({"x-ratelimit-limit-requests": "-1", "x-ratelimit-remaining-requests": "0"} | TOKENS, (T_HINT,)),
        ({"x-ratelimit-limit-requests": "0", "x-ratelimit-remaining-requests": "0"}, ()),
        ({"x-ratelimit-limit-requests": "many", "x-ratelimit-remaining-requests": "5"}, ()),
        ({**REQUESTS, "x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "soon"}, (LimitHint(dimension="requests", limit=3000),)),
        ({"x-ratelimit-remaining-tokens": "17"}, (LimitHint(dimension="tokens", remaining=17),)),
        (
            {"x-ratelimit-limit-req-minute": "60", "x-ratelimit-remaining-req-minute": "59"},
            (LimitHint(dimension="requests", limit=60, remaining=59),),
        ),
        (
            {"x-ratelimit-api_key-limit-requests": "5", "x-ratelimit-api_key-remaining-requests": "0"},
            (LimitHint(dimension="requests", limit=5, remaining=0),),
        ),
        (TOKENS | {"x-ratelimit-limit-project-tokens": "1000000", "x-ratelimit-remaining-project-tokens": "9"}, (T_HINT,)),
        (
            TOKENS | {"x-ratelimit-limit-project-tokens": "900", "x-ratelimit-remaining-project-tokens": "9"},
            (LimitHint(dimension="tokens", limit=900, remaining=9),),
        ),
        ({"x-ratelimit-limit": "3", "x-ratelimit-remaining": "2"}, ()),
    ],
)
def test_limit_hints(headers, hints):
    assert CODEC.hints(headers) == hints
