"""Functions that models call: turns are attempts, calls of a turn run side by side, and whatever a function does, its row goes on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from world import Scripted, World, bad, good

from batchllm.admit import Closed
from batchllm.api.tools import Tools
from batchllm.core.errors import SpecError
from batchllm.core.nouns import Reply, Request
from batchllm.core.secret import Scrubber
from batchllm.engine.stop import Stop, Stopper
from batchllm.engine.tool_loop import ToolLoop

KEY = "sk-0123456789abcdef"


class Says(Scripted):
    """Gives these replies in order, the last one for ever; keeps the bodies it was sent. A list is a turn of calls, each (name, arguments)."""

    def __init__(self, *replies: Any) -> None:
        self.bodies: list[dict[str, Any]] = []
        super().__init__(lambda nth, text, now: (0.1, _reply(replies[min(nth, len(replies) - 1)], nth)))

    async def send(self, call, *, timeout_seconds):
        self.bodies.append(json.loads(call.body))
        return await super().send(call, timeout_seconds=timeout_seconds)


def _reply(said: Any, nth: int) -> Any:
    if isinstance(said, list):
        calls = [
            {"id": f"c{nth}{place}", "type": "function", "function": {"name": name, "arguments": arguments}, "extra_content": {"signature": nth}}
            for place, (name, arguments) in enumerate(said)
        ]
        return good(choices=[{"index": 0, "message": {"role": "assistant", "content": "hm", "tool_calls": calls}, "finish_reason": "tool_calls"}])
    return good(said) if isinstance(said, str) else said


async def slow(word: str) -> str:
    """Says it again, slowly."""
    await asyncio.sleep(10)
    return f"{word}, {word}"


def length(word: str) -> dict[str, int]:
    """Counts letters."""
    return {"letters": len(word)}


def fails(word: str) -> str:
    """Always fails."""
    raise RuntimeError(f"no {word} with {KEY}")


async def hangs(word: str) -> str:
    """Never answers."""
    await asyncio.Event().wait()
    return word


async def stubborn(word: str) -> str:
    """Can't be cancelled for an hour."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(3600)
    return word


async def gives_up(word: str) -> str:
    """Cancels itself."""
    raise asyncio.CancelledError(word)


def odd(word: str) -> object:
    """Returns what no JSON holds."""
    return object() if word == "a" else "\ud800"


KIT = Tools(slow, length, fails, hangs, stubborn, gives_up, odd, turns=4, timeout_seconds=30)


def equipped(world: Any, says: Scripted, kit: Any = KIT, count: int = 1, request: dict[str, Any] | None = None, **keys: Any) -> World:
    request = {"max_tokens": 20, "tools": kit.declarations, **(request or {})}
    return world(count, scripts={"m": says}, toolkit=kit, request=request, **keys)


def told(w: World) -> list[tuple[str, str, int]]:
    return w.sql("SELECT kind, outcome, counted FROM attempts ORDER BY attempt_id")


def answers(says: Says, body: int = 1) -> list[str]:
    """What the model was told about its calls."""
    return [message["content"] for message in says.bodies[body]["messages"] if message["role"] == "tool"]


