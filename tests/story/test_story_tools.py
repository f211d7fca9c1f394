"""Functions of a program as tools, with real threads, processes and servers; and what a stranger gets wrong about them and about requests."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest
from story_world import Asked, Said, World, answer, stub

import batchllm

HANG_SECONDS = 0.2


def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


async def later(number: int) -> str:
    """The same number, later."""
    await asyncio.sleep(0.01)
    return f"{number} later"


def calls(*wanted: tuple[str, dict[str, Any]]) -> bytes:
    """A turn that calls."""
    body = json.loads(answer())
    body["choices"][0]["finish_reason"] = "tool_calls"
    body["choices"][0]["message"] |= {
        "content": None,
        "tool_calls": [
            {"id": f"c{place}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for place, (name, arguments) in enumerate(wanted)
        ],
    }
    return json.dumps(body).encode()


def model(url: str) -> dict[str, str]:
    return {"provider": "openai", "model": "gpt-6-luna", "base_url": url, "api_key_env": "none"}


def test_every_door_takes_functions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    heard: list[str] = []
    rows = [{"custom_id": str(n), "prompt": f"double {n}, please"} for n in range(3)]

    def reply(asked: Asked) -> Said:
        if asked.text.startswith("double"):
            return Said(body=calls(("double", {"number": int(asked.text.split()[1][0])})))
        heard.append(asked.text)
        return Said(body=answer(f"it is {asked.text}"))

    with stub(reply) as (url, _):
        keys = {"models": {"m": model(url)}, "request": {"max_tokens": 30}, "results": "none"}
        (tmp_path / "job.yaml").write_text(json.dumps({**keys, "name": "yaml"}))

        async def doors() -> None:
            assert (await batchllm.run_async("job.yaml", rows=rows, tools=[double])).rows.ok == 3
            async with batchllm.open(batchllm.Job(**keys, name="open"), rows=rows, tools=batchllm.Tools(double)) as session:
                assert [result.output async for result in session.stream()].count("it is 2") == 1
            assert {result.output async for result in batchllm.stream(rows, batchllm.Job(**keys, name="stream", tools=[double]))} == {
                "it is 0",
                "it is 2",
                "it is 4",
            }
            # A notebook: the run has a thread of its own.
            assert batchllm.run(batchllm.Job(**keys, name="run", tools=double), rows=rows).attempts == 6

        asyncio.run(doors())
        found = batchllm.map([row["prompt"] for row in rows], model(url), request={"max_tokens": 30}, tools=[double])
        assert [result.output for result in found] == ["it is 0", "it is 2", "it is 4"]
        assert sorted(heard) == sorted(["0", "2", "4"] * 5)
        job = batchllm.Job(**keys, name="run", tools=double)
        assert batchllm.run(job, rows=rows).attempts == 6  # nothing is sent again
        assert job.with_changes(concurrency=2).toolkit == job.toolkit == job.simulated().toolkit
        with pytest.raises(batchllm.SpecError, match="to `Job` or to the call, not to both"):
            batchllm.run(job, rows=rows, tools=[later])
        # Without its functions the job can't go on: new rows would end in calls that nobody makes.
        with pytest.raises(batchllm.SpecError, match="had functions of a program \\(double\\)"):
            batchllm.run(batchllm.Job(**keys | {"request": dict(job.request)}, name="run"), rows=rows)
        with pytest.raises(batchllm.SpecError, match="what is `x`"):
            batchllm.Job(**keys, tools=[lambda x: x, lookup])


def lookup(x): ...


def test_plain_functions_of_a_turn_run_side_by_side(tmp_path):
    meeting = threading.Barrier(2, timeout=20)

    def meet(name: str) -> str:
        """Waits for the other one."""
        meeting.wait()
        return name

    with stub(lambda asked: Said(body=answer() if asked.number > 1 else calls(("meet", {"name": "a"}), ("meet", {"name": "b"})))) as (url, asked):
        (result,) = batchllm.map(["x"], model(url), request={"max_tokens": 30}, tools=[meet])
    assert (result.output, asked[-1].text) == ("fine", "b")


HANGS = f"""
    import threading, sys
    import batchllm

    def hangs(word: str) -> str:
        threading.Event().wait()

    def exits(word: str) -> str:
        sys.exit(7)

    def late(word: str) -> str:
        raise TimeoutError("the database said so")

    tools = batchllm.Tools(hangs, exits, late, timeout_seconds={HANG_SECONDS})
    for result in batchllm.map(["hangs please", "exits please", "late please", "none"], "simulated", request={{"max_tokens": 30}}, tools=tools):
        print(result.ok, result.attempts, result.tool_calls)
