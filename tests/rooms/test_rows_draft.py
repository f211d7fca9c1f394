"""What a row asks for: templates, row shapes, overrides; and that everything wrong with a row is data that names its place."""

from __future__ import annotations

from typing import Any

import pytest

from batchllm.core.nouns import Code, Draft, Row, RowError
from batchllm.rows.draft import Drafter

MODELS = {"mini": "gpt-6-luna", "strong": "claude-x"}


def row(fields: dict[str, Any], position: int = 0) -> Row:
    return Row(position=position, custom_id="a", identity="id:a", fields=fields, place="in.jsonl:7")


def drafted(fields: dict[str, Any], prompt: Any = None, **options: Any) -> Draft:
    draft = Drafter(messages=[("user", prompt)] if prompt is not None else None, models=MODELS, **options).draft(row(fields))
    assert isinstance(draft, Draft), draft
    return draft


def failed(fields: dict[str, Any], prompt: Any = None, **options: Any) -> RowError:
    error = Drafter(messages=[("user", prompt)] if prompt is not None else None, models=MODELS, **options).draft(row(fields))
    assert isinstance(error, RowError)
    assert error.message.startswith("in.jsonl:7: ")
    return error


FIELDS: dict[str, Any] = {
    "text": "a <b> & 'c'\n",
    "none": None,
    "yes": True,
    "list": [1, 2.0, None, 'é"'],
    "obj": {"a": 1, "b": None, "h": "<b>"},
    "int": 5,
    "float": 1.0,
    "large": 1e16,
    "Review Text": "good",
    "items": "mine",
    "range": "mine too",
    "row": "not the row",
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ text }}", "a <b> & 'c'\n"),
        ("[{{ blank }}{{ none_ }}]", None),
        ("{{ yes }} {{ int }} {{ float }} {{ large }}", "true 5 1 10000000000000000"),
        ("{{ list }} {{ obj }}", '[1,2.0,null,"é\\""] {"a":1,"b":null,"h":"<b>"}'),
        ("{{ obj|tojson }}", '{"a":1,"b":null,"h":"<b>"}'),
        ("{{ obj|tojson(indent=2) }}", '{\n  "a": 1,\n  "b": null,\n  "h": "<b>"\n}'),
        ("{{ row['Review Text'] }}", "good"),
        ("{{ row.items }}{{ items }}{{ range }}", "minemineminetoo".replace("minetoo", "mine too")),
        ("{{ obj.a }} {{ obj.b }}.", "1 ."),
        ("{% for x in list %}{{ loop.index }}:{{ x }} {% endfor %}", '1:1 2:2 3: 4:é" '),
        ("{% if yes %}y{% endif %}{% if nope is defined %}n{% endif %}{{ nope | default('d') }}", "yd"),
        ("{{ row.get('nope', 'd') }}{% for k, v in obj.items() %}{{ k }}{% endfor %}", "dabh"),
        ("{# note #}plain { brace } {{ '{{' }}\n", "plain { brace } {{\n"),
    ],
)
def test_templates_show_values_as_json(template: str, expected: str | None) -> None:
    if expected is None:
        assert drafted({"blank": None, "none_": None}, template).messages[0]["content"] == "[]"
    else:
        assert drafted(FIELDS, template).messages == [{"role": "user", "content": expected}]


def test_nulls_are_counted_and_checks_do_not_count() -> None:
    drafter = Drafter(messages=[("system", "{{ a }}"), ("user", "{{ b }}{{ a }}")], models=MODELS)
    rows = [row({"a": None, "b": 1}), row({"a": 1, "b": None})]
    assert drafter.check(rows) == []
    assert drafter.nulls == 0
    for each in rows:
        drafter.draft(each)
    assert drafter.nulls == 3


def test_parts_are_filled_leaf_by_leaf() -> None:
    prompt = [{"type": "text", "text": "see {{ a }}"}, {"type": "image_url", "image_url": {"url": "{{ url }}", "detail": "low"}}]
    assert drafted({"a": 1, "url": "u"}, prompt).messages[0]["content"] == [
        {"type": "text", "text": "see 1"},
        {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
    ]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("x\n{{ nope }}", "prompt.user, line 2: `nope` is undefined in this row; give it a default"),
        ("{{ row['nope'] }}", "`row['nope']` is undefined"),
        ("{{ obj.nope }}", "`obj.nope` is undefined"),
        ("{{ row.keys }}", "no data"),
        ("{% for i in range(90000) %}{% for j in row.list %}{% for k in row.list %}x{% endfor %}{% endfor %}{% endfor %}", "too long"),
        ("{{ 'a' * 1000000000 }}", "too large"),
        ("{{ 1 / 0 }}", "unable to calculate"),
        ("{{ list|random }}", "random"),
        ("{{ debug() }}", "debug"),
        ("{% include 'x' %}", "template"),
        ("{{ obj.__class__ }}", "undefined"),
        ("{{ obj.pop() }}", "pop"),
    ],
)
def test_what_a_template_cannot_do_fails_the_row(template: str, words: str) -> None:
    fields = {key: value for key, value in FIELDS.items() if key != "range"}
    error = failed(fields, template)
    assert error.code is Code.TEMPLATE
    assert words in error.message