def test_calls_of_a_turn_run_side_by_side_and_their_results_go_back(world):
    says = Says([("slow", '{"word": "a"}'), ("slow", '{"word": "b"}'), ("length", '{"word": "abc"}')], [("length", '{"word": "x"}')], "three")
    w = equipped(world, says)
    assert w.run().exit_code == 0
    assert w.elapsed < 15
    first, second, third = (body["messages"] for body in says.bodies)
    assert second[: len(first)] == first
    said, *results = second[len(first) :]
    assert (said["role"], said["content"]) == ("assistant", "hm")
    # Unchanged: a call may carry the signature of the model's thoughts.
    assert [call["extra_content"] for call in said["tool_calls"]] == [{"signature": 0}] * 3
    assert [(result["role"], result["tool_call_id"], result["content"]) for result in results] == [
        ("tool", "c00", "a, a"),
        ("tool", "c01", "b, b"),
        ("tool", "c02", '{"letters":3}'),
    ]
    assert third[: len(second)] == second
    assert told(w) == [("first", "ok", 0), ("turn", "ok", 0), ("turn", "ok", 0)]
    (line,) = w.results()
    assert (line["output"], line["tool_calls"], line["finish_reason"], line["attempts"]) == ("three", None, "stop", 3)
    assert line["usage"]["input_tokens"] == 10
    assert line["cost_usd"] == pytest.approx(3 * 20e-6)
    # The row's fingerprint is that of its first request: nothing is sent again.
    assert w.run().attempts == 3


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("lenght", '{"word": "a"}', "there is no tool 'lenght'; there are: slow, length, fails, hangs, stubborn, gives_up, odd"),
        ("length", '{"wort": "a"}', "invalid arguments: word: Field required; wort: Extra inputs are not permitted"),
        ("length", "[1]", "invalid arguments: arguments: Input should be an object"),
        ("length", '{"word": ', "invalid arguments: arguments: Invalid JSON"),
        ("length", "", "invalid arguments: word: Field required"),
        ("fails", '{"word": "a"}', "RuntimeError: no a with "),
        ("hangs", '{"word": "a"}', "no result within 30 seconds"),
        ("stubborn", '{"word": "a"}', "no result within 30 seconds"),
        ("gives_up", '{"word": "a"}', "the call was cancelled"),
        ("odd", '{"word": "a"}', "TypeError: the tool's result can't be written as JSON"),
    ],
)
def test_whatever_goes_wrong_is_told_to_the_model(world, name, arguments, words):
    says = Says([(name, arguments)], "well")
    w = equipped(world, says)
    assert w.run().exit_code == 0
    (error,) = answers(says)
    assert json.loads(error)["error"].startswith(words)
    assert "Traceback" not in error
    assert w.results()[0]["output"] == "well"
    # Arguments that are no object would be refused by other wires, and by some servers of this one.
    assert isinstance(json.loads(says.bodies[1]["messages"][-2]["tool_calls"][0]["function"]["arguments"]), dict)
    assert len([note for note in w.notes if note.text.startswith(f"tool {name}: ")]) == (name in {"fails", "hangs", "stubborn", "gives_up", "odd"})
    assert w.elapsed < 40


def test_a_result_that_is_no_unicode_is_sent_all_the_same(world):
    says = Says([("odd", '{"word": "b"}')], "well")
    assert equipped(world, says).run().exit_code == 0
    assert answers(says) == ["?"]


def test_secrets_of_the_run_never_reach_the_model_in_an_error():
    async def main() -> Request:
        loop = ToolLoop(KIT, scrubber=Scrubber([KEY]), stopper=Stopper(), listener=heard.append, inline=True)
        call = {"id": "1", "type": "function", "function": {"name": "fails", "arguments": '{"word": "a"}'}}
        reply = Reply(text=None, finish="tool", finish_raw="tool_calls", usage=None, tool_calls=(call, {**call, "id": ""}))
        return await loop.next(Bare(), Bare(), Request(endpoint="chat", messages=(), params={}), reply)

    heard: list[Any] = []
    request = asyncio.run(main())
    assert [message.get("tool_call_id") for message in request.messages] == [None, "1", "call_2"]
    assert KEY not in str(request)
    assert "[secret]" in request.messages[1]["content"]
    # Said once, however often it happens.
    assert [KEY in note.text for note in heard] == [False]


class Bare:
    """A lane and a run, as far as the loop needs them."""

    parked = 0

    def spawn(self, lane):
        assert lane is not None


def test_turns_are_bounded_and_the_last_text_is_kept(world):
    says = Says([("length", '{"word": "a"}')])
    w = equipped(world, says)
    assert w.run().exit_code == 1
    assert told(w) == [("first", "ok", 0), ("turn", "ok", 0), ("turn", "ok", 0), ("turn", "tool_turns", 1)]
    (line,) = w.results()
    assert (line["error"]["code"], line["output"], line["attempts"]) == ("tool_turns", "hm", 4)
    assert "turn 4 of 4" in line["error"]["message"]
    assert line["cost_usd"] == pytest.approx(4 * 20e-6)


def test_a_stronger_model_may_know_when_to_stop(world):
    cheap, strong = Says([("length", '{"word": "a"}')]), Says([("length", '{"word": "b"}')], "done")
    keys = {"routes": [{"use": "cheap"}], "output": {"on_invalid": {"escalate": ["strong"]}}}
    request = {"max_tokens": 20, "tools": KIT.declarations}
    w = world(1, scripts={"cheap": cheap, "strong": strong}, toolkit=KIT, request=request, **keys)
    assert w.run().exit_code == 0
    assert [len(body["messages"]) for body in strong.bodies] == [1, 3]  # it begins with the row, not with the other's turns
    assert [kind for kind, _, _ in told(w)][-2:] == ["escalation", "turn"]