"""


def test_a_function_that_hangs_or_exits_keeps_neither_its_row_nor_the_program(tmp_path):
    (tmp_path / "program.py").write_text(textwrap.dedent(HANGS))
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["True 2 None", "True 2 None", "True 2 None", "True 1 None"]
    assert time.monotonic() - began < 20
    told = sorted(line.partition(" (")[0] for line in ended.stderr.splitlines() if line.startswith("tool "))
    assert told == [
        "tool exits: SystemExit: 7",
        f"tool hangs: no result within {HANG_SECONDS} seconds",
        "tool late: TimeoutError: the database said so",
    ]


def test_hanging_threads_are_counted(monkeypatch):
    """Only so many may hang; what comes back late makes room again."""
    from batchllm.engine import tool_loop

    monkeypatch.setattr(tool_loop, "_THREADS", 2)
    free = threading.Event()

    def hangs(word: str) -> str:
        """Waits to be let go."""
        free.wait()
        return word

    told: list[str] = []

    def reply(asked: Asked) -> Said:
        if asked.text.startswith("{"):
            told.append(json.loads(asked.text)["error"])
        if "first" not in asked.text and asked.number < 5:
            return Said(body=calls(("hangs", {"word": "x"})))
        return Said(body=answer())

    with stub(reply) as (url, _):
        batchllm.map(["x"], model(url), request={"max_tokens": 30}, tools=batchllm.Tools(hangs, timeout_seconds=0.05))
    free.set()
    slow = "no result within 0.05 seconds"
    full = "earlier calls of tools never came back, so this one was not made"
    assert told == [slow, slow, full, full]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a slip": ({"request": {"max_token": 5}}, "request.max_token: no provider has a parameter 'max_token'; did you mean `max_tokens`?"),
    "tools that are none": ({"request": {"tools": [{"name": "f"}]}}, "request.tools.0: a tool is {type: function"),
    "arguments that are no schema": (
        {"request": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "strin"}}}]}},
        'request.tools.0.function.parameters: not a JSON Schema: at type: "strin" is no type',
    ),
    "a remote schema of arguments": (
        {"model": {"request": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "http://127.0.0.1:9/x"}}}]}}},
        "models.m.request.tools.0.function.parameters: `$ref: http://127.0.0.1:9/x` is not fetched",
    ),
    "a response_format that is no schema": (
        {"request": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"required": "a"}}}}},
        "request.response_format.json_schema.schema: not a JSON Schema: at required",
    ),
    "a schema that is none": ({"output": {"schema": {"type": "objekt"}}}, 'output.schema: not a JSON Schema: at type: "objekt" is no type'),
    "a remote schema": ({"output": {"schema": {"$ref": "https://example.org/s.json"}}}, "output.schema: `$ref: https://example.org/s.json` is not fetched"),
    "a route to nobody": ({"routes": [{"use": ["mm"]}]}, "routes.0.use.0: no model is called 'mm'; did you mean `m`?"),
    "an escalation to nobody": ({"output": {"schema": {"type": "object"}, "on_invalid": {"escalate": ["big"]}}}, "no model is called 'big'; there are: m"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_send_nothing(world: World, case: str) -> None:
    keys, words = WRONG[case]
    world.rows(2)
    world.job(None, **keys)
    ended = world.run("run", "job.yaml").expect(2)
    assert words in ended.err
    assert ended.err.startswith("error: job.yaml:"), "it has its line"
    assert world.left() == {"job.yaml", "rows.jsonl"}


def test_wrong_requests_of_rows_fail_alone(world: World) -> None:
    requests = [{"max_token": 5}, {"tools": "f"}, {"tools": [{"type": "function"}]}, {"tool_choice": 3}, {"max_tokens": 5}]
    world.write("rows.jsonl", "".join(json.dumps({"prompt": f"p{n}", "request": one}) + "\n" for n, one in enumerate(requests)))
    spec = {"input": "rows.jsonl", "models": {"m": {"provider": "simulated"}}}
    world.write("job.yaml", json.dumps(spec))
    world.run("run", "job.yaml").expect(1)
    assert [line["error"]["message"].partition(": ")[2] if line["error"] else "ok" for line in world.results()] == [
        "request.max_token: no provider has a parameter 'max_token'; did you mean `max_tokens`? (One that is meant goes under a model's `body`.)",
        "request.tools: expected a list of tools, got 'f'",
        "request.tools.0: a tool needs a `name`",
        "request.tool_choice: expected auto, none, required, or {type: function, function: {name: ...}}, got 3",
        "ok",
    ]
    assert {line["error"]["code"] for line in world.results() if line["error"]} == {"bad_row"}
