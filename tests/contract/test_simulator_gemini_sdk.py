"""The simulator's Gemini dialect over real sockets, judged by the official `google-genai` SDK."""

from __future__ import annotations

import math
from typing import Literal

import pytest
from pydantic import BaseModel
from served_simulator import booked, served

from batchllm.core.words import count_messages, count_text

genai = pytest.importorskip("google.genai")
errors = pytest.importorskip("google.genai.errors")
types = pytest.importorskip("google.genai.types")

PIXEL = bytes.fromhex("89504e470d0a1a0a")
LOOKUP = types.FunctionDeclaration(
    name="lookup", parameters=types.Schema(type="OBJECT", properties={"q": types.Schema(type="STRING")}, required=["q"])
)


@pytest.fixture(scope="module")
def server():
    with served() as found:
        yield found


def client_of(url, *, key="any", version="v1beta"):
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url.removesuffix("/v1"), api_version=version, timeout=5000))


@pytest.fixture(params=["v1beta", "v1"])
def client(server, request):
    with client_of(server[0], version=request.param) as found:
        yield found


@pytest.fixture
def one(server):
    with client_of(server[0]) as found:
        yield found


def ask(client, text="Name a river.", **config):
    return client.models.generate_content(model="sim-small", contents=text, config=types.GenerateContentConfig(**config))


def test_an_answer(client):
    answer = ask(client, system_instruction="Be brief.", max_output_tokens=200)
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    usage = answer.usage_metadata
    assert usage.prompt_token_count == count_messages([{"content": "Be brief."}, {"content": "Name a river."}])
    assert usage.candidates_token_count == count_text(answer.text)
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count
    assert answer.model_version == "sim-small"


@pytest.mark.parametrize("fault", ["", "[[sim:stream_split]]", "[[sim:padding]]", "[[sim:slow_drip]]", "[[sim:usage_strings]]"])
def test_a_stream_says_what_the_plain_answer_says(one, fault):
    text = f"{fault} Name a river."
    plain = ask(one, text)
    pieces = list(one.models.generate_content_stream(model="sim-small", contents=text))
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces) == plain.text
    assert pieces[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert pieces[-1].usage_metadata == plain.usage_metadata


def test_thoughts_are_counted_apart(one):
    usage = ask(one, thinking_config=types.ThinkingConfig(thinking_budget=100)).usage_metadata
    assert usage.thoughts_token_count > 0
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count + usage.thoughts_token_count


@pytest.mark.parametrize("stream", [False, True])
def test_a_function_call(one, stream):
    calling = types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="ANY", allowed_function_names=["lookup"]))
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[LOOKUP])], tool_config=calling)
    how = one.models.generate_content_stream if stream else lambda **given: [one.models.generate_content(**given)]
    calls = [call for piece in how(model="sim-small", contents="Name a river.", config=config) for call in piece.function_calls or ()]
    assert [call.name for call in calls] == ["lookup"]
    assert isinstance(calls[0].args["q"], str)


def test_the_sdks_own_loop_of_calls(one):
    asked = []

    def lookup(q: str) -> str:
        """Looks a river up."""
        asked.append(q)
        return "The Rhine"

    answer = ask(one, "Please lookup the river.", tools=[lookup])
    assert len(asked) == 1
    assert answer.text


class River(BaseModel):
    name: str
    size: Literal["small", "large"]


@pytest.mark.parametrize("how", [{"response_schema": River}, {"response_json_schema": River.model_json_schema()}])
def test_structured_output(one, how):
    answer = ask(one, response_mime_type="application/json", **how)
    River.model_validate_json(answer.text)
    assert answer.parsed is not None


def test_an_image_is_counted(one):
    parts = ["What is it?", types.Part.from_bytes(data=PIXEL, mime_type="image/png")]
    bare = one.models.count_tokens(model="sim-small", contents=["What is it?"]).total_tokens
    assert one.models.count_tokens(model="sim-small", contents=parts).total_tokens == bare + 85
    assert ask(one, parts).usage_metadata.prompt_token_count == bare + 85