def test_the_schema_is_for_the_last_answer(world):
    says = Says([("length", '{"word": "a"}')], "no JSON", '{"n": 1}')
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    w = equipped(world, says, output={"schema": schema})
    assert w.run().exit_code == 0
    assert told(w) == [("first", "ok", 0), ("turn", "invalid_output", 1), ("repair", "ok", 0)]
    assert w.results()[0]["parsed"] == {"n": 1}
    assert [message["role"] for message in says.bodies[2]["messages"]] == ["user", "assistant", "tool", "assistant", "user"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "length"}}])
def test_a_forced_call_is_forced_once(world, choice):
    says = Says([("length", '{"word": "a"}')], "done")
    w = equipped(world, says, request={"tool_choice": choice})
    assert w.run().exit_code == 0
    assert [body["tool_choice"] for body in says.bodies] == [choice, "auto"]


def test_tools_that_only_the_request_declares_come_back_as_calls(world):
    mine = {"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}
    says = Says([("length", '{"word": "a"}')], [("mine", "{}")])
    w = equipped(world, says, request={"tools": [*KIT.declarations, mine]})
    assert w.run().exit_code == 0
    (line,) = w.results()
    assert [call["function"]["name"] for call in line["tool_calls"]] == ["mine"]
    assert (line["finish_reason"], line["attempts"]) == ("tool_calls", 2)


def test_a_refusal_and_a_fault_inside_the_loop_are_tried_again(world):
    says = Says([("length", '{"word": "a"}')], bad(429, "rate_limit_exceeded", retry_after="2"), bad(500), "done")
    w = equipped(world, says)
    assert w.run().exit_code == 0
    assert told(w) == [("first", "ok", 0), ("turn", "rate_limited", 0), ("retry", "unavailable", 1), ("retry", "ok", 0)]
    assert len({json.dumps(body["messages"]) for body in says.bodies[1:]}) == 1


def test_each_turn_is_reserved_before_it_is_sent(world, tmp_path):
    """A cap with room for the longer second request alone, but not beside what the first one cost: nothing is sent above it, and the row waits."""
    turn = [("length", json.dumps({"word": "x" * 40}))]
    (free := World(tmp_path, 1, scripts={"m": Says(turn, "done")}, toolkit=KIT, request={"max_tokens": 20, "tools": KIT.declarations})).run()
    (first,), (second,) = free.sql("SELECT reserved_usd FROM attempts ORDER BY attempt_id")
    assert second > first
    says = Says(turn, turn, "done")
    w = equipped(world, says, budget={"usd": second}, name="u")
    summary = w.run()
    assert (summary.exit_code, summary.rows.pending, len(says.bodies)) == (3, 1, 1)
    # With more room the row begins anew, and its first turn was paid for.
    assert w.run(budget={"usd": 1}).attempts == 3


def test_a_run_that_stops_waits_for_no_function(world):
    turn = [("slow", '{"word": "a"}')]
    says = Says(turn, turn, "done")
    w = equipped(world, says)

    async def main() -> Any:
        async def started(control: Any) -> None:
            asyncio.get_running_loop().call_later(3, lambda: control.stop(message="enough", stopped_by="interrupt"))

        return await w.go(on_start=started)

    summary = w.play(main)
    assert (summary.exit_code, summary.rows.pending) == (130, 1)
    assert w.elapsed < 5
    assert w.run().exit_code == 0
    # What was cut begins anew: its turns are paid for and its functions called once more.
    assert [kind for kind, _, _ in told(w)] == ["first", "retry", "turn"]


def test_rows_whose_functions_take_long_leave_their_places_to_others(world):
    says = Says([("slow", '{"word": "a"}')])
    script = Scripted(lambda nth, text, now: (0.1, _reply([("slow", '{"word": "a"}')] if text.startswith("row") else "done", nth)))
    w = equipped(world, script, count=20, models={"m": {"limits": {"concurrency": 4}}})
    assert says.bodies == []
    assert w.run().exit_code == 0
    assert script.most_in_flight == 4
    assert w.elapsed < 20  # one after another in four places they would take 50 s


def test_another_body_of_a_function_re_runs_nothing_and_another_signature_does(world):
    def length(word: str) -> int:
        """Counts letters."""
        return -len(word)

    says = Says("done")
    w = equipped(world, says, kit=Tools(globals()["length"]))
    w.run()
    w.toolkit = Tools(length)
    assert w.toolkit.declarations == Tools(globals()["length"]).declarations
    assert w.run().attempts == 1

    def length(word: str, most: int = 5) -> int:
        """Counts letters."""
        return min(most, len(word))

    w.toolkit = Tools(length)
    request = {"max_tokens": 20, "tools": w.toolkit.declarations}
    with pytest.raises(SpecError, match="changed"):
        w.run(request=request)
    assert w.run(request=request, on_change="rerun").attempts == 2


def test_equal_rows_are_asked_for_themselves_where_functions_answer(world):
    says = Says("done")
    listed = [{"custom_id": f"r{i}", "text": "same"} for i in range(3)]
    w = equipped(world, says, count=listed, request={"temperature": 0})
    w.run()
    assert len(says.bodies) == 3
    assert equipped(world, says, count=listed, dedupe=True, name="u", results="none").run().attempts == 1


def test_rows_may_hold_whole_conversations(world):
    call = {"id": "c9", "type": "function", "function": {"name": "length", "arguments": '{"word": "a"}'}}
    talk = [
        {"role": "user", "content": "How long is a?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c9", "content": "1"},
    ]
    says = Says("one")
    w = equipped(world, says, count=[{"custom_id": "a", "messages": talk}], prompt=None)
    assert w.run().exit_code == 0
    assert says.bodies[0]["messages"] == talk


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "ollama", "openai-compatible"])
@pytest.mark.parametrize("stream", [False, True])
def test_on_every_wire(world, provider, stream):
    """The simulated model calls what the last message names, and answers in words afterwards."""
    listed = [{"custom_id": f"r{i}", "text": f"use length on this {i}"} for i in range(3)]
    url = {"base_url": "http://simulator.invalid/v1"} if provider == "openai-compatible" else {}
    key = {} if provider == "ollama" else {"api_key_file": "key.txt"}
    models = {"m": {"provider": provider, "model": "claude-haiku-4-5" if provider == "anthropic" else "gemini-3.8-flash", **key, **url}}
    w = world(
        listed, sims={"m": {}}, models=models, toolkit=KIT, request={"max_tokens": 100, "tools": KIT.declarations}, stream=stream, prompt="{{ text }}"
    )
    (w.folder / "key.txt").write_text(KEY)
    assert w.run().exit_code == 0
    assert sorted(kind for kind, _, _ in told(w)) == ["first"] * 3 + ["turn"] * 3
    assert all(line["output"] and line["tool_calls"] is None for line in w.results())
    assert not [note.text for note in w.notes if note.text.startswith("tool ")]


