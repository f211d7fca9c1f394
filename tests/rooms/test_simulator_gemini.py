"""The Gemini dialect of the simulator: paths, what it refuses, what it says, its limits, vectors."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from batchllm.core import json
from batchllm.core.wire import HttpCall
from batchllm.core.words import count_text
from batchllm.simulator import Settings, Simulator

ROOT = "http://sim/v1beta/models/sim-small"
KEY = {"x-goog-api-key": "k"}
LOOKUP = {"functionDeclarations": [{"name": "lookup", "parameters": {"type": "OBJECT", "properties": {"q": {"type": "STRING"}}, "required": ["q"]}}]}
IMAGE = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}


def post(document, *, url=ROOT + ":generateContent", headers=KEY, method="POST"):
    return HttpCall(url=url, body=json.dumps(document), headers=headers, method=method)


def call(text="Tell me about lakes.", *, url=ROOT + ":generateContent", parts=(), config=None, **fields):
    document = {"contents": [{"role": "user", "parts": [{"text": text}, *parts]}], **fields}
    return post({**document, "generationConfig": config} if config else document, url=url)


def once(simulator, request, *, now=0.0, utc=1.8e9):
    script = simulator.receive(request, now=now, utc=utc + now)
    simulator.finish(script, now=now, utc=utc + now, delivered=True)
    return script


def said(script):
    document = json.loads(script.body)
    assert script.status == 200, document
    return document


def text_of(document):
    return "".join(part.get("text", "") for part in document["candidates"][0]["content"]["parts"])


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (post([]), "expected an object"),
        (HttpCall(url=ROOT + ":generateContent", body=b"{", headers=KEY), "Invalid JSON payload"),
        (post({}), "contents is not specified"),
        (post({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}), "valid role: user, model"),
        (post({"contents": [{"role": "user", "parts": []}]}), "parts must not be empty"),
        (post({"contents": [{"role": "user", "parts": [{"type": "text", "text": "x"}]}]}), 'Unknown name "type"'),
        (post({"contents": [{"role": "user", "parts": [{"thought": True}]}]}), "required oneof field 'data'"),
        (post({"messages": [{"role": "user", "content": "x"}]}), 'Unknown name "messages"'),
        (call(config={"maxTokens": 5}), "Unknown name \"maxTokens\" at 'generation_config'"),
        (call(config={"maxOutputTokens": 0}), "must be positive"),
        (call(config={"temperature": 3}), "range [0.0, 2.0]"),
        (call(config={"candidateCount": 9}), "from 1 to 8"),
        (call(config={"stopSequences": list("abcdef")}), "at most 5"),
        (call(config={"responseMimeType": "application/xml"}), "allowed mimetypes"),
        (call(config={"responseJsonSchema": {"type": "object"}}), "response_mime_type"),
        (call(parts=[{"inlineData": {"data": "eA=="}}]), "mime_type is required"),
        (call(parts=[{"inlineData": {"mimeType": "image/png", "data": "data:image/png;base64,eA=="}}]), "Base64"),
        (call(toolConfig={"functionCallingConfig": {"mode": "ANY"}}), "without function_declarations"),
        (call(tools=[LOOKUP], toolConfig={"functionCallingConfig": {"mode": "REQUIRED"}}), "mode"),
        (call(tools=[LOOKUP], toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["other"]}}), "no declared function"),
        (post({"requests": []}, url=ROOT + ":batchEmbedContents"), "at least one"),
        (
            post({"requests": [{"model": "models/other", "content": {"parts": [{"text": "x"}]}}]}, url=ROOT + ":batchEmbedContents"),
            "models/sim-small",
        ),
        (post({"content": {"parts": [{"text": ""}]}}, url=ROOT + ":embedContent"), "content is empty"),
        (post({"content": {"parts": [{"text": "x"}]}, "outputDimensionality": 0}, url=ROOT + ":embedContent"), "output_dimensionality"),
    ],
)
def test_what_is_refused(request_, words):
    script = once(Simulator(), request_)
    error = json.loads(script.body)["error"]
    assert (script.status, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert words in error["message"]
    assert script.ticket.executed is False


def test_an_answer_and_its_counts():
    answer = said(once(Simulator(), call()))
    (candidate,) = answer["candidates"]
    assert (candidate["finishReason"], candidate["content"]["role"]) == ("STOP", "model")
    text = text_of(answer)
    # Counts that are 0 are absent.
    inputs, outputs = 3 + 4 + count_text("Tell me about lakes."), count_text(text)
    assert answer["usageMetadata"] == {"promptTokenCount": inputs, "candidatesTokenCount": outputs, "totalTokenCount": inputs + outputs}
    assert answer["modelVersion"] == "sim-small"
    assert said(once(Simulator(), call())) == answer
    assert text_of(said(once(Simulator(Settings(seed=1)), call()))) != text


def test_snake_case_is_the_same_request():
    snake = post(
        {"contents": [{"parts": [{"text": "x"}]}], "generation_config": {"max_output_tokens": 7}, "system_instruction": {"parts": [{"text": "y"}]}}
    )
    camel = post(
        {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"maxOutputTokens": 7}, "systemInstruction": {"parts": [{"text": "y"}]}}
    )
    assert said(once(Simulator(), snake)) == said(once(Simulator(), camel))


def test_cap_candidates_thoughts_and_stop_texts():
    cut = [said(once(Simulator(), call(f"Item {n}", config={"maxOutputTokens": 4}))) for n in range(300)]
    assert {answer["candidates"][0]["finishReason"] for answer in cut} == {"STOP", "MAX_TOKENS"}
    assert max(answer["usageMetadata"]["candidatesTokenCount"] for answer in cut) == 4
    # A larger cap gives the same text, longer.
    n = next(n for n, answer in enumerate(cut) if answer["candidates"][0]["finishReason"] == "MAX_TOKENS")
    assert text_of(said(once(Simulator(), call(f"Item {n}", config={"maxOutputTokens": 400})))).startswith(text_of(cut[n]) + " ")
    two = said(once(Simulator(), call(config={"candidateCount": 2})))["candidates"]
    assert [candidate["index"] for candidate in two] == [0, 1]
    usage = said(once(Simulator(), call(config={"thinkingConfig": {"thinkingLevel": "LOW"}})))["usageMetadata"]
    assert usage["thoughtsTokenCount"] > 0
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"] + usage["thoughtsTokenCount"]
    assert "thoughtsTokenCount" not in said(once(Simulator(), call(config={"thinkingConfig": {"thinkingBudget": 0}})))["usageMetadata"]
    stopped = [text_of(said(once(Simulator(), call(f"Item {n}", config={"stopSequences": ["before", "after"]})))) for n in range(50)]
    assert not any("before" in text or "after" in text for text in stopped)


@pytest.mark.parametrize(
    "schema",
    [
        {"responseJsonSchema": {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}},
        {"responseSchema": {"type": "OBJECT", "properties": {"label": {"type": "STRING", "enum": ["a", "b"]}}, "required": ["label"]}},
        {"response_schema": {"type": "OBJECT", "properties": {"label": {"type": "STRING", "enum": ["a", "b"], "nullable": False}}}},
    ],
)
def test_schemas(schema):
    answer = said(once(Simulator(), call(config={"responseMimeType": "application/json", **schema})))
    assert json.loads(text_of(answer))["label"] in {"a", "b"}


def test_tools_and_images():
    simulator = Simulator()
    forced = said(once(simulator, call(tools=[LOOKUP], toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["lookup"]}})))
    (part,) = forced["candidates"][0]["content"]["parts"]
    assert part["functionCall"]["name"] == "lookup"
    assert isinstance(part["functionCall"]["args"]["q"], str)
    answered = {
        "contents": [
            {"role": "user", "parts": [{"text": "lookup"}]},
            {"role": "model", "parts": [part]},
            {"role": "user", "parts": [{"functionResponse": {"name": "lookup", "response": {"result": 1}}}]},
        ],
        "tools": [LOOKUP],
    }
    assert "text" in said(once(simulator, post(answered)))["candidates"][0]["content"]["parts"][0]
    assert "functionCall" not in said(once(simulator, call("lookup", tools=[LOOKUP], toolConfig={"functionCallingConfig": {"mode": "NONE"}})))
    bare = said(once(simulator, call()))["usageMetadata"]["promptTokenCount"]
    assert said(once(simulator, call(parts=[IMAGE])))["usageMetadata"]["promptTokenCount"] == bare + 85


STREAM = ROOT + ":streamGenerateContent"


@pytest.mark.parametrize(
    "fields", [{}, {"config": {"candidateCount": 2}}, {"tools": [LOOKUP], "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}]
)
@pytest.mark.parametrize("sse", [True, False])
def test_a_stream_says_what_the_plain_answer_says(fields, sse):
    plain = said(once(Simulator(), call(**fields)))
    script = once(Simulator(), call(url=STREAM + ("?alt=sse" if sse else ""), **fields))
    if sse:
        assert script.headers["content-type"] == "text/event-stream"
        pieces = [json.loads(frame.removeprefix("data: ")) for frame in script.body.decode().split("\r\n\r\n") if frame]
    else:
        pieces = json.loads(script.body)
    for whole in plain["candidates"]:
        own = [candidate for piece in pieces for candidate in piece["candidates"] if candidate["index"] == whole["index"]]
        parts = [part for candidate in own for part in candidate["content"]["parts"]]
        assert "".join(part.get("text", "") for part in parts) == "".join(part.get("text", "") for part in whole["content"]["parts"])
        assert [part for part in parts if "text" not in part] == [part for part in whole["content"]["parts"] if "text" not in part]
        assert [candidate.get("finishReason") for candidate in own] == [None] * (len(own) - 1) + [whole["finishReason"]]
    assert pieces[-1]["usageMetadata"] == plain["usageMetadata"]


# Vectors


def vectors_of(texts, *, url=ROOT + ":batchEmbedContents", **fields):
    requests = [{"model": "models/sim-small", "content": {"parts": [{"text": text}]}, **fields} for text in texts]
    return [row["values"] for row in said(once(Simulator(), post({"requests": requests}, url=url)))["embeddings"]]


def test_vectors():
    one, two, again = vectors_of(["a river", "a lake", "a river"], outputDimensionality=16)
    assert one == again != two
    assert len(one) == 16
    assert math.hypot(*one) == pytest.approx(1, abs=1e-5)
    single = said(once(Simulator(), post({"content": {"parts": [{"text": "a river"}]}, "outputDimensionality": 16}, url=ROOT + ":embedContent")))
    assert single == {"embedding": {"values": one}, "usageMetadata": {"promptTokenCount": 2}}
    old = "http://sim/v1beta/models/gemini-embedding-001:embedContent"
    assert set(said(once(Simulator(), post({"content": {"parts": [{"text": "x"}]}}, url=old)))) == {"embedding"}  # it tells no usage


# Limits, keys, paths


def refusal(script):
    assert script.status == 429
    return {part["@type"].rpartition(".")[2]: part for part in json.loads(script.body)["error"]["details"]}


def test_only_the_prompt_counts():
    simulator = Simulator(Settings(tpm=600, burst_seconds=60))
    assert once(simulator, call("word " * 293, config={"maxOutputTokens": 5000})).status == 200
    assert simulator._buckets["gemini:sim-small"].tokens[0].level == 300
    details = refusal(once(simulator, call("word " * 313)))
    assert details["RetryInfo"]["retryDelay"] == "2s"
    (violation,) = details["QuotaFailure"]["violations"]
    assert violation["quotaId"] == "GenerateContentInputTokensPerModelPerMinute-PaidTier"
    assert violation["quotaValue"] == "600"
    never = once(simulator, call("word " * 700))
    assert (never.status, json.loads(never.body)["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert not [name for name in once(simulator, call("x")).headers if "limit" in name]


@pytest.mark.parametrize(
    ("moment", "wait"),
    [
        ((2026, 11, 21), 8 * 3600),  # midnight is 08:00 UTC in winter
        ((2026, 6, 21), 7 * 3600),  # 07:00 in summer
        ((2026, 3, 8, 7, 30), 1800),  # the day on which summer time begins: the midnight before is still winter's
        ((2026, 3, 8, 8), 23 * 3600),  # and the day has 23 hours
        ((2026, 11, 1, 7), 25 * 3600),  # the day on which it ends has 25
    ],
)
def test_the_day_ends_at_midnight_in_california(moment, wait):
    utc = datetime(*moment, tzinfo=UTC).timestamp()
    simulator = Simulator(Settings(rpd=2))
    statuses = [once(simulator, call(str(n)), now=n, utc=utc).status for n in range(2)]
    assert statuses == [200, 200]
    details = refusal(once(simulator, call("x"), now=2.0, utc=utc))
    assert "PerDay" in details["QuotaFailure"]["violations"][0]["quotaId"]
    assert details["RetryInfo"]["retryDelay"] == "60s"  # looks short, and is not
    assert once(simulator, call("x"), now=wait - 1.0, utc=utc).status == 429
    assert once(simulator, call("x"), now=float(wait), utc=utc).status == 200


def test_a_wrong_key_is_a_bad_request():
    simulator = Simulator(Settings(keys=frozenset({"right"})))
    request = call()

    def met(url, **headers):
        script = once(simulator, HttpCall(url=url, body=request.body, headers=headers))
        return script.status, json.loads(script.body).get("error", {})

    assert met(request.url, **{"x-goog-api-key": "right"})[0] == 200
    assert met(request.url + "?key=right")[0] == 200
    status, error = met(request.url, **{"x-goog-api-key": "wrong"})
    assert (status, error["status"], error["details"][0]["reason"]) == (400, "INVALID_ARGUMENT", "API_KEY_INVALID")
    assert met(request.url)[0] == 403


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("POST", "http://sim/v1/models/sim-small:generateContent", 200),
        ("POST", "http://sim/v1beta/models/tuned%2Fone:generateContent", 200),
        ("GET", ROOT + ":generateContent", 405),
        ("POST", ROOT + ":paintContent", 404),
        ("GET", "http://sim/v1beta/models/other", 200),
        ("GET", "http://sim/v1beta/nothing", 404),
    ],
)
def test_paths(method, url, status):
    assert once(Simulator(), post({"contents": [{"parts": [{"text": "x"}]}]}, url=url, method=method)).status == status


def test_models_and_counts():
    simulator = Simulator(Settings(models=("a", "b", "c")))

    def got(url, headers=KEY):
        return json.loads(once(simulator, HttpCall(url=url, body=b"", method="GET", headers=headers)).body)

    page = got("http://sim/v1beta/models?pageSize=2", {})
    assert [row["name"] for row in page["models"]] == ["models/a", "models/b"]
    assert [row["name"] for row in got(f"http://sim/v1beta/models?pageSize=2&pageToken={page['nextPageToken']}")["models"]] == ["models/c"]
    assert [row["name"] for row in got("http://sim/v1/models")["models"]] == ["models/a", "models/b", "models/c"]
    assert got("http://sim/v1/models", {"authorization": "Bearer k"})["object"] == "list"
    assert got("http://sim/v1beta/models/d")["error"]["status"] == "NOT_FOUND"
    counted = said(once(simulator, call(url="http://sim/v1beta/models/a:countTokens")))
    assert counted["totalTokens"] == 3 + 4 + count_text("Tell me about lakes.")
    assert simulator.audit.requests == 0