def test_a_template_cannot_change_the_row() -> None:
    fields = {"list": [1], "obj": {"a": 1}}
    assert (
        drafted(fields, "{% set x = list.append(2) %}{% set y = row.clear() %}{% set z = obj.update({'b': 2}) %}{{ list }}").messages[0]["content"]
        == "[1,2]"
    )
    assert fields == {"list": [1], "obj": {"a": 1}}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ text }} {{ row.text }} {{ row['text'] }} {{ row.items() }} {{ range(2) }}", []),
        ("a\n{{ txet }}", ["prompt.user, line 2: none of the first 2 rows has a column 'txet'; did you mean 'text'?"]),
        ("{{ row.txet }}", ["prompt.user: none of the first 2 rows has a column 'txet'; did you mean 'text'?"]),
        ("{{ row['Reviw Text'] }}", ["prompt.user: none of the first 2 rows has a column 'Reviw Text'; did you mean 'Review Text'?"]),
        ("{{ zzz }}{{ text", ["prompt.user: unexpected end of input, expected end of variable block"]),
        ("{{ zzz }}", ["prompt.user: none of the first 2 rows has a column 'zzz'; there are text, meta, only, Review Text"]),
        ("{% for i in range(2) %}{% endfor %}{{ dict }}", ["'dict'"]),
        # On one of the rows is enough, and a name that the text itself calls optional may be on none.
        ("{{ only }}", []),
        ("{{ zzz | default('') }}{% if yyy is defined %}{{ yyy }}{% endif %}{{ row['x y'] | default('') }}{{ row.get('w') }}", []),
        ("{% set a = 1 %}{{ a }}{% for b in [1] %}{{ b }}{{ loop.index }}{% endfor %}{{ x.y }}", ["'x'"]),
        ("{% if text == 'never' %}{{ txet }}{% endif %}", ["'txet'"]),
        ("{{ meta.autor }}", ["`meta.autor` is undefined in this row", "all of the first 2 rows"]),
        ("{{ text | nofilter }}", ["filter nofilter is unknown", "all of the first 2 rows"]),
    ],
)
def test_check_tells_before_the_run(template: str, expected: list[str]) -> None:
    rows = [row({"text": "x", "meta": {"author": 1}}), row({"text": "y", "meta": {"author": 1}, "only": 1, "Review Text": "z"})]
    problems = Drafter(messages=[("system", "none"), ("user", template)], models=MODELS).check(rows)
    assert (problems == []) == (expected == [])
    for word in expected:
        assert word in problems[0]


def test_check_without_rows_tells_syntax_only() -> None:
    assert Drafter(messages=[("user", "{{ nope }}")], models=MODELS).check([]) == []
    assert len(Drafter(messages=[("user", "{{"), ("user", "{% x %}")], models=MODELS).check([])) == 2


def test_with_a_prompt_fields_are_data_unless_overrides_name_columns() -> None:
    fields = {
        "text": "x",
        "model": "strong",
        "request": {"n": 5},
        "messages": 1,
        "body": {},
        "url": "u",
        "m": "strong",
        "r": '{"max_tokens": 5, "seed": null}',
    }
    plain = drafted(fields, "{{ text }}")
    assert (plain.pin, plain.params) == (None, {})
    steered = drafted(fields, "{{ text }}", override_model="m", override_request="r")
    assert (steered.pin, steered.params) == ("strong", {"max_tokens": 5, "seed": None})
    blank = drafted({**fields, "m": "", "r": None}, "{{ text }}", override_model="m", override_request="r")
    assert (blank.pin, blank.params) == (None, {})
    assert "did you mean 'mini'" in failed({**fields, "m": "minni"}, "x", override_model="m").message


def test_a_misspelt_override_column_is_told() -> None:
    drafter = Drafter(messages=[("user", "x")], models=MODELS, override_model="modle")
    assert drafter.check([row({"model": "mini"})]) == ["overrides.model: the first row has no column 'modle'; did you mean 'model'?"]
    assert Drafter(messages=[("user", "x")], models=MODELS, override_model="pin").check([row({"a": 1})]) == []


