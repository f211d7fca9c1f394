"""The simulator as an Ollama, judged by the official `ollama` SDK, and by bare HTTP for what that SDK hides."""

from __future__ import annotations

import base64
import urllib.request
from typing import Any

import ollama
import pytest
from served_simulator import booked, served

from batchllm.core import json
from batchllm.core.wire import HttpCall
from batchllm.core.words import count_messages, count_text
from batchllm.simulator import Settings, Simulator
from batchllm.simulator.ollama_models import Stored, tagged

LOOKUP: Any = {
    "type": "function",
    "function": {"name": "lookup", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}},
}
SCHEMA: Any = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}}}


def asked(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def server():
    with served(context_tokens=2000) as found:
        yield found


@pytest.fixture(scope="module")
def root(server):
    return server[0].removesuffix("/v1")


@pytest.fixture
def client(root):
    with ollama.Client(host=root, timeout=5) as found:
        yield found


def test_chat(client):
    reply = client.chat("gemma4", asked("Name a river"), options={"num_predict": 60, "temperature": 0})
    assert (reply.done, reply.done_reason, reply.model) == (True, "stop", "gemma4")
    assert reply.prompt_eval_count == count_messages(asked("Name a river"))
    assert reply.eval_count == count_text(reply.message.content)
    assert reply.total_duration == reply.load_duration + reply.prompt_eval_duration + reply.eval_duration


@pytest.mark.parametrize("text", ["Name a river", "[[sim:stream_split]] Name one"])
def test_a_stream_says_what_the_plain_answer_says(client, text):
    plain = client.chat("gemma4", asked(text), think=True)
    parts = list(client.chat("gemma4", asked(text), think=True, stream=True))
    assert "".join(part.message.content for part in parts) == plain.message.content
    assert "".join(part.message.thinking or "" for part in parts) == plain.message.thinking != ""
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[0].eval_count is None
    assert parts[-1].eval_count == plain.eval_count == count_text(plain.message.content) + count_text(plain.message.thinking)


def test_generate(client):
    reply = client.generate("gemma4", "Name a river", system="Be brief", options={"num_predict": 3})
    assert reply.eval_count == count_text(reply.response) <= 3
    assert (
        "".join(part.response for part in client.generate("gemma4", "Name a river", system="Be brief", options={"num_predict": 3}, stream=True))
        == reply.response
    )
    assert client.generate("gemma4", "").done_reason == "load"
    assert [model.model for model in client.ps().models if model.model == "gemma4:latest"]
    assert client.generate("gemma4", "", keep_alive=0).done_reason == "unload"
    assert not [model.model for model in client.ps().models if model.model == "gemma4:latest"]


def test_format_and_stop_are_honoured(client):
    value = json.loads(client.chat("gemma4", asked("Rate it"), format=SCHEMA).message.content)
    assert value["label"] in ("good", "bad")
    assert 1 <= value["stars"] <= 5
    assert isinstance(json.loads(client.chat("gemma4", asked("Rate it"), format="json").message.content), dict)
    whole = client.chat("gemma4", asked("Tell me")).message.content
    word = whole.split()[2]
    assert client.chat("gemma4", asked("Tell me"), options={"stop": [word]}).message.content == whole[: whole.index(word)]


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client, stream):
    got: Any = client.chat("gemma4", asked("Use lookup, please"), tools=[LOOKUP], stream=stream)
    calls = [call for part in (got if stream else [got]) for call in part.message.tool_calls or ()]
    assert [call.function.name for call in calls] == ["lookup"]
    assert isinstance(calls[0].function.arguments["q"], str)
    result = [*asked("Use lookup, please"), {"role": "assistant", "tool_calls": [call.model_dump() for call in calls]}]
    reply = client.chat("gemma4", [*result, {"role": "tool", "content": "42", "tool_name": "lookup"}], tools=[LOOKUP])
    assert reply.message.tool_calls is None
    assert reply.message.content


def test_images_are_counted(client):
    image = base64.b64encode(b"\x89PNG").decode()
    plain = client.chat("gemma4", asked("What is it?")).prompt_eval_count
    assert client.chat("gemma4", [{**asked("What is it?")[0], "images": [image, image]}]).prompt_eval_count == plain + 2 * 85


def test_embeddings(client):
    reply = client.embed("gemma4", ["a", "b", "a"], dimensions=16)
    assert [len(vector) for vector in reply.embeddings] == [16, 16, 16]
    assert reply.embeddings[0] == reply.embeddings[2] != reply.embeddings[1]
    assert reply.prompt_eval_count == 3
    assert sum(x * x for x in reply.embeddings[0]) == pytest.approx(1)
    assert len(client.embeddings("gemma4", "a").embedding) == 256
    assert client.embed("gemma4", "").embeddings == []


