"""The Anthropic dialect of the simulator: what it refuses, what it says, its limits and its prompt cache."""

from __future__ import annotations

import pytest

from batchllm.core import json
from batchllm.core.wire import HttpCall
from batchllm.core.words import count_text
from batchllm.simulator import Settings, Simulator

OLD = "2023-06-01"
NEW = "2026-10-21"
TOOL = {"name": "lookup", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
CLOSED = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"], "additionalProperties": False}


def call(text="Tell me about lakes.", *, version=NEW, url="http://sim/v1/messages", headers=None, method="POST", drop=(), **params):
    body = {"model": "sim-small", "max_tokens": 200, "messages": [{"role": "user", "content": text}], **params}
    sent = {"x-api-key": "k", **({"anthropic-version": version} if version else {}), **(headers or {})}
    return HttpCall(url=url, body=json.dumps({name: value for name, value in body.items() if name not in drop}), headers=sent, method=method)


def once(simulator, request, *, now=0.0):
    script = simulator.receive(request, now=now, utc=1.8e9 + now)
    simulator.finish(script, now=now, utc=1.8e9 + now, delivered=True)
    return script


def said(script):
    document = json.loads(script.body)
    assert script.status == 200, document
    return document


def use(name="lookup", identifier="toolu_1", **given):
    return {"role": "assistant", "content": [{"type": "tool_use", "id": identifier, "name": name, "input": given}]}


def result(identifier="toolu_1", text="42"):
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": identifier, "content": text}]}


ASKED = {"role": "user", "content": "Look it up"}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (call(version=None), "anthropic-version: header is required"),
        (call(version="2024-01-01"), "is not a valid version"),
        (call(drop=["max_tokens"]), "max_tokens: Field required"),
        (call(max_tokens=-1), "max_tokens"),
        (call(max_tokens="9"), "valid integer"),
        (call(max_tokens=0, stream=True), "0 is not allowed"),
        (call(drop=["model"]), "model: Field required"),
        (call(messages=[]), "at least one message"),
        (call(messages=[{"role": "system", "content": "x"}]), "top-level `system`"),
        (call(messages=[{"role": "user", "content": ""}]), "non-empty content"),
        (call(messages=[{"role": "user", "content": [{"type": "text", "text": ""}]}]), "text content blocks must be non-empty"),
        (call(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]), "Input tag 'image_url'"),
        (call(messages=[{"role": "user", "content": [{**IMAGE, "source": {**IMAGE["source"], "media_type": "image/tiff"}}]}]), "media_type"),
        (call(messages=[{"role": "user", "content": "x", "name": "me"}]), "name: Extra inputs"),
        (call(system=[{"type": "text", "text": ""}]), "system"),
        # OpenAI's names are no names here.
        *(
            (call(**{name: 1}), f"{name}: Extra inputs are not permitted")
            for name in ("n", "seed", "max_completion_tokens", "response_format", "stop")
        ),
        # Sampling: by the version, by the model, by its range.
        (call(temperature=1), "temperature"),
        (call(top_k=5), "top_k"),
        (call(version=OLD, model="claude-opus-4-7", temperature=0.5), "temperature: not supported by this model"),
        (call(version=OLD, temperature=1.5), "from 0 to 1"),
        # What newer models refuse.
        (call(model="claude-sonnet-4-6", messages=[ASKED, {"role": "assistant", "content": "It is"}]), "prefill"),
        (call(model="claude-opus-4-8", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=4000), "'enabled' is not supported"),
        (call(model="claude-opus-5-5", thinking={"type": "disabled"}), "'disabled' is not supported"),
        (call(model="claude-haiku-5-5", tools=[TOOL], tool_choice={"type": "any"}), "tool_choice"),
        (call(model="claude-haiku-4-5", thinking={"type": "enabled", "budget_tokens": 300}), "budget_tokens"),
        # Tools.
        (call(tools=[{"type": "function", "function": {"name": "x"}}], tool_choice={"type": "any"}), "needs tools"),
        (call(tools=[{"name": "no spaces", "input_schema": {"type": "object"}}]), "should match pattern"),
        (call(tools=[{"name": "lookup", "parameters": {"type": "object"}}]), "input_schema"),
        (call(tools=[TOOL], tool_choice={"type": "tool", "name": "other"}), "'other' not found"),
        (call(tools=[TOOL], tool_choice="required"), "tool_choice"),
        (call(tools=[TOOL], messages=[ASKED, use()]), "without `tool_result`"),
        (call(tools=[TOOL], messages=[ASKED, use(), {"role": "user", "content": "And?"}]), "without `tool_result`"),
        (call(tools=[TOOL], messages=[ASKED, result()]), "unexpected `tool_use_id`"),
        (
            call(messages=[ASKED, use(), {"role": "user", "content": [{"type": "text", "text": "x"}, *result()["content"]]}]),
            "before all other content",
        ),
        # Schemas.
        (call(output_config={"format": {"type": "json_schema", "schema": {**CLOSED, "additionalProperties": True}}}), "additionalProperties"),
        (
            call(output_config={"format": {"type": "json_schema", "schema": {**CLOSED, "properties": {"n": {"type": "integer", "minimum": 1}}}}}),
            "properties.n: property 'minimum' is not supported",
        ),
        (call(output_config={"format": {"type": "json_schema", "json_schema": {"schema": CLOSED}}}), "output_config.format"),
        (call(output_config={"effort": "extreme"}), "effort"),
        (call(stop_sequences=[" "]), "non-whitespace"),
        (call(stop_sequences="END"), "valid list"),
        (call(headers={"authorization": "Bearer k"}), "send one of them"),
    ],
)
def test_what_is_refused(request_, words):
    script = once(Simulator(), request_)
    document = json.loads(script.body)
    assert script.status == 400
    assert document["type"] == "error"
    assert document["error"]["type"] == "invalid_request_error"
    assert words in document["error"]["message"]
    assert document["request_id"] == script.headers["request-id"]
    assert script.ticket.executed is False