def test_vectors(client):
    config = types.EmbedContentConfig(output_dimensionality=24, task_type="RETRIEVAL_DOCUMENT")
    got = client.models.embed_content(model="gemini-embedding-001", contents=["a river", "a lake"], config=config)
    one, two = (row.values for row in got.embeddings)
    assert (len(one), one != two) == (24, True)
    assert math.hypot(*one) == pytest.approx(1, abs=1e-5)
    assert client.models.embed_content(model="gemini-embedding-001", contents="a river", config=config).embeddings[0].values == one


def test_models(client):
    assert [model.name for model in client.models.list(config={"page_size": 1})] == [
        "models/sim-small",
        "models/sim-large",
    ]  # the SDK turns the pages
    assert client.models.get(model="gemini-3.8-flash").input_token_limit == 128_000


@pytest.mark.parametrize(
    ("fault", "error", "code", "status"),
    [
        ("401", "ClientError", 400, "INVALID_ARGUMENT"),
        ("402", "ClientError", 402, "RESOURCE_EXHAUSTED"),
        ("403", "ClientError", 403, "PERMISSION_DENIED"),
        ("region", "ClientError", 400, "FAILED_PRECONDITION"),
        ("model_not_found", "ClientError", 404, "NOT_FOUND"),
        ("context_length", "ClientError", 400, "INVALID_ARGUMENT"),
        ("429_retry_after", "ClientError", 429, "RESOURCE_EXHAUSTED"),
        ("rpd", "ClientError", 429, "RESOURCE_EXHAUSTED"),
        ("499", "ClientError", 499, "CANCELLED"),
        ("500", "ServerError", 500, "INTERNAL"),
        ("502", "ServerError", 502, "Bad Gateway"),
        ("503", "ServerError", 503, "UNAVAILABLE"),
        ("504", "ServerError", 504, "DEADLINE_EXCEEDED"),
    ],
)
def test_faults_are_the_errors_that_the_sdk_knows(one, fault, error, code, status):
    with pytest.raises(getattr(errors, error)) as caught:
        ask(one, f"[[sim:{fault}]]")
    assert (caught.value.code, caught.value.status) == (code, status)


def test_an_error_in_a_stream(one):
    with pytest.raises(errors.ServerError) as caught:
        list(one.models.generate_content_stream(model="sim-small", contents="[[sim:stream_error]] x"))
    assert caught.value.code == 500


def test_a_blocked_prompt_and_ends_of_an_answer(one):
    blocked = ask(one, "[[sim:prompt_blocked]]")
    assert blocked.candidates is None
    assert blocked.prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT
    for fault, reason in (
        ("content_filter", "SAFETY"),
        ("bad_arguments", "MALFORMED_FUNCTION_CALL"),
        ("empty_length", "MAX_TOKENS"),
        ("length", "MAX_TOKENS"),
    ):
        candidate = ask(one, f"[[sim:{fault}]] x").candidates[0]
        assert candidate.finish_reason == types.FinishReason(reason)
        assert bool(candidate.content and candidate.content.parts) is (fault == "length")


def test_keys_models_and_limits():
    with served(keys=frozenset({"right"}), models=("one",), tpm=60, burst_seconds=60) as (url, simulator):
        with client_of(url, key="wrong") as wrong, pytest.raises(errors.ClientError, match="API_KEY_INVALID"):
            wrong.models.generate_content(model="one", contents="x")
        with client_of(url, key="right") as client:
            with pytest.raises(errors.ClientError) as missing:
                client.models.generate_content(model="two", contents="x")
            assert missing.value.code == 404
            client.models.generate_content(model="one", contents="word " * 43)
            with pytest.raises(errors.ClientError) as refused:
                client.models.generate_content(model="one", contents="word " * 43)
        details = {part["@type"].rpartition(".")[2]: part for part in refused.value.details["error"]["details"]}
        assert 30 < float(details["RetryInfo"]["retryDelay"].removesuffix("s")) <= 40
        assert "PerMinute" in details["QuotaFailure"]["violations"][0]["quotaId"]
        booked(simulator, 4)
        assert simulator.summary()["refusals"] == 1
