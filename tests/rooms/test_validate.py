"""What counts as a good answer: JSON out of texts, schemas and labels, and the words for what is wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel

from batchllm.core.nouns import Code, Result, RowError
from batchllm.spec import build
from batchllm.validate import Invalid, LabelForm, Parsed, SchemaForm
from batchllm.validate.extract import NotJSON, extract
from batchllm.validate.schema import BadSchema, Schema, is_strict

PERSON = {
    "type": "object",
    "title": "Person of a mail!",
    "properties": {"name": {"type": "string"}, "age": {"type": ["integer", "null"], "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
GOOD = {"name": "Ines", "age": 3}
TEXT = '{"name": "Ines", "age": 3}'


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f" \n{TEXT}\n",
        f"\ufeff{TEXT}",
        f"```json\n{TEXT}\n```",
        f"Here you are:\n```JSON\r\n{TEXT}\r\n```\r\nAnything else?",
        f"```\n{TEXT}\n```",
        f"Sure! {TEXT} That is all.",
        f"The fields {{name}} and {{age}} are: {TEXT}",
        f"As [1] says: {TEXT}",  # a list is no object
        f"<think>\nmaybe {{}}? or {TEXT}\n</think>\n{TEXT}",
        f"```python\nprint({{}})\n```\n\n```json\n{TEXT}\n```",
        '{"name": "{Ines}", "age": 3}'.replace("{Ines}", "Ines"),
    ],
)
def test_wrappings_come_off(text: str) -> None:
    assert SchemaForm(PERSON).read(text) == Parsed(value=GOOD)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the answer is empty"),
        ("  \n", "the answer is empty"),
        ("no json here", "begins with 'no json here'"),
        (f"{TEXT} or {TEXT}", "2 JSON values"),
        (f"```json\n{TEXT}\n```\nor\n```json\n{TEXT}\n```", "2 JSON values"),
        # Broken JSON is not mended, and a whole object inside of a broken one is only a part.
        ('{"name": "Ines", "age": 3', "not JSON"),
        ('{"person": {"name": "Ines", "age": 3}, "more', "not JSON"),
        ('Here: [{"name": "Ines", "age": 3}, {"na', "not JSON"),
        ("{'name': 'Ines', 'age': 3}", "not JSON"),
        ('{"name": "Ines", "age": 1,234}', "not JSON"),
        ('{"name": "Ines", "age": NaN}', "not JSON"),
        ("x" * 500, "begins with 'xxx"),
        ("{" * 5000, "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"name": "Ines", "age": "3"}', '$.age: "3" is not of types'),
        ('{"name": "Ines", "age": -1}', "$.age: -1 is less than the minimum of 0 (minimum)"),
        ('{"name": "Ines"}', '$: "age" is a required property (required)'),
        ('{"name": "Ines", "age": 3, "x": 1}', "$: Additional properties are not allowed ('x' was unexpected) (additionalProperties)"),
        (f"[{TEXT}]", 'is not of type "object" (type)'),
    ],
)
def test_nothing_is_guessed_and_the_words_name_path_and_rule(text: str, words: str) -> None:
    read = SchemaForm(PERSON).read(text)
    assert isinstance(read, Invalid)
    assert words in read.message
    assert len(read.message) < 700


def test_many_errors_and_long_values_are_cut() -> None:
    errors = Schema({"type": "array", "items": {"type": "integer"}}).errors(["y" * 5000, "b", "c", "d", "e"])
    assert re.fullmatch(r'\$\[0\]: "y+ \.\.\. y+" is not of type "integer" \(type\); \$\[1\]: .*; \$\[2\]: .*; and 2 more', errors)
    assert len(errors) < 400


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "nope"}, "not a JSON Schema: at type: "),
        ({"properties": {"a": {"minimum": "x"}}}, "not a JSON Schema: at properties/a/minimum: "),
        ({"$ref": "#/$defs/none"}, "not a JSON Schema: "),
        ({"pattern": "("}, "not a JSON Schema: at pattern: "),
        ({"$schema": "http://example.com/own"}, "`$schema: http://example.com/own` is no draft of JSON Schema"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "`$ref: http://127.0.0.1:9/schema.json` is not fetched"),
        ({"properties": {"a": {"$ref": "file:///etc/hosts"}}}, "`$ref: file:///etc/hosts` is not fetched"),
    ],
)
def test_what_is_no_schema_is_said_at_once_and_nothing_is_fetched(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(BadSchema) as caught:
        SchemaForm(schema)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (PERSON, True),
        ({**PERSON, "additionalProperties": True}, False),
        ({**PERSON, "required": ["name"]}, False),
        ({**PERSON, "properties": {"name": {"type": "string", "minLength": 1}, "age": {}}}, False),
        (
            {**PERSON, "properties": {"name": {"$ref": "#/$defs/n"}, "age": {"anyOf": [{"type": "integer"}]}}, "$defs": {"n": {"type": "string"}}},
            True,
        ),
        ({**PERSON, "properties": {"name": PERSON, "age": {"type": "array", "items": {"type": "object"}}}}, False),
        ({**PERSON, "properties": {"name": {"type": "string", "format": "uri"}, "age": {"type": "integer"}}}, False),
        ({**PERSON, "allOf": []}, False),
        ({"type": "array", "items": PERSON}, False),
    ],
)
def test_strict_is_asked_for_only_where_strict_modes_take_the_schema(schema: dict[str, Any], strict: bool) -> None:
    assert is_strict(schema) is strict


def test_what_goes_on_the_wire() -> None:
    form = SchemaForm({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "x:y", **PERSON})
    assert form.wanted.response_format == {"type": "json_schema", "json_schema": {"name": "Person_of_a_mail", "strict": True, "schema": PERSON}}
    assert (form.columns, form.whole) == (("name", "age"), False)
    assert SchemaForm({**PERSON, "title": "\u00e4\u00f6"}).wanted.response_format["json_schema"]["name"] == "answer"


def test_the_digest_is_of_what_was_written() -> None:
    digests = {
        form.wanted.digest for form in (SchemaForm(PERSON), SchemaForm({**PERSON, "title": "x"}), LabelForm(["a", "b"]), LabelForm(["b", "a"]))
    }
    assert len(digests) == 4
    # Held by value: another digest would ask every answered row again.
    assert LabelForm(["a", "b"]).wanted.digest == "3391270be0416406de9da4096aea18d1cf44eb416477204755501049eba2a536"


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "array", "items": {"type": "integer"}}, '{"answer": [1, 2]}', [1, 2]),
        ({"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
        ({"type": "array", "items": {"type": "integer"}}, "They are [1, 2].", [1, 2]),
        ({"type": "integer"}, '{"answer": 7}', 7),
        ({"type": "integer"}, "7", 7),
        ({"type": "boolean"}, "```json\ntrue\n```", True),
        ({"type": ["null", "string"]}, '{"answer": null}', None),
        (
            {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}], "$defs": {"a": {"type": "object", "required": ["answer"]}}},
            '{"answer": 1}',
            {"answer": 1},
        ),
        ({"type": "object", "properties": {"answer": {"type": "integer"}}}, '{"answer": 1}', {"answer": 1}),
    ],
)
def test_what_is_no_object_is_asked_for_inside_one_and_taken_out_again(schema: dict[str, Any], text: str, value: Any) -> None:
    form = SchemaForm(schema)
    assert form.wanted.response_format["json_schema"]["schema"].get("type") == "object"
    assert form.read(text) == Parsed(value=value)


def test_a_schema_that_refers_to_itself_is_not_moved() -> None:
    tree = {"type": "array", "items": {"$ref": "#"}}
    form = SchemaForm(tree)
    assert form.wanted.response_format["json_schema"]["schema"] == tree
    assert form.read("[[], [[]]]") == Parsed(value=[[], [[]]])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"label": "positive"}', "positive"),
        ('```json\n{"label": "not sure"}\n```', "not sure"),
        ("positive", "positive"),
        (" Positive.\n", "positive"),
        ('"mixed"', "mixed"),
        ("**Not sure**", "not sure"),
        ('{"label": "MIXED"}', "mixed"),
        ("A", "A"),
        ("a", "a"),
        ("positive or mixed", None),
        ("I think it is positive", None),
        ('{"label": "good"}', None),
        ('{"label": ["positive"]}', None),
        ('{"answer": "positive"}', None),
        ('{"label": "positive", "why": "x"}', None),
        ("", None),
        ("7", None),
        ('{"label": "positive"', None),
    ],
)
def test_labels(text: str, label: str | None) -> None:
    read = LabelForm(["positive", "mixed", "not sure", "a", "A"]).read(text)
    assert (read.value if isinstance(read, Parsed) else None) == label
    if isinstance(read, Invalid):
        assert read.message.endswith("(enum)")


def test_numbers_mean_the_same_however_they_are_wrapped() -> None:
    big = "123456789012345678901234567890"
    assert extract(f'{{"a": {big}}}') == extract(f'so: {{"a": {big}}}')
    with pytest.raises(NotJSON):
        extract('so: {"a": Infinity}')


class Person(BaseModel):
    """What a mail says of somebody."""

    name: str
    age: int | None = None


def test_a_pydantic_model_stands_for_its_schema_and_reads_its_answers() -> None:
    job = build({"models": {"m": {"provider": "simulated"}}, "output": {"schema": Person}})
    assert job.output.json_schema == Person.model_json_schema()
    form = SchemaForm(job.output.json_schema or {})
    assert form.wanted.response_format["json_schema"]["name"] == "Person"
    assert form.read('{"name": "x", "age": null}') == Parsed(value={"name": "x", "age": None})
    assert Result(custom_id="a", row=0, status="ok", parsed={"name": "x"}).parsed_as(Person) == Person(name="x")
    error = RowError(code=Code.TIMEOUT, message="slow")
    with pytest.raises(ValueError, match="row 3 has no answer: timeout"):
        Result(custom_id="a", row=3, status="failed", error=error).parsed_as(Person)
