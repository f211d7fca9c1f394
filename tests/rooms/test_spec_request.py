"""Slips among request parameters, and tools that no wire takes: refused with their place, before the first row."""

from __future__ import annotations

import pytest

from batchllm.core.errors import SpecError
from batchllm.rows import shapes
from batchllm.spec import load, loads
from batchllm.spec.slips import KNOWN, slip

S = "models: {a: {provider: simulated}}\n"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_token", "max_tokens"),
        ("maxTokens", "max_tokens"),
        ("max-tokens", "max_tokens"),
        ("max_tokesn", "max_tokens"),
        ("max_completion_token", "max_completion_tokens"),
        ("maxOutputTokens", "max_tokens"),
        ("temprature", "temperature"),
        ("temperatur", "temperature"),
        ("topP", "top_p"),
        ("stops", "stop"),
        ("tool", "tools"),
        ("respones_fromat", "response_format"),
        ("reasoning_efort", "reasoning_effort"),
        ("logprob", "logprobs"),
    ],
)
def test_slips_are_told(name, meant):
    assert f"did you mean `{meant}`?" in str(slip(name))


@pytest.mark.parametrize(
    "name", ["x", "odd", "top_n", "top_b", "max_new_tokens", "do_sample", "num_beams", "my_own_parameter", "größe", "", *sorted(KNOWN)]
)
def test_other_names_pass(name):
    assert slip(name) is None


FUNCTION = "{type: function, function: {name: f, parameters: {type: object}}}"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("{max_token: 5}", "job.yaml:2:11: request.max_token: no provider has a parameter 'max_token'; did you mean `max_tokens`?"),
        ("{tools: {name: f}}", "request.tools: expected a list"),
        ("{tools: [f]}", "job.yaml:2:19: request.tools.0: a tool is {type: function, function: {name: ..."),
        ("{tools: [{}]}", "request.tools.0: a tool is {type: function"),
        ("{tools: [{name: f, parameters: {}}]}", "request.tools.0: a tool is {type: function, function: {name: ..., description: ..., parameters: {JSON Schema}}}; this one has no `type`"),
        ("{tools: [{function: {name: f}}]}", "this one has no `type`"),
        ("{tools: [{type: 3}]}", "request.tools.0.type: expected text such as function, got 3"),
        ("{tools: [{type: function}]}", "request.tools.0: a tool needs a `name`"),
        ("{tools: [{type: function, function: f}]}", "request.tools.0.function: expected {name: ..., parameters: ...}, got 'f'"),
        ("{tools: [{type: function, function: {name: a b}}]}", "request.tools.0.function: a tool `name` is made of letters, digits, _ and -, got 'a b'"),
        ("{tools: [{type: function, function: {name: f, parameters: text}}]}", "request.tools.0.function.parameters: expected a JSON Schema, got 'text'"),
        (f"{{tools: [{FUNCTION}, {FUNCTION}]}}", "request.tools.1: two tools are called 'f'"),
        (f"{{tools: [{FUNCTION}], tool_choice: always}}", "request.tool_choice: expected auto, none, required"),
        (f"{{tools: [{FUNCTION}], tool_choice: {{type: function, function: {{name: ff}}}}}}", "request.tool_choice: no tool is called 'ff'; did you mean `f`?"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_with_its_place(request_, words, tmp_path):
    (tmp_path / "job.yaml").write_text(f"{S}request: {request_}\n")
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "job.yaml")
    assert words in str(caught.value)
    (tmp_path / "job.yaml").write_text(f"models: {{a: {{provider: simulated, request: {request_}}}}}\n")
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "job.yaml")
    assert "models.a.request." in str(caught.value)


@pytest.mark.parametrize(
    "tools",
    [
        FUNCTION,
        "{type: function, name: f, parameters: {type: object}}",  # the Responses API's flat form
        "{name: f, input_schema: {type: object}}",  # Anthropic's
        "{type: web_search_20250305, name: web_search}",
        "{googleSearch: {}}",
        "{type: function, function: {name: f}}",
    ],
)
def test_functions_and_providers_own_tools_pass(tools, tmp_path):
    loads(f"{S}request: {{tools: [{tools}], tool_choice: auto}}", folder=tmp_path)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"max_token": 5}, "request.max_token: no provider has a parameter 'max_token'"),
        ({"tools": [{"name": "f"}]}, "request.tools.0: a tool is"),
        ({"tool_choice": "always"}, "request.tool_choice: expected auto"),
        ({"tool_choice": ["auto"]}, "request.tool_choice: expected auto"),
        ({"tools": 3}, "request.tools: expected a list of tools, got 3"),
    ],
)
def test_a_row_with_such_a_request_fails_alone(params, words):
    with pytest.raises(shapes.Unfit) as caught:
        shapes.row_params(params, "request")
    assert words in str(caught.value)