@pytest.mark.parametrize(
    "request_",
    [
        call(version=OLD, temperature=0.5, top_p=0.9, top_k=5),
        call(version=OLD, model="claude-sonnet-4-6", temperature=1),
        call(model="claude-haiku-4-5", messages=[ASKED, {"role": "assistant", "content": "It is"}]),
        call(model="claude-haiku-5-5", thinking={"type": "adaptive"}, output_config={"effort": "low"}),
        call(messages=[ASKED, use(q="x"), result(), ASKED], tools=[TOOL]),
        call(metadata={"user_id": "h:ab"}, service_tier="auto", speed="standard", inference_geo="us"),
        call(headers={"authorization": "Bearer k", "x-api-key": ""}, drop=[]),
    ],
)
def test_what_is_taken(request_):
    headers = {name: value for name, value in request_.headers.items() if value}
    said(once(Simulator(), HttpCall(url=request_.url, body=request_.body, headers=headers)))


def test_an_answer_and_its_counts():
    message = said(once(Simulator(), call()))
    text = message["content"][0]["text"]
    assert (message["type"], message["role"], message["stop_reason"], message["stop_sequence"]) == ("message", "assistant", "end_turn", None)
    assert message["usage"]["input_tokens"] == 3 + 4 + count_text("Tell me about lakes.")
    assert message["usage"]["output_tokens"] == count_text(text)
    assert said(once(Simulator(), call())) == message
    assert said(once(Simulator(Settings(seed=1)), call()))["content"][0]["text"] != text


def test_the_cap_and_thinking():
    cut = [said(once(Simulator(), call(f"Item {n}", max_tokens=4))) for n in range(300)]
    ends = {(message["stop_reason"], message["usage"]["output_tokens"]) for message in cut}
    assert ends == {("end_turn", 1), ("end_turn", 2), ("end_turn", 3), ("end_turn", 4), ("max_tokens", 4)}
    thought = said(once(Simulator(), call(thinking={"type": "adaptive"})))
    assert [block["type"] for block in thought["content"]] == ["thinking", "text"]
    spent = thought["usage"]["output_tokens_details"]["thinking_tokens"]
    assert spent == count_text(thought["content"][0]["thinking"]) > 0
    assert thought["usage"]["output_tokens"] == spent + count_text(thought["content"][1]["text"])


def test_a_stop_text_ends_the_answer():
    for n in range(200):
        message = said(once(Simulator(), call(f"Item {n}", stop_sequences=["before", "after", "again", "small"])))
        if message["stop_reason"] == "stop_sequence":
            text = message["content"][0]["text"] if message["content"] else ""
            assert message["stop_sequence"] in {"before", "after", "again", "small"}
            assert not any(stop in text for stop in ("before", "after", "again", "small"))
            assert message["usage"]["output_tokens"] == max(count_text(text), 1)
            break
    else:
        pytest.fail("no answer was stopped")


