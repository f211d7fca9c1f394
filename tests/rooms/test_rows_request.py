"""Fingerprints and samples: values that must never change, because changing them costs somebody a night's money."""

from __future__ import annotations

from typing import Any

import pytest

from batchllm.core import json
from batchllm.core.nouns import Draft, Request
from batchllm.rows import sample
from batchllm.rows.request import fingerprint, merge

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


def request(messages: Any = HI, params: Any = None, body: Any = None, endpoint: Any = "chat") -> Request:
    return Request(endpoint=endpoint, messages=messages, params=params or {}, body=body or {})


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (request(), "v1:a53acb3f285c397df1622712980a2687c083be309dfce0aef002fe4f2d7aeebb"),
        (request(params={"temperature": 0, "max_tokens": 16}), "v1:ffa90cbe78db8d01e9fb3b783616ceb0122ac1145d1455fc30f0abc8159faebc"),
        (
            request(params={"temperature": 0.7, "response_format": {"type": "json_object"}}),
            "v1:c9056ae0214d2743013a18598d691b13d385075501cded4fa9304e3a6cd48c7f",
        ),
        (
            request([{"role": "user", "content": [{"type": "text", "text": "é"}]}], body={"x": 1.5}),
            "v1:39c14b2f5f99f469aee39dac4b7198a31f27d733af29dd8e3ec2cfb85eea1dd2",
        ),
    ],
)
def test_fixed_values(made: Request, expected: str) -> None:
    assert fingerprint(made) == expected


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (request(params={"a": 0, "b": 1}), request(params={"b": 1.0, "a": 0.0})),
        (request(params={"a": -0.0}), request(params={"a": 0})),
        (request(params={"x": {"b": [1.0], "a": 2}}), request(params={"x": {"a": 2.0, "b": [1]}})),
        (request([{"role": "user", "content": "hi"}]), request(({"content": "hi", "role": "user"},))),
        (request(body={}), request()),
        (request(body={"x": 1.0}), request(body={"x": 1})),
    ],
)
def test_the_same_request(left: Request, right: Request) -> None:
    assert fingerprint(left) == fingerprint(right)


DIFFERENT = [
    request(),
    request(HI * 2),
    request([{"role": "user", "content": "hi "}]),
    request([{"role": "user", "content": "hi", "name": None}]),
    request(params={"a": 0}),
    request(params={"a": False}),
    request(params={"a": "0"}),
    request(params={"a": 0.5}),
    request(body={"a": 0}),
    request(endpoint="completions"),
]


def test_other_requests() -> None:
    assert len({fingerprint(made) for made in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize("made", [*DIFFERENT, request(params={"a": 1.0}), request([{"role": "user", "content": [{"n": 1.0}]}])])
def test_the_quick_way_gives_the_canonical_bytes(made: Request) -> None:
    form = {"endpoint": made.endpoint, "messages": list(made.messages), "params": made.params, **({"body": made.body} if made.body else {})}
    assert fingerprint(made) == f"v1:{json.digest(form)}"


def test_merge_spec_then_model_then_row_and_null_takes_away() -> None:
    draft = Draft(endpoint="chat", messages=HI, params={"c": 3, "d": None, "f": {"y": 1}})
    merged = merge(
        draft, spec_request={"a": 1, "b": 1, "c": 1, "d": 1, "f": {"x": 1}}, model_request={"b": 2, "c": 2, "e": None, "a": None}, body={"raw": 1}
    )
    assert merged == Request(endpoint="chat", messages=HI, params={"b": 2, "c": 3, "f": {"y": 1}}, body={"raw": 1})
    assert merge(Draft(endpoint="chat", messages=HI), spec_request={}, model_request={}).body == {}


def test_a_fraction_is_stable_and_nested() -> None:
    names = [f"id:{number}" for number in range(20_000)]
    tenth = {name for name in names if sample.chosen(name, 0.1)}
    assert 1_800 < len(tenth) < 2_200
    assert {name for name in names if sample.chosen(name, 0.01)} < tenth
    assert all(sample.chosen(name, 1) for name in names)
    assert not any(sample.chosen(name, 0) for name in names)
    # Ids that were in stay in from version to version.
    assert [number for number in range(40) if sample.chosen(f"id:{number}", 0.1)] == [0, 4, 5, 16, 22, 33, 35]


def test_a_count_is_exact_stable_and_nested() -> None:
    names = [f"id:{number}" for number in range(1000)]
    ten = sample.smallest(10, iter(names))
    assert len(ten) == 10
    assert ten < sample.smallest(20, names)
    shuffled = names[::-1]
    assert {shuffled[place] for place in sample.smallest(10, shuffled)} == {names[place] for place in ten}
    assert sample.smallest(3, ["same"] * 5) == {0, 1, 2}
    assert sample.smallest(9, ["a", "b"]) == {0, 1}