def test_a_prompt_that_is_too_long_is_cut_in_silence_unless_that_is_forbidden(client, root):
    history = [{"role": "system", "content": "Be brief"}, *(message for n in range(9) for message in asked(f"word{n} " * 20)), *asked("And now?")]
    reply = client.chat("gemma4", history, options={"num_ctx": 100})
    assert reply.prompt_eval_count <= 100 < count_messages(history)
    for messages, more in ((history, {"truncate": False}), (asked("word " * 200), {})):
        status, error = posted(f"{root}/api/chat", {"model": "gemma4", "messages": messages, "options": {"num_ctx": 100}, **more})
        assert (status, error["error"]["type"], error["error"]["n_ctx"]) == (400, "exceed_context_size_error", 100)
    with pytest.raises(ollama.ResponseError, match="exceeds the context length") as caught:
        client.embed("gemma4", "word " * 200, truncate=False, options={"num_ctx": 100})
    assert caught.value.status_code == 400
    assert client.embed("gemma4", "word " * 200, options={"num_ctx": 100}).prompt_eval_count == 100


def posted(url, document):
    request = urllib.request.Request(url, data=json.dumps(document), method="POST")
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_life_of_a_model():
    with served(models=("base",)) as (url, simulator), ollama.Client(host=url.removesuffix("/v1")) as client:
        with pytest.raises(ollama.ResponseError, match="model 'gemma4' not found") as caught:
            client.chat("gemma4", asked("x"))
        assert caught.value.status_code == 404
        steps = list(client.pull("gemma4", stream=True))
        assert [steps[0].status, steps[-1].status] == ["pulling manifest", "success"]
        assert [step.completed for step in steps if step.total][-1] == steps[1].total > 0
        assert client.chat("gemma4", asked("x")).message.content
        assert client.create("terse", from_="gemma4", system="Be terse", parameters={"num_predict": 4, "stop": ["\n"]}).status == "success"
        assert client.chat("terse", asked("x")).prompt_eval_count == count_messages([{"role": "system", "content": "Be terse"}, *asked("x")])
        assert client.chat("terse", asked("x")).eval_count <= 4
        shown = client.show("terse")
        assert "SYSTEM Be terse" in shown.modelfile
        assert shown.details.parent_model == "gemma4:latest"
        assert shown.modelinfo["sim.context_length"] == 128_000
        client.copy("terse", "twin")
        assert {model.model for model in client.list().models} == {"base:latest", "gemma4:latest", "terse:latest", "twin:latest"}
        client.delete("terse")
        for wrong in (
            lambda: client.show("terse"),
            lambda: client.delete("terse"),
            lambda: client.copy("terse", "x"),
            lambda: client.chat("terse", asked("x")),
        ):
            with pytest.raises(ollama.ResponseError) as gone:
                wrong()
            assert gone.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match="file does not exist"):
            list(client.pull("missing-model", stream=True))
        with pytest.raises(ollama.ResponseError, match="file does not exist"):
            client.pull("missing-model")
        # Only questions to a model are booked.
        booked(simulator, 5)


