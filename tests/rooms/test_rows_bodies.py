"""Batch lines of OpenAI's other endpoints, and rows that are nothing but a text to embed."""

from __future__ import annotations

from typing import Any

import pytest

from batchllm.core.nouns import Draft, Endpoint, Row, RowError
from batchllm.rows.draft import Drafter

USER = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def drafted(fields: dict[str, Any], endpoint: Endpoint = "chat") -> Draft | RowError:
    row = Row(position=0, custom_id="a", identity="id:a", fields=fields, place="rows.jsonl:1")
    return Drafter(messages=None, endpoint=endpoint, models={"mini": "gpt-4o"}).draft(row)


def line(url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": url, "body": body}


@pytest.mark.parametrize(
    ("fields", "endpoint", "messages", "params"),
    [
        (line("/v1/completions", model="gpt-4o", prompt="hi", max_tokens=5), "completions", [USER], {"max_tokens": 5}),
        (line("/v1/completions", prompt=["hi"]), "completions", [USER], {}),
        (line("/v1/embeddings", input="hi", dimensions=8), "embeddings", [USER], {"dimensions": 8}),
        (line("/v1/responses", input="hi", instructions="s"), "responses", [{"role": "system", "content": "s"}, USER], {}),
        (
            line("/v1/responses", input="hi", max_output_tokens=5, reasoning={"effort": "low", "summary": "auto"}, text={"verbosity": "low"}),
            "responses",
            [USER],
            {"max_completion_tokens": 5, "reasoning_effort": "low", "reasoning": {"summary": "auto"}, "verbosity": "low"},
        ),
        (
            line("/v1/responses", input="hi", text={"format": {"type": "json_schema", "name": "n", "schema": {}}}, tools=[{"type": "function", "name": "f"}]),
            "responses",
            [USER],
            {
                "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
                "tools": [{"type": "function", "function": {"name": "f"}}],
            },
        ),
        (
            line("/v1/responses", input=[
                {"role": "user", "content": [
                    {"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "https://x/a.png"}, {"type": "input_file", "file_id": "file-1"}
                ]},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "42"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "so"}]},
            ]),
            "responses",
            [
                {"role": "user", "content": [
                    {"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "https://x/a.png"}}, {"type": "file", "file": {"file_id": "file-1"}}
                ]},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "42"},
                {"role": "assistant", "content": [{"type": "text", "text": "so"}]},
            ],
            {},
        ),
    ],
)  # fmt: skip
def test_other_endpoints_become_messages_and_chats_parameters(fields, endpoint, messages, params):
    draft = drafted(fields)
    assert isinstance(draft, Draft), draft
    assert (draft.endpoint, list(draft.messages), dict(draft.params)) == (endpoint, messages, params)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (line("/v1/completions", prompt=["a", "b"]), "one text per row"),
        (line("/v1/completions", prompt=[1, 2]), "token ids"),
        (line("/v1/completions"), "body.prompt: must be a text"),
        (line("/v1/embeddings", input=""), "body.input: is empty"),
        (line("/v1/embeddings", input=["a", "b"]), "write a row for each"),
        (line("/v1/responses"), "body.input"),
        (line("/v1/responses", input=[]), "body.input"),
        (line("/v1/responses", input=["x"]), "body.input[0]: is no object"),
        (line("/v1/responses", input=[{"content": "x"}]), "has no role"),
        (line("/v1/responses", input=[{"type": "item_reference", "id": "x"}]), "'item_reference' can't be sent"),
        (line("/v1/responses", input=[{"role": "user", "content": [{"type": "odd"}]}]), "type 'odd'"),
        (line("/v1/responses", input="hi", instructions=5), "body.instructions"),
        (line("/v1/responses", input="hi", background=True), "background"),
        (line("/v1/responses", input="hi", stream=True), "body.stream"),
        (line("/v1/completions", prompt="hi", n=2), "body.n"),
    ],
)
def test_what_no_row_can_ask_is_told(fields, words):
    error = drafted(fields)
    assert isinstance(error, RowError)
    assert words in error.message


def test_a_text_is_a_row_where_embeddings_are_made():
    draft = drafted({"text": "hi"}, "embeddings")
    assert isinstance(draft, Draft)
    assert (draft.endpoint, list(draft.messages)) == ("embeddings", [USER])
    assert isinstance(drafted({"text": "hi"}), RowError)
    assert isinstance(drafted({"text": ""}, "embeddings"), RowError)
