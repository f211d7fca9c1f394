"""The simulator's Anthropic dialect over real sockets, judged by the official `anthropic` SDK."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from served_simulator import booked, served

from batchllm.core.words import count_messages, count_text

anthropic = pytest.importorskip("anthropic")

MESSAGES: Any = [{"role": "user", "content": "Name a river."}]
TOOL: Any = {"name": "lookup", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def asked(text) -> Any:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def server():
    with served() as found:
        yield found


@pytest.fixture
def client(server):
    with anthropic.Anthropic(base_url=server[0].removesuffix("/v1"), api_key="any", max_retries=0, timeout=5) as found:
        yield found


def create(client, text="Name a river.", **params):
    return client.messages.create(model="sim-small", max_tokens=200, messages=asked(text), **params)


def test_a_message(client):
    raw = client.messages.with_raw_response.create(model="sim-small", max_tokens=200, system="Be brief.", messages=MESSAGES)
    assert raw.headers["request-id"].startswith("req_")
    message = raw.parse()
    assert (message.model, message.stop_reason) == ("sim-small", "end_turn")
    assert message.usage.input_tokens == count_messages([{"role": "system", "content": "Be brief."}, *MESSAGES])
    assert message.usage.output_tokens == count_text(message.content[0].text)


@pytest.mark.parametrize("fault", ["", "[[sim:stream_split]]", "[[sim:stream_comments]]", "[[sim:padding]]"])
@pytest.mark.parametrize("params", [{}, {"thinking": {"type": "adaptive"}}, {"tools": [TOOL], "tool_choice": {"type": "any"}}])
def test_the_streamed_message_is_the_plain_one(client, fault, params):
    text = f"{fault} Name a river."
    plain = create(client, text, **params)
    with client.messages.stream(model="sim-small", max_tokens=200, messages=asked(text), **params) as stream:
        streamed = stream.get_final_message()
    assert streamed.model_dump(exclude={"content"}) == plain.model_dump(exclude={"content"})
    assert [block.model_dump(exclude={"parsed_output"}) for block in streamed.content] == [block.model_dump() for block in plain.content]


def test_a_tool_loop(client):
    message = create(client, "Please lookup the river.", tools=[TOOL])
    assert message.stop_reason == "tool_use"
    (use,) = message.content
    assert isinstance(use.input["q"], str)
    answer = client.messages.create(
        model="sim-small",
        max_tokens=200,
        tools=[TOOL],
        messages=[
            *asked("Please lookup the river."),
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "The Rhine"}]},
        ],
    )
    assert answer.stop_reason == "end_turn"


class River(BaseModel):
    name: str
    size: Literal["small", "large"]


def test_structured_output(client):
    message = client.messages.parse(model="sim-small", max_tokens=200, messages=MESSAGES, output_format=River)
    assert isinstance(message.parsed_output, River)


def test_an_image_is_counted(client):
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    bare = client.messages.count_tokens(model="sim-small", messages=asked([{"type": "text", "text": "What is it?"}])).input_tokens
    parts: Any = [image, {"type": "text", "text": "What is it?"}]
    assert client.messages.count_tokens(model="sim-small", messages=asked(parts)).input_tokens == bare + 85
    assert create(client, parts).usage.input_tokens == bare + 85


def test_models(client):
    assert [model.id for model in client.models.list(limit=1)] == ["sim-small", "sim-large"]  # the SDK turns the pages
    assert client.models.retrieve("claude-sonnet-5-5").max_input_tokens == 128_000


def test_the_prompt_cache(client):
    system: Any = [{"type": "text", "text": "rule " * 1200, "cache_control": {"type": "ephemeral"}}]
    first, second = (create(client, text, system=system).usage for text in ("One.", "Two."))
    assert (first.cache_creation_input_tokens, first.cache_read_input_tokens) == (1207, 0)
    assert (second.cache_creation_input_tokens, second.cache_read_input_tokens) == (0, 1207)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("401", "AuthenticationError"),
        ("402", "APIStatusError"),
        ("403", "PermissionDeniedError"),
        ("model_not_found", "NotFoundError"),
        ("context_length", "BadRequestError"),
        ("usage_limits", "BadRequestError"),
        ("409", "ConflictError"),
        ("413", "APIStatusError"),
        ("422", "UnprocessableEntityError"),
        ("429_retry_after", "RateLimitError"),
        ("spend_limit", "RateLimitError"),
        ("slow_down", "RateLimitError"),
        ("500", "InternalServerError"),
        ("502", "InternalServerError"),
        ("504", "APIStatusError"),
        ("529", "APIStatusError"),
        ("reset", "APIConnectionError"),
        ("reset_mid", "APIConnectionError"),
        ("short_body", "APIConnectionError"),
        ("refuse", "APIConnectionError"),
    ],
)
def test_faults_are_the_errors_that_the_sdk_knows(client, fault, error):
    with pytest.raises(getattr(anthropic, error)):
        create(client, f"[[sim:{fault}]]")


@pytest.mark.parametrize(("fault", "kind"), [("spend_limit", "EnforcedSpendLimitReachedError"), ("slow_down", "RampLimitExceededError")])
def test_the_sdk_tells_money_from_pace(client, fault, kind):
    with pytest.raises(anthropic.RateLimitError) as caught:
        create(client, f"[[sim:{fault}]]")
    assert type(caught.value).__name__ == kind
    assert ("retry-after" in caught.value.response.headers) is (fault == "slow_down")


def test_an_error_event_in_a_stream(client):
    with (
        pytest.raises(anthropic.APIStatusError, match="Overloaded"),
        client.messages.stream(model="sim-small", max_tokens=200, messages=asked("[[sim:stream_error]] x")) as stream,
    ):
        list(stream)


@pytest.mark.parametrize(
    ("fault", "reason"), [("refusal", "refusal"), ("length", "max_tokens"), ("window_full", "model_context_window_exceeded"), ("finish_null", None)]
)
def test_ends_of_a_message(client, fault, reason):
    message = create(client, f"[[sim:{fault}]] Name a river.")
    assert message.stop_reason == reason
    assert (message.stop_details is not None) is (fault == "refusal")


def test_sampling_is_refused_by_the_version_that_the_sdk_sends(client):
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        create(client, extra_body={"temperature": 1})
    create(client, extra_body={"temperature": 1}, extra_headers={"anthropic-version": "2023-06-01"})


def test_keys_and_limits():
    with served(keys=frozenset({"right"}), itpm=1000, otpm=30, burst_seconds=60) as (url, simulator):
        root = url.removesuffix("/v1")
        with anthropic.Anthropic(base_url=root, api_key="wrong", max_retries=0) as wrong, pytest.raises(anthropic.AuthenticationError):
            create(wrong)
        with anthropic.Anthropic(base_url=root, api_key="right", max_retries=0) as client:
            passed = client.messages.with_raw_response.create(model="sim-small", max_tokens=200, messages=asked("[[sim:usage_reasoning]] x"))
            assert passed.headers["anthropic-ratelimit-output-tokens-limit"] == "30"
            booked(simulator, 2)
            with pytest.raises(anthropic.RateLimitError, match="30 output tokens per minute") as refused:
                create(client)
            assert int(refused.value.response.headers["retry-after"]) > 60
        booked(simulator, 3)
        assert simulator.summary()["refusals"] == 1


def test_async_client_many_at_once(server):
    async def main():
        async with anthropic.AsyncAnthropic(base_url=server[0].removesuffix("/v1"), api_key="any", max_retries=0) as client:
            replies = await asyncio.gather(*[create(client, f"Row {n}") for n in range(30)])
            return [reply.content[0].text for reply in replies]

    assert len(set(asyncio.run(main()))) == 30