def test_schemas_tools_and_images():
    simulator = Simulator()
    shaped = said(once(simulator, call(output_config={"format": {"type": "json_schema", "schema": CLOSED}})))
    assert json.loads(shaped["content"][0]["text"])["label"] in {"a", "b"}
    forced = said(once(simulator, call(tools=[TOOL], tool_choice={"type": "tool", "name": "lookup"})))
    assert forced["stop_reason"] == "tool_use"
    (block,) = forced["content"]
    assert (block["type"], block["name"], block["id"][:6]) == ("tool_use", "lookup", "toolu_")
    assert isinstance(block["input"]["q"], str)
    # Left to itself it calls the tool that is named, and answers in words once it has the result.
    asked = {"role": "user", "content": "Please lookup this"}
    assert said(once(simulator, call(tools=[TOOL], messages=[asked])))["stop_reason"] == "tool_use"
    assert said(once(simulator, call(tools=[TOOL], messages=[asked, use(), result(text="lookup")])))["stop_reason"] == "end_turn"
    bare = said(once(simulator, call([{"type": "text", "text": "x"}])))["usage"]["input_tokens"]
    assert said(once(simulator, call([{"type": "text", "text": "x"}, IMAGE])))["usage"]["input_tokens"] == bare + 85


def events(script):
    assert script.headers["content-type"].startswith("text/event-stream")
    pairs = [frame.split("\n") for frame in script.body.decode().split("\n\n") if frame]
    found = [json.loads(lines[1].removeprefix("data: ")) for lines in pairs]
    assert [lines[0] for lines in pairs] == [f"event: {event['type']}" for event in found]
    return found


@pytest.mark.parametrize("params", [{}, {"thinking": {"type": "adaptive"}}, {"tools": [TOOL], "tool_choice": {"type": "any"}}])
def test_a_stream_says_what_the_plain_answer_says(params):
    plain = said(once(Simulator(), call(**params)))
    found = events(once(Simulator(), call(stream=True, **params)))
    assert found[0]["type"] == "message_start"
    assert found[0]["message"]["content"] == []
    assert found[-1]["type"] == "message_stop"
    blocks: list[dict] = []
    for event in found:
        if event["type"] == "content_block_start":
            blocks.append({**event["content_block"], "written": ""})
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            if delta["type"] == "signature_delta":
                blocks[-1]["signature"] = delta["signature"]
            else:
                blocks[-1]["written"] += next(value for name, value in delta.items() if name != "type")
    for block, whole in zip(blocks, plain["content"], strict=True):
        assert block["written"] == (json.text(whole["input"]) if whole["type"] == "tool_use" else whole[whole["type"]])
        assert {**block, "written": 0, whole["type"]: 0, "input": 0} == {**whole, "written": 0, whole["type"]: 0, "input": 0}
    end = next(event for event in reversed(found) if event["type"] == "message_delta")
    assert end["delta"]["stop_reason"] == plain["stop_reason"]
    assert end["usage"] == plain["usage"]


# Limits


def test_headers_of_the_limits():
    simulator = Simulator(Settings(rpm=60, itpm=80_000, otpm=16_000))
    headers = once(simulator, call("word " * 3000)).headers
    told = {name.removeprefix("anthropic-ratelimit-"): value for name, value in headers.items() if name.startswith("anthropic-ratelimit")}
    assert told == {
        "requests-limit": "60",
        "requests-remaining": "59",
        "requests-reset": "2027-01-15T08:00:01Z",
        "tokens-limit": "96000",
        "tokens-remaining": "93000",
        "tokens-reset": "2027-01-15T08:00:02Z",
        "input-tokens-limit": "80000",
        "input-tokens-remaining": "77000",
        "input-tokens-reset": "2027-01-15T08:00:02Z",
        "output-tokens-limit": "16000",
        "output-tokens-remaining": "16000",
        "output-tokens-reset": "2027-01-15T08:00:00Z",
    }


def test_input_counts_at_the_start_and_output_as_it_is_produced():
    simulator = Simulator(Settings(itpm=600, otpm=60, burst_seconds=60))
    # The cap plays no role: 5000 would never fit.
    held = simulator.receive(call("word " * 293, max_tokens=5000), now=0.0, utc=0.0)
    buckets = simulator._buckets["anthropic:sim-small"]
    assert held.status == 200
    assert (buckets.input_tokens[0].level, buckets.output_tokens[0].level) == (300, 60)
    refused = once(simulator, call("word " * 400))
    assert refused.status == 429
    assert "600 input tokens per minute" in json.loads(refused.body)["error"]["message"]
    assert refused.headers["retry-after"] == "11"
    simulator.finish(held, now=0.0, utc=0.0, delivered=True)
    assert buckets.output_tokens[0].level == 60 - held.ticket.usage.output_tokens
    # Output goes into debt, and then nothing passes until it is paid back.
    for n in range(3):
        simulator.finish(simulator.receive(call(f"Item {n}"), now=0.0, utc=0.0), now=0.0, utc=0.0, delivered=True)
    debt = -buckets.output_tokens[0].level
    assert debt > 0
    refused = once(simulator, call("x"))
    assert "60 output tokens per minute" in json.loads(refused.body)["error"]["message"]
    assert once(simulator, call("x"), now=debt - 0.01).status == 429
    assert once(simulator, call("x"), now=debt + 0.01).status == 200


