"""Error replies on the OpenAI wire as literals: (status, headers, body) -> fault -> decision. Every row of the retry taxonomy and of the gateways' field notes.

The cases are in `openai_error_cases`; `TAXONOMY` names each row of the table, and a row without a case fails a test.
"""

from __future__ import annotations

import random

import pytest
from openai_error_cases import CASES, HTML, REDIRECT, TAXONOMY, VERDICTS, err, nginx

from batchllm.core.json import dumps
from batchllm.core.nouns import Fault, Kind, Reply
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpReply
from batchllm.providers.openai import OpenAIChat
from batchllm.providers.openai_wire import SIMULATED
from batchllm.retry.decide import Again, Decision, Down, Fail, ModelOut, Refused, RetryPolicy, Tally, decide
from batchllm.retry.judge import judge

CODEC = OpenAIChat(base_url="http://x/v1", model="m", api_key=Secret("sk-secret"), headers={}, host=SIMULATED)
POLICY = RetryPolicy()


def words(decision: Decision) -> str:
    match decision:
        case Again():
            return "again"
        case Refused(slower=True):
            return "slower"
        case Refused(until_window=True):
            return "window"
        case Refused():
            return "refused"
        case Down():
            return "down"
        case Fail(error=error):
            return f"fail {error.code}"
        case ModelOut():
            return "out"


def first(fault: Fault) -> str:
    return words(decide(fault, Tally(failures=1, same_kind=1, identical=1), POLICY, random.Random(1)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row}: {case.name}")
def test_error_becomes_fault_and_decision(case):
    fault = CODEC.decode(HttpReply(status=case.status, headers=case.headers, body=case.body))
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.billed, fault.counts, first(fault)) == VERDICTS[case.verdict]
    assert fault.wait_seconds == (pytest.approx(case.wait) if case.wait else None)
    assert fault.http_status == case.status
    assert fault.message


TRANSPORT = [
    ("unreachable", Kind.UNREACHABLE, "no", "down"),
    ("connect timeout", Kind.UNREACHABLE, "no", "down"),
    ("reset", Kind.NETWORK, "maybe", "again"),
    ("read timeout", Kind.TIMEOUT, "maybe", "again"),
]


@pytest.mark.parametrize(("row", "kind", "billed", "decision"), TRANSPORT)
def test_no_reply_becomes_a_decision(row, kind, billed, decision):
    assert row in TAXONOMY
    assert first(Fault(kind=kind, message="x", billed=billed)) == decision


ANSWERS = [
    ("200 length", {"finish_reason": "length", "message": {"content": "Li"}}, None),
    ("200 length", {"finish_reason": "length", "message": {"content": ""}}, "truncated"),
    ("200 refusal", {"finish_reason": "stop", "message": {"content": None, "refusal": "I can't."}}, "refused"),
    ("200 refusal", {"finish_reason": "content_filter", "message": {"content": "Li"}}, "refused"),
]


@pytest.mark.parametrize(("row", "choice", "code"), ANSWERS)
def test_answer_that_is_none(row, choice, code):
    reply = CODEC.decode(HttpReply(status=200, body=dumps({"choices": [choice]})))
    assert isinstance(reply, Reply)
    error = judge(reply, on_length="ok")
    assert (error.code if error is not None else None) == code


def test_every_row_of_the_taxonomy_has_a_case():
    covered = {case.row for case in CASES} | {row for row, *_ in TRANSPORT} | {row for row, *_ in ANSWERS}
    assert covered == set(TAXONOMY)
    assert {VERDICTS[case.verdict][0] for case in CASES} | {kind for _, kind, *_ in TRANSPORT} == set(Kind)


MESSAGES = [
    (404, {}, b'{"detail":"Not Found"}', "Not Found (nothing answers at this path: base_url may be wrong", None),
    (404, {}, err("The model `x` does not exist.", type="NotFoundError", code=404), "The model `x` does not exist.", "NotFoundError"),
    (302, REDIRECT, b"", "302 Found: the endpoint redirects to https://x/login; base_url may be wrong", None),
    (502, HTML, nginx("502 Bad Gateway"), "502 Bad Gateway, an HTML page: 502 Bad Gateway", None),
    (502, HTML, b"<p>oops", "502 Bad Gateway, an HTML page", None),
    (503, {}, b"", "503 Service Unavailable, an empty body", None),
    (529, {}, b"{}", "529, no message", None),
    (500, {}, b"x" * 9000, "x" * 500, None),
    (500, {}, b"\xff\xfe broken", "\ufffd\ufffd broken", None),
    (401, {}, b'{"error":"Unauthorized"}', "Unauthorized", None),
    (400, {}, err("a\n  b", type="t", code="c"), "a b", "c"),
    (400, {}, err("x", type="BadRequestError", code=400), "x", "BadRequestError"),
    (422, {}, b'{"detail":[{"loc":["body","messages"],"msg":"Field required","input":"secret"}]}', "body.messages: Field required", None),
    (422, {}, b'{"detail":{"error":"nested"}}', "nested", None),
    (429, {}, b'[{"error":{"code":429,"message":"x","status":"RESOURCE_EXHAUSTED"}}]', "x", "RESOURCE_EXHAUSTED"),
]


@pytest.mark.parametrize(("status", "headers", "body", "message", "code"), MESSAGES)
def test_the_providers_own_words(status, headers, body, message, code):
    fault = CODEC.decode(HttpReply(status=status, headers=headers, body=body))
    assert fault.message.startswith(message)
    assert len(fault.message) <= 500
    assert ("base_url" in fault.message) == ("base_url" in message)
    assert fault.provider_code == code


def test_request_id_is_kept():
    assert CODEC.decode(HttpReply(status=500, headers={"x-request-id": "req_1"}, body=b"")).request_id == "req_1"
    assert (
        CODEC.decode(HttpReply(status=529, body=b'{"type":"error","error":{"type":"overloaded_error"},"request_id":"req_2"}')).request_id == "req_2"
    )
    assert CODEC.decode(HttpReply(status=200, body=b'{"id":"gen-1","error":{"code":500}}')).request_id == "gen-1"