def test_responses_too(world):
    models = {"m": {"provider": "openai", "model": "gpt-6-luna", "api_key_file": "key.txt"}}
    listed = [{"custom_id": "a", "text": "use length"}]
    w = world(listed, sims={"m": {}}, models=models, toolkit=KIT, request={"max_tokens": 100, "tools": KIT.declarations}, endpoint="responses")
    (w.folder / "key.txt").write_text(KEY)
    assert w.run().exit_code == 0
    assert [kind for kind, _, _ in told(w)] == ["first", "turn"]


def test_a_stop_before_the_calls_makes_none():
    made: list[str] = []

    async def notes(word: str) -> None:
        made.append(word)

    async def main() -> None:
        stopper = Stopper()
        stopper.set(Stop(exit_code=130, stopped_by="interrupt", message="x"))
        loop = ToolLoop(Tools(notes), scrubber=Scrubber(), stopper=stopper, listener=lambda _: None, inline=True)
        call = {"id": "1", "type": "function", "function": {"name": "notes", "arguments": '{"word": "a"}'}}
        reply = Reply(text=None, finish="tool", finish_raw="tool_calls", usage=None, tool_calls=(call,))
        await loop.next(Bare(), Bare(), Request(endpoint="chat", messages=(), params={}), reply)

    with pytest.raises(Closed):
        asyncio.run(main())
    assert made == []


def test_a_crash_between_two_turns_owes_nothing_and_begins_the_row_anew(world, tmp_path):
    turn = [("slow", '{"word": "a"}')]
    w = equipped(world, Says(turn, "done"), count=2)
    other = tmp_path / "other"

    async def main() -> Any:
        async def started(_: Any) -> None:
            asyncio.get_running_loop().call_later(3, lambda: w.image(other))

        return await w.go(on_start=started)

    assert w.play(main).exit_code == 0
    says = Says(turn, "done")
    after = World(other, 2, scripts={"m": says}, toolkit=KIT, request={"max_tokens": 20, "tools": KIT.declarations}, input=str(w.folder / "in.jsonl"))
    assert told(after)[0] == ("first", "ok", 0)
    summary = after.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 2)
    assert after.sql("SELECT count(*) FROM attempts WHERE billed = 'maybe'") == [(0,)]
    assert [line["output"] for line in after.results()] == [line["output"] for line in w.results()]
    assert [line["attempts"] for line in after.results()] == [3, 1]
