"""Columns guessed for a first job, and that the job file which is written of them loads and says what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchllm.core.nouns import Row
from batchllm.rows.draft import Drafter
from batchllm.rows.guess import guess
from batchllm.spec import loads
from batchllm.spec.starter import Starter, starter

HERE = Path()
REVIEWS = [
    {"review_id": f"r{n}", "url": f"https://x.example/{n}", "stars": str(n % 5), "lang": "en", "text": f"A long enough review, number {n}."}
    for n in range(20)
]


def _job(**keys):
    return Starter(
        **{
            "input": "in.csv", "own_requests": False, "id": None, "text": "text", "others": (), "numbers": (), "keep": (), "task": None, "provider": "openai",
            "model": "gpt-6-luna", "base_url": None, "key_env": None, "max_tokens": 100, "price": None, "budget_usd": "1", "delimiter": None, **keys,
        }
    )  # fmt: skip


def test_a_csv_of_reviews():
    found = guess(REVIEWS, cells=True)
    assert (found.id, found.text, found.numbers, found.groups, found.shape) == ("review_id", "text", ("stars",), ("stars", "lang"), "columns")


@pytest.mark.parametrize(
    ("rows", "named", "text"),
    [
        ([{"custom_id": "a", "id": 1, "q": "why so"}, {"custom_id": "b", "id": 2, "q": "why not"}], "custom_id", "q"),
        ([{"parent_id": 1, "id": 7, "a": "x y"}, {"parent_id": 2, "id": 8, "a": "y z"}], "id", "a"),
        ([{"id": 1, "t": "x y"}, {"id": 1, "t": "y z"}], None, "t"),
        ([{"id": None, "t": "x y"}, {"id": 2, "t": "y z"}], None, "t"),
        ([{"valid": "a", "title": "short one", "Body": "very much longer text"}] * 2, None, "Body"),
        ([{"ProductID": "a", "n": 3}], "ProductID", None),
        ([{"id": 1, "kind": "writing", "turns": ["Write a long and friendly letter.", "Now a short one."]}], "id", "turns"),
    ],
)
def test_ids_and_texts(rows, named, text):
    found = guess(rows, cells=False)
    assert (found.id, found.text) == (named, text)


@pytest.mark.parametrize(
    ("cells", "number"), [(["1", "2.5", "-3e4"], True), (["1", "", "2"], True), (["007", "12"], False), (["1", "two"], False), (["", ""], False)]
)
def test_numbers_in_cells(cells, number):
    assert ("n" in guess([{"n": cell} for cell in cells], cells=True).numbers) is number


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "messages"),
        ({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}}, "batch"),
        ({"body": "text", "url": "x"}, "columns"),
    ],
)
def test_rows_that_are_requests(row, shape):
    assert guess([row], cells=False).shape == shape


@pytest.mark.parametrize("column", ["text", "Review Text", "it's", "back\\slash", "row", "größe", "a-b", "if", "2nd", 'q"uote', "{{x}}"])
def test_every_column_name_is_found_by_its_placeholder(column):
    """From the file's text to the filled prompt."""
    spec = loads(starter(_job(text=column), file="j.yaml"), folder=HERE)
    drafter = Drafter(messages=[(message.role, message.content) for message in spec.prompt.messages], models={})
    row = Row(position=0, custom_id=None, identity="x", fields={column: "the value", "other": "no"}, place="in.csv:2")
    assert drafter.check([row]) == []
    assert drafter.draft(row).messages[-1]["content"] == "the value"


def test_the_file_says_what_was_meant():
    text = starter(
        _job(id="no", numbers=("a: b", "n"), keep=("yes", "x y"), task='Say "hi": {% raw #', base_url="http://h:1/v1", key_env="K", others=("a: b",)),
        file="j.yaml",
    )
    spec = loads(text, folder=HERE)
    assert (spec.id, dict(spec.input.types), spec.output.keep) == ("no", {"a: b": "number", "n": "number"}, ("yes", "x y"))
    model = spec.models["main"]
    assert (model.base_url, model.api_key_env, spec.budget.usd, spec.request) == ("http://h:1/v1", "K", 1, {"max_tokens": 100})
    assert [message.role for message in spec.prompt.messages] == ["system", "user"]


def test_a_task_with_marks_is_the_prompt():
    spec = loads(starter(_job(task="Translate: {{ text }}"), file="j.yaml"), folder=HERE)
    assert [message.content for message in spec.prompt.messages] == ["Translate: {{ text }}"]
    assert loads(starter(_job(own_requests=True), file="j.yaml"), folder=HERE).prompt is None
