"""Responses, completions and embeddings of the simulator, judged by the official `openai` SDK."""

from __future__ import annotations

import math
from typing import Any

import openai
import pydantic
import pytest
from served_simulator import served

from batchllm.core import json
from batchllm.core.words import count_messages, count_text

LOOKUP: Any = {
    "type": "function",
    "name": "lookup",
    "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
    "strict": False,
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


class City(pydantic.BaseModel):
    city: str
    people: int


@pytest.fixture(scope="module")
def server():
    with served(seed=3) as found:
        yield found


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server[0], api_key="any", max_retries=0, timeout=5) as found:
        yield found


def test_a_response(client):
    reply = client.responses.create(model="sim-small", instructions="Be brief.", input="Name a river.", max_output_tokens=60, store=False)
    assert (reply.status, reply.model, reply.error, reply.incomplete_details) == ("completed", "sim-small", None, None)
    assert reply.usage.input_tokens == count_messages([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a river."}])
    assert reply.usage.output_tokens == count_text(reply.output_text)
    again = client.responses.create(model="sim-small", instructions="Be brief.", input="Name a river.", max_output_tokens=60)
    assert again.output_text == reply.output_text


def test_items_are_messages(client):
    items: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": PIXEL, "detail": "low"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "A dot.", "annotations": []}]},
        {"type": "function_call", "call_id": "call_1", "name": "lookup", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "a pixel"},
        {"role": "user", "content": "Thanks"},
    ]
    reply = client.responses.create(model="sim-small", input=items)
    counted = client.responses.input_tokens.count(model="sim-small", input=items)
    texts = ["Be brief.", "What is this?", "A dot.", "a pixel", "Thanks"]
    assert reply.usage.input_tokens == counted.input_tokens == 3 + 6 * 4 + sum(map(count_text, texts)) + 85  # 85: the image


@pytest.mark.parametrize("text", ["Name a river.", "[[sim:stream_split]] Name a river.", "[[sim:stream_comments]] Name one.", "[[sim:padding]] x"])
def test_a_streamed_response_says_what_the_plain_one_says(client, text):
    plain = client.responses.create(model="sim-small", input=text)
    with client.responses.stream(model="sim-small", input=text) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == plain.output_text
    assert final.output_text == plain.output_text
    assert final.usage == plain.usage


def test_thinking_comes_first_and_is_counted(client):
    reply = client.responses.create(model="sim-small", input="Name a river.", reasoning={"effort": "low"})
    assert [item.type for item in reply.output] == ["reasoning", "message"]
    thought = reply.usage.output_tokens_details.reasoning_tokens
    assert thought > 0
    assert reply.usage.output_tokens == thought + count_text(reply.output_text)


@pytest.mark.parametrize(
    "asked",
    [
        {"tool_choice": "required", "input": "Hello"},
        {"tool_choice": {"type": "function", "name": "lookup"}, "input": "Hi"},
        {"input": "Please use lookup."},
    ],
)
def test_tools_of_responses(client, asked):
    reply = client.responses.create(model="sim-small", tools=[LOOKUP], **asked)
    call = reply.output[0]
    assert (call.type, call.name) == ("function_call", "lookup")
    assert isinstance(json.loads(call.arguments)["q"], str)
    with client.responses.stream(model="sim-small", tools=[LOOKUP], **asked) as stream:
        assert stream.get_final_response().output[0].arguments == call.arguments


def test_after_a_tool_result_it_speaks(client):
    messages: Any = [{"role": "user", "content": "Please use lookup."}]
    tool: Any = {"type": "function", "function": {"name": "lookup", "parameters": LOOKUP["parameters"]}}
    first = client.chat.completions.create(model="sim-small", messages=messages, tools=[tool]).choices[0]
    assert first.finish_reason == "tool_calls"
    messages += [first.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": first.message.tool_calls[0].id, "content": "42"}]
    assert client.chat.completions.create(model="sim-small", messages=messages, tools=[tool]).choices[0].finish_reason == "stop"


def test_structured_response(client):
    reply = client.responses.parse(model="sim-small", input="A city", text_format=City)
    assert isinstance(reply.output_parsed, City)


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("finish_error", "failed", None),
        ("refusal", "completed", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_ends_of_a_response(client, fault, status, reason, stream):
    got: Any = client.responses.create(model="sim-small", input=f"[[sim:{fault}]] x", stream=stream)
    reply = list(got)[-1].response if stream else got
    assert reply.status == status
    assert (reply.incomplete_details and reply.incomplete_details.reason) == reason
    assert (reply.error is not None) is (status == "failed")
    refusals = [part.refusal for item in reply.output for part in item.content if part.type == "refusal"]
    assert len(refusals) == (fault == "refusal")


@pytest.mark.parametrize("name", ["messages", "max_tokens", "response_format", "stop", "n"])
def test_names_of_chat_are_refused_where_they_mean_nothing(client, name):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="sim-small", input="x", extra_body={name: 1})
    assert (caught.value.code, caught.value.param) == ("unknown_parameter", name)


def test_a_completion(client):
    reply = client.completions.create(model="sim-small", prompt="Once upon", max_tokens=9, logprobs=1)
    choice = reply.choices[0]
    assert reply.usage.prompt_tokens == count_text("Once upon")
    assert reply.usage.completion_tokens == count_text(choice.text) <= 9
    assert "".join(choice.logprobs.tokens) == choice.text
    with client.completions.create(
        model="sim-small", prompt="Once upon", max_tokens=9, logprobs=1, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == choice.text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == choice.finish_reason
    assert (chunks[-1].choices, chunks[-1].usage) == ([], reply.usage)


def test_several_prompts_echo_and_the_small_default_cap(client):
    reply = client.completions.create(model="sim-small", prompt=["One", "Two"], n=2, echo=True)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert [choice.text[:3] for choice in reply.choices] == ["One", "One", "Two", "Two"]
    assert len({choice.text[3:] for choice in reply.choices}) == 4
    assert all(count_text(choice.text[3:]) <= 16 for choice in reply.choices)


def test_stop_texts_end_an_answer_and_are_not_in_it(client):
    whole = client.chat.completions.create(model="sim-small", messages=[{"role": "user", "content": "Tell me"}]).choices[0].message.content
    word = whole.split()[3]
    cut = client.chat.completions.create(model="sim-small", messages=[{"role": "user", "content": "Tell me"}], stop=["\n\n", word])
    assert cut.choices[0].message.content == whole[: whole.index(word)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens == count_text(whole[: whole.index(word)])


def test_embeddings_in_both_forms(client):
    texts = ["one river", "two rivers", "one river"]
    packed = client.embeddings.create(model="sim-small", input=texts)  # the SDK asks for base64 by itself
    listed = client.embeddings.create(model="sim-small", input=texts, encoding_format="float")
    vectors = [row.embedding for row in packed.data]
    assert vectors == [row.embedding for row in listed.data]
    assert [row.index for row in packed.data] == [0, 1, 2]
    assert [len(vector) for vector in vectors] == [256] * 3
    assert all(math.isclose(sum(x * x for x in vector), 1, abs_tol=1e-5) for vector in vectors)
    assert vectors[0] == vectors[2] != vectors[1]
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == sum(map(count_text, texts))


def test_the_size_of_vectors(client):
    whole = client.embeddings.create(model="text-embedding-3-small", input="river").data[0].embedding
    short = client.embeddings.create(model="text-embedding-3-small", input="river", dimensions=8).data[0].embedding
    length = math.sqrt(sum(x * x for x in whole[:8]))
    assert len(whole) == 1536
    assert short == pytest.approx([x / length for x in whole[:8]], abs=1e-6)
    with served(seed=4) as (url, _), openai.OpenAI(base_url=url, api_key="any", max_retries=0) as other:
        assert other.embeddings.create(model="text-embedding-3-small", input="river", dimensions=8).data[0].embedding != short


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "word " * 8193}, "input"),
        ({"input": ["word " * 8000] * 40}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": "a", "dimensions": 257}, "dimensions"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "model": "text-embedding-ada-002", "dimensions": 8}, "dimensions"),
    ],
)
def test_limits_of_embeddings(client, wrong, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(**{"model": "sim-small", "encoding_format": "float", **wrong})
    assert caught.value.param == param


def test_token_ids_are_inputs(client):
    reply = client.embeddings.create(model="sim-small", input=[[1, 2, 3], [4]])
    assert len(reply.data) == 2
    assert client.completions.create(model="sim-small", prompt=[1, 2, 3]).choices[0].text


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("401", openai.AuthenticationError),
        ("model_not_found", openai.NotFoundError),
        ("429_bare", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("reset_mid", openai.APIConnectionError),
        ("short_body", openai.APIConnectionError),
    ],
)
@pytest.mark.parametrize("endpoint", ["responses", "completions", "embeddings"])
def test_faults_on_every_endpoint(client, endpoint, fault, error):
    text = f"[[sim:{fault}]] x"
    calls: dict[str, Any] = {
        "responses": lambda: client.responses.create(model="sim-small", input=text),
        "completions": lambda: client.completions.create(model="sim-small", prompt=text),
        "embeddings": lambda: client.embeddings.create(model="sim-small", input=["fine", text]),
    }
    with pytest.raises(error):
        calls[endpoint]()


@pytest.mark.parametrize("fault", ["reset_mid", "short_body"])
def test_a_broken_stream_of_responses(client, fault):
    # What the SDK's HTTP library makes of a cut depends on where it is cut.
    with pytest.raises(Exception, match=r"closed|reset|Connection|incomplete"):
        list(client.responses.create(model="sim-small", input=f"[[sim:{fault}]] x", stream=True))


def test_an_error_event_in_a_stream_of_responses(client):
    events = list(client.responses.create(model="sim-small", input="[[sim:stream_error]] x", stream=True))
    assert (events[-1].type, events[-1].code) == ("error", "server_error")
    assert "response.output_text.delta" in {event.type for event in events}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"content": [{"type": "image_url", "image_url": {"url": "cat.png"}}]}, "messages[0].content[0]"),
        ({"content": [{"type": "image", "image": "x"}]}, "messages[0].content[0]"),
        ({"content": [{"type": "text"}]}, "messages[0].content[0]"),
    ],
)
def test_parts_that_are_none(client, message, param):
    wrong: Any = {"role": "user", **message}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="sim-small", messages=[wrong])
    assert caught.value.param == param