@pytest.mark.parametrize(("name", "full"), [("a", "a:latest"), ("a:7b", "a:7b"), ("host:5000/a", "host:5000/a:latest")])
def test_a_name_without_a_tag_means_the_latest(name, full):
    assert tagged(name) == full
    assert Stored(name=full).digest != Stored(name=full, system="x").digest


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("500", 500, "error was encountered"),
        ("503", 503, "server busy"),
        ("model_not_found", 404, "not found"),
        ("401", 401, "unauthorized"),
        ("429_bare", 429, "Too many"),
        ("context_length", 400, "exceed"),
        ("502", 502, "502 Bad Gateway"),
        ("invalid_request", 400, "Invalid"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors(client, fault, status, words, stream):
    with pytest.raises(ollama.ResponseError, match=words) as caught:
        list(client.chat("gemma4", asked(f"[[sim:{fault}]] x"), stream=stream))
    assert caught.value.status_code == status


@pytest.mark.parametrize("fault", ["stream_error", "finish_error"])
def test_an_error_line_in_a_stream(client, root, fault):
    parts = []
    with pytest.raises(ollama.ResponseError, match="error was encountered"):
        parts += client.chat("gemma4", asked(f"[[sim:{fault}]] x"), stream=True)
    status, error = posted(f"{root}/api/chat", {"model": "gemma4", "messages": asked("[[sim:finish_error]] x"), "stream": False})
    assert (status, list(error)) == (200, ["error"])


def test_an_end_without_an_end(client):
    parts = list(client.chat("gemma4", asked("[[sim:stream_no_finish]] x"), stream=True))
    assert parts
    assert not any(part.done for part in parts)


@pytest.mark.parametrize("fault", ["usage_missing", "usage_zero"])
def test_zeros_are_left_out(client, fault):
    reply = client.chat("gemma4", asked(f"[[sim:{fault}]] x"))
    assert reply.done
    assert (reply.prompt_eval_count, reply.eval_count) == (None, None)


@pytest.mark.parametrize(
    ("path", "document", "words"),
    [
        ("chat", {"messages": []}, "model is required"),
        ("chat", {"model": "m", "messages": "x"}, "messages"),
        ("chat", {"model": "m", "messages": [{"role": "robot", "content": "x"}]}, "invalid role: robot"),
        ("chat", {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "array into Go struct field"),
        ("chat", {"model": "m", "messages": [{"role": "user", "content": "x", "images": ["data:image/png;base64,AA=="]}]}, "illegal base64"),
        ("chat", {"model": "m", "messages": asked("x"), "options": {"stop": "x"}}, 'option "stop" must be of type array'),
        ("chat", {"model": "m", "messages": asked("x"), "options": {"num_predict": "9"}}, 'option "num_predict" must be of type integer'),
        ("chat", {"model": "m", "messages": asked("x"), "options": {"temperature": "hot"}}, 'option "temperature"'),
        ("chat", {"model": "m", "messages": asked("x"), "format": "xml"}, "invalid format"),
        ("chat", {"model": "m", "messages": asked("x"), "think": "hard"}, "invalid think"),
        ("chat", {"model": "m", "messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]}, "arguments"),
        ("embed", {"model": "m", "input": [1]}, "invalid input type"),
        ("create", {"model": "m"}, "neither 'from' or 'files'"),
        ("show", {}, "model is required"),
    ],
)
def test_types_are_strict_as_gos_are(root, path, document, words):
    status, error = posted(f"{root}/api/{path}", document)
    assert status == 400
    assert words in error["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [("GET", "/", 200, b"Ollama is running"), ("HEAD", "/", 200, b""), ("GET", "/api/version", 200, b"version"), ("HEAD", "/api/tags", 200, b"")],
)
def test_health_checks(root, method, path, status, body):
    with urllib.request.urlopen(urllib.request.Request(root + path, method=method)) as reply:
        assert reply.status == status
        assert body in reply.read()


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/api/chat", 405), ("GET", "/api/pull", 405), ("GET", "/api/nothing", 404)])
def test_other_paths(root, method, path, status):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(root + path, method=method))
    with caught.value as error:
        assert error.code == status


def test_keys():
    with served(keys=frozenset({"k"})) as (url, simulator):
        root = url.removesuffix("/v1")
        with ollama.Client(host=root) as stranger:
            with pytest.raises(ollama.ResponseError) as caught:
                stranger.chat("m", asked("x"))
            assert caught.value.status_code == 401
            with pytest.raises(ollama.ResponseError):
                stranger.delete("sim-small")
        with ollama.Client(host=root, headers={"Authorization": "Bearer k"}) as known:
            assert known.chat("sim-small", asked("x")).message.content
        booked(simulator, 2)


def test_where_every_name_is_there_a_deleted_one_is_not():
    with served() as (url, _), ollama.Client(host=url.removesuffix("/v1")) as client:
        client.delete("any")
        with pytest.raises(ollama.ResponseError):
            client.chat("any:latest", asked("x"))
        client.pull("any")
        assert client.chat("any", asked("x")).message.content


@pytest.mark.parametrize(
    ("settings", "status", "words"),
    [({"concurrency": 1}, 503, "server busy, please try again."), ({"rpm": 60, "burst_seconds": 1}, 429, "please try again in 1s")],
)
def test_a_second_request_that_is_refused(settings, status, words):
    simulator = Simulator(Settings(**settings))
    call = HttpCall(url="http://sim/api/chat", body=json.dumps({"model": "m", "messages": asked("x")}))
    first, second = (simulator.receive(call, now=0, utc=0) for _ in range(2))
    assert (first.status, second.status) == (200, status)
    assert words in json.loads(second.body)["error"]