USER = {"role": "user", "content": "hi"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
TOOL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}


def batch(body: Any = None, **fields: Any) -> dict[str, Any]:
    return {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "gpt-6-luna", "messages": [USER]} if body is None else body,
        **fields,
    }


@pytest.mark.parametrize(
    ("fields", "messages", "params", "pin", "named"),
    [
        ({"prompt": "hi"}, [USER], {}, None, None),
        ({"prompt": [USER]}, [USER], {}, None, None),
        ({"messages": [USER, TOOL, PARTS]}, [USER, TOOL, PARTS], {}, None, None),
        ({"prompt": "hi", "model": "strong", "request": {"temperature": 1}}, [USER], {"temperature": 1}, "strong", None),
        ({"prompt": "hi", "model": None, "request": None, "stars": 5}, [USER], {}, None, None),
        (batch(), [USER], {}, "mini", None),
        (batch({"model": "strong", "messages": [USER], "temperature": 0, "n": 1}), [USER], {"temperature": 0, "n": 1}, "strong", None),
        (batch({"model": "gpt-4", "messages": [USER], "seed": None, "stream": False}), [USER], {"seed": None, "stream": False}, None, "gpt-4"),
        (batch({"messages": [USER]}), [USER], {}, None, None),
        (batch(model="strong", request={"seed": 1}), [USER], {"seed": 1}, "strong", None),
    ],
)
def test_shapes(fields: dict[str, Any], messages: Any, params: Any, pin: str | None, named: str | None) -> None:
    draft = drafted(fields)
    assert (list(draft.messages), dict(draft.params), draft.pin, draft.named_model, draft.endpoint) == (messages, params, pin, named, "chat")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "has no prompt (it has nothing)"),
        ({"text": "x", "stars": 1}, "has no prompt (it has text, stars)"),
        ({"prompt": 5}, "prompt: is 5"),
        ({"prompt": "x", "messages": [USER]}, "both"),
        ({"messages": []}, "at least one"),
        ({"messages": {"role": "user"}}, "at least one"),
        ({"messages": ["hi"]}, "messages[0]: is no object"),
        ({"messages": [USER, {"content": "x"}]}, "messages[1]: has no role"),
        ({"messages": [{"role": "user"}]}, "has no content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"prompt": "x", "model": "minni"}, "did you mean 'mini'"),
        ({"prompt": "x", "model": "gpt-6-luna"}, "did you mean 'mini'"),
        ({"prompt": "x", "model": 5}, "named by a text"),
        ({"prompt": "x", "request": "{nope"}, "request: is no JSON object"),
        ({"prompt": "x", "request": [1]}, "request: must be an object"),
        ({"prompt": "x", "request": {"n": 2}}, "`samples`"),
        ({"prompt": "x", "request": {"n": True}}, "`samples`"),
        ({"prompt": "x", "request": {"stream": True}}, "request.stream"),
        ({"prompt": "x", "request": {"messages": []}}, "request.messages: is no parameter"),
        (batch({"messages": [USER], "stream": True}), "body.stream"),
        (batch({"messages": [USER], "stream_options": {"include_usage": True}}), "body.stream_options"),
        (batch({"messages": [USER], "n": 3}), "body.n"),
        (batch({"model": 5, "messages": [USER]}), "body.model"),
        (batch({"model": "mini"}), "body.messages"),
        (batch(url="/v1/embeddings"), "body.input: must be a text"),
        (batch(url="/v1/videos"), "not supported"),
        (batch(url="/v1/nope"), "no endpoint"),
        (batch(url=None), "no endpoint"),
        (batch(method="GET"), "POST"),
        (batch(body="x"), "body: is not an object"),
        ({"body": {"messages": [USER]}}, "without its `url`"),
    ],
)
def test_shapes_that_are_none_are_bad_rows_with_the_mend(fields: dict[str, Any], words: str) -> None:
    error = failed(fields)
    assert error.code is Code.BAD_ROW
    assert words in error.message


def test_a_batch_line_is_data_for_the_specs_prompt() -> None:
    assert drafted(batch(), "{{ body.messages[0].content }} {{ url }}").messages[0]["content"] == "hi /v1/chat/completions"


def test_a_row_that_could_not_be_read_keeps_its_error() -> None:
    error = RowError(code=Code.BAD_ROW, message="x")
    bad = Row(position=0, custom_id=None, identity="bad:1", fields={}, place="p:1", error=error)
    assert Drafter(messages=None, models=MODELS).draft(bad) is error