def test_what_the_cache_read_counts_towards_no_limit():
    simulator = Simulator(Settings(itpm=100_000, otpm=100_000))
    usage = once(simulator, call("[[sim:usage_cached]] " + "word " * 100)).ticket.usage
    assert usage.cached_input_tokens > 0
    left = simulator._buckets["anthropic:sim-small"].input_tokens[0].level
    assert left == 100_000 - usage.input_tokens + usage.cached_input_tokens


# The prompt cache


def cached(text, *, ttl="5m", rules="word " * 1500, **params):
    return call(text, system=[{"type": "text", "text": rules, "cache_control": {"type": "ephemeral", "ttl": ttl}}], **params)


def shares(script):
    usage = said(script)["usage"]
    assert usage["input_tokens"] + usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"] == script.ticket.usage.input_tokens
    return usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]


def test_a_prefix_is_written_once_and_read_by_the_others():
    simulator = Simulator(Settings(latency_ms=1000, latency_sigma=0))
    assert shares(once(simulator, cached("a"))) == (1507, 0)
    assert shares(once(simulator, cached("b"), now=0.2)) == (1507, 0)  # sent before the first one began to answer: it pays as well
    assert shares(once(simulator, cached("c"), now=0.3)) == (0, 1507)
    assert shares(once(simulator, cached("c"), now=300.2)) == (0, 1507)  # reading keeps it
    assert shares(once(simulator, cached("c"), now=601)) == (1507, 0)
    assert shares(once(simulator, cached("c", rules="word " * 1000), now=602)) == (0, 0)  # too short
    assert shares(once(simulator, cached("c", model="sim-large"), now=602)) == (1507, 0)
    plain = said(once(simulator, call("c", system="word " * 1500)))["usage"]
    assert (plain["cache_read_input_tokens"], plain["cache_creation_input_tokens"]) == (0, 0)


def test_the_cache_changes_the_price_and_not_the_answer():
    one = said(once(Simulator(), cached("a", max_tokens=100)))["content"]
    bare = said(once(Simulator(), call("a", system=[{"type": "text", "text": "word " * 1500}], max_tokens=100)))["content"]
    warm = said(once(Simulator(), cached("a", max_tokens=0)))
    assert one == bare
    assert (warm["content"], warm["usage"]["output_tokens"]) == ([], 0)


# Beside the messages


def test_counting_costs_nothing():
    simulator = Simulator(Settings(rpm=1))
    counted = call(url="http://sim/v1/messages/count_tokens", drop=["max_tokens"])
    for _ in range(3):
        assert said(once(simulator, counted)) == {"input_tokens": said(once(Simulator(), call()))["usage"]["input_tokens"]}
    assert simulator.audit.requests == 0
    assert once(simulator, call(url="http://sim/v1/messages/count_tokens", temperature=1)).status == 400


def models(simulator, query="", **headers):
    got = once(simulator, HttpCall(url=f"http://sim/v1/models{query}", body=b"", method="GET", headers=headers or {"x-api-key": "k"}))
    return got.status, json.loads(got.body)


def test_the_same_path_lists_models_for_either_caller():
    simulator = Simulator(Settings(models=("a", "b", "c")))
    assert models(simulator, authorization="Bearer k")[1]["object"] == "list"
    status, page = models(simulator, "?limit=2")
    assert (status, [row["id"] for row in page["data"]], page["has_more"], page["last_id"]) == (200, ["a", "b"], True, "b")
    page = models(simulator, "?limit=2&after_id=b")[1]
    assert ([row["id"] for row in page["data"]], page["has_more"]) == (["c"], False)
    assert models(simulator, "/b")[1]["id"] == "b"
    status, missing = models(simulator, "/d", **{"anthropic-version": NEW})
    assert (status, missing["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"x-api-key": "right"}, 200), ({"authorization": "Bearer right"}, 200), ({"x-api-key": "wrong"}, 401), ({"x-api-key": ""}, 401)],
)
def test_keys(headers, status):
    request = call()
    script = once(
        Simulator(Settings(keys=frozenset({"right"}))), HttpCall(url=request.url, body=request.body, headers={"anthropic-version": NEW, **headers})
    )
    assert script.status == status
    if status == 401:
        assert json.loads(script.body)["error"]["type"] == "authentication_error"
