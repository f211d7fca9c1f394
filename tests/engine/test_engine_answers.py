"""Answers that must have a form: read, checked, asked for again with the error shown, escalated - and every one of them paid for once."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from world import Scripted, World, bad, good, rows

from batchllm.core.errors import SpecError

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
GOOD = '{"name": "x", "age": 3}'
BAD = '{"name": "x", "age": "three"}'
CUT = {"index": 0, "message": {"role": "assistant", "content": '{"name": "x", "a'}, "finish_reason": "length"}
REFUSAL = {"index": 0, "message": {"role": "assistant", "content": None, "refusal": "I won't."}, "finish_reason": "stop"}


class Says(Scripted):
    """Gives these replies in order, the last one for ever; keeps the bodies it was sent."""

    def __init__(self, *replies: Any) -> None:
        self.bodies: list[dict[str, Any]] = []
        super().__init__(lambda nth, text, now: (0.1, _reply(replies[min(nth, len(replies) - 1)])))

    async def send(self, call, *, timeout_seconds):
        self.bodies.append(json.loads(call.body))
        return await super().send(call, timeout_seconds=timeout_seconds)


def _reply(said: Any) -> Any:
    return good(said) if isinstance(said, str) else good(choices=[said]) if isinstance(said, dict) else said


def told(w: World) -> list[tuple[str, str, str, int]]:
    return w.sql("SELECT kind, model, outcome, counted FROM attempts ORDER BY attempt_id")


def test_a_schema_is_asked_for_and_the_answer_is_read(world):
    says = Says(f"Sure:\n```json\n{GOOD}\n```")
    w = world(1, scripts={"m": says}, output={"schema": SCHEMA})
    assert w.run().exit_code == 0
    (line,) = w.results()
    assert (line["parsed"], line["output"], line["attempts"]) == ({"name": "x", "age": 3}, f"Sure:\n```json\n{GOOD}\n```", 1)
    form = says.bodies[0]["response_format"]
    assert form == {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
    assert w.sql("SELECT custom_id, name, age FROM answers") == [("r0", "x", 3)]


def test_a_repair_shows_the_model_its_answer_and_the_error(world):
    says = Says(BAD, "no", GOOD)
    w = world(1, scripts={"m": says}, output={"schema": SCHEMA})
    assert w.run().exit_code == 0
    assert told(w) == [("first", "m", "invalid_output", 1), ("repair", "m", "invalid_output", 1), ("repair", "m", "ok", 0)]
    base, second, third = (body["messages"] for body in says.bodies)
    assert second[: len(base)] == base
    assert second[len(base)] == {"role": "assistant", "content": BAD}
    assert '$.age: "three" is not of type "integer" (type)' in second[-1]["content"]
    assert third[: len(second)] == second
    assert [message["role"] for message in third[-2:]] == ["assistant", "user"]
    # The row's usage is the accepted attempt's, its cost that of all three, and its fingerprint that of the row, not of the repair.
    (line,) = w.results()
    assert line["usage"]["input_tokens"] == 10
    assert line["cost_usd"] == pytest.approx(3 * 20e-6)
    assert w.run().attempts == 3
    assert w.run(budget={"usd": 5}).attempts == 3


@pytest.mark.parametrize(
    ("on_invalid", "expected"),
    [
        (None, ["first", "repair", "repair"]),
        ({}, ["first", "repair", "repair"]),
        ({"retries": 1}, ["first", "repair"]),
        ({"retries": 0}, ["first"]),
        ({"retries": 2, "repair": False}, ["first", "retry", "retry"]),
        ({"retries": 50}, ["first", *["repair"] * 7]),  # max_attempts bounds it
    ],
)
def test_an_answer_that_stays_invalid_fails_the_row_with_the_last_error_and_text(world, on_invalid, expected):
    w = world(1, scripts={"m": Says("one", "two", "three")}, output={"schema": SCHEMA, "on_invalid": on_invalid})
    summary = w.run()
    assert (summary.exit_code, summary.errors) == (1, {"invalid_output": 1})
    assert [kind for kind, *_ in told(w)] == expected
    (line,) = w.results()
    last = ["one", "two", "three"][min(len(expected), 3) - 1]
    assert (line["output"], line["parsed"]) == (last, None)
    error = line["error"]
    assert error["message"].startswith("not JSON (")
    assert error["message"].endswith(f"it begins with {last!r}")
    assert (error["code"], error["http_status"], error["retryable"]) == ("invalid_output", 200, True)
    # It is left alone, and comes again when it is asked for.
    assert w.run().attempts == len(expected)


@pytest.mark.parametrize(
    ("cheap", "output", "cheap_attempts"),
    [
        (["bad"], {"schema": SCHEMA, "on_invalid": {"retries": 1, "escalate": ["strong"]}}, ["first", "repair"]),
        ([REFUSAL], {"schema": SCHEMA, "on_invalid": {"escalate": "strong"}}, ["first"]),
        ([REFUSAL], {"on_invalid": {"escalate": "strong"}}, ["first"]),
        ([CUT], {"schema": SCHEMA, "on_invalid": {"escalate": "strong"}}, ["first"]),
        ([CUT], {"on_length": "fail", "on_invalid": {"escalate": "strong"}}, ["first"]),
        (
            ['{"name": "", "age": 3}'],
            {"schema": SCHEMA, "check": "parsed.name | length > 0", "on_invalid": {"retries": 0, "escalate": "strong"}},
            ["first"],
        ),
    ],
)
def test_what_is_not_good_enough_escalates(world, cheap, output, cheap_attempts):
    strong = Says(BAD, GOOD) if "schema" in output else Says(GOOD)
    if output["on_invalid"].get("retries") == 0:
        strong = Says(GOOD)
    w = world(1, scripts={"cheap": Says(*cheap), "spare": Says("never asked"), "strong": strong}, routes=[{"use": ["cheap", "spare"]}], output=output)
    assert w.run().exit_code == 0
    kinds = [(kind, model) for kind, model, *_ in told(w)]
    repaired = [("repair", "strong")] if len(strong.bodies) == 2 else []
    assert kinds == [*[(kind, "cheap") for kind in cheap_attempts], ("escalation", "strong"), *repaired]
    # The stronger model starts from the row's own request.
    assert len(strong.bodies[0]["messages"]) == 1
    assert w.results()[0]["model"] == "strong"
    # And its answer stands in a later run that looks at everything.
    before = w.sql("SELECT count(*) FROM attempt_log")
    assert w.run(budget={"usd": 5}).exit_code == 0
    assert w.sql("SELECT count(*) FROM attempt_log") == before


def test_without_a_ladder_an_invalid_answer_goes_down_the_chain(world):
    w = world(1, scripts={"a": Says("no"), "b": Says(GOOD)}, routes=[{"use": ["a", "b"]}], output={"schema": SCHEMA, "on_invalid": {"retries": 0}})
    assert w.run().exit_code == 0
    assert [(kind, model) for kind, model, *_ in told(w)] == [("first", "a"), ("fallback", "b")]


def test_a_model_that_was_only_down_is_still_a_step_of_the_ladder(world):
    strong = Scripted(lambda nth, text, now: (0.1, good(GOOD) if now > 30 else bad(503)))
    output = {"schema": SCHEMA, "on_invalid": {"retries": 0, "escalate": ["strong"]}}
    scripts = {"strong": strong, "weak": Says("no")}
    w = world(1, scripts=scripts, routes=[{"use": ["strong", "weak"]}], output=output, retry={"on_outage": "fallback"})
    assert w.run().exit_code == 0
    assert {model for _, model, *_ in told(w)} == {"strong", "weak"}
    assert w.results()[0]["model"] == "strong"


def test_a_ladder_that_is_climbed_to_its_end_fails_the_row(world):
    scripts = {name: Says(f"no {name}") for name in "abc"}
    output = {"schema": SCHEMA, "on_invalid": {"retries": 0, "escalate": ["a", "b", "c"]}}
    w = world(1, scripts=scripts, routes=[{"use": "a"}], output=output)
    assert w.run().exit_code == 1
    assert [(kind, model) for kind, model, *_ in told(w)] == [("first", "a"), ("escalation", "b"), ("escalation", "c")]
    assert (w.results()[0]["model"], w.results()[0]["output"]) == ("c", "no c")


def test_choices(world):
    says = Says('{"label": "good"}', "Bad.", '{"label": "unsure"}', "bad")
    w = world(3, scripts={"m": says}, concurrency=1, output={"choices": ["good", "bad"]})
    assert w.run().exit_code == 0
    assert [line["parsed"] for line in w.results()] == ["good", "bad", "bad"]
    assert says.bodies[0]["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"] == ["good", "bad"]
    assert w.sql("SELECT custom_id, label FROM answers ORDER BY row") == [("r0", "good"), ("r1", "bad"), ("r2", "bad")]
    assert "is not one of good, bad (enum)" in says.bodies[3]["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("check", "ok"),
    [
        ("parsed.age > 2", True),
        ("parsed.age > row.limit", False),
        ("row.limit == 5 and output | length > 3", True),
        ("parsed.name > 3", False),  # can't be judged: not true
        ("row.nothing == null", True),
    ],
)
def test_checks(world, check, ok):
    w = world(
        [{"custom_id": "a", "text": "t", "limit": 5}],
        scripts={"m": Says(GOOD)},
        output={"schema": SCHEMA, "check": check, "on_invalid": {"retries": 0}},
    )
    assert w.run().exit_code == (0 if ok else 1)
    if not ok:
        assert "the check" in w.results()[0]["error"]["message"]


def test_a_check_alone_needs_no_schema(world):
    says = Says("too short", "long enough to pass")
    w = world(1, scripts={"m": says}, output={"check": "output | length > 10"})
    assert w.run().exit_code == 0
    assert "response_format" not in says.bodies[0]
    assert says.bodies[1]["messages"][-1]["content"].startswith("This answer is not valid: the check `output | length > 10` is not true")
    assert (w.results()[0]["parsed"], w.sql("SELECT output FROM answers")) == (None, [("long enough to pass",)])


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"schema": {"type": "nope"}}, "output.schema: not a JSON Schema: at type"),
        ({"schema": {"$ref": "http://127.0.0.1:1/x.json"}}, "output.schema: `$ref: http://127.0.0.1:1/x.json` is not fetched"),
        ({"schema": "none.json"}, "output.schema: no such file: none.json"),
        ({"schema": {}}, "output.schema: an empty schema"),
        ({"schema": SCHEMA, "choices": ["a"]}, "output.choices: give either"),
        ({"choices": []}, "output.choices: must not be empty"),
        ({"choices": ["a", "a"]}, "output.choices: 'a' is listed twice"),
        ({"check": "parsed.x >"}, "output.check: 'parsed.x >': ends where"),
        ({"check": "lang == 'fr'"}, "output.check: \"lang == 'fr'\": there is no 'lang' here; there are output, parsed, row (character 1)"),
        ({"check": "tokens > 3"}, "there is no 'tokens' here"),
        ({"on_invalid": {"retries": 3}}, "output.on_invalid.retries: without `schema`, `choices` or `check`"),
        ({"schema": SCHEMA, "on_invalid": {"escalate": ["mm"]}}, "output.on_invalid.escalate.0: no model is called 'mm'; did you mean `m`?"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(world, output, words):
    w = world(1, output=output)
    with pytest.raises(SpecError) as caught:
        w.run()
    assert words in str(caught.value)
    assert not (w.folder / "t.db").exists()


def test_embeddings_have_nothing_to_check(world):
    with pytest.raises(SpecError, match="an embedding is a list of numbers"):
        world(1, endpoint="embeddings", output={"schema": SCHEMA}).run()


def test_a_cut_answer_is_asked_for_with_a_larger_cap_up_to_the_documented_one(world):
    says = Says(CUT, CUT, GOOD)
    w = world(1, scripts={"m": says}, request={"max_tokens": 1500}, output={"schema": SCHEMA, "on_length": "retry"}, budget={"usd": 1})
    assert w.run().exit_code == 0
    assert [body["max_tokens"] for body in says.bodies] == [1500, 3000, 4096]
    assert told(w) == [("first", "m", "truncated", 1), ("retry", "m", "truncated", 1), ("retry", "m", "ok", 0)]
    # Reserved anew: each attempt's bound is that of its own cap.
    reserved = [pico for (pico,) in w.sql("SELECT reserved_pico FROM attempt_log ORDER BY attempt_id")]
    assert [b - a for a, b in pairwise(reserved)] == [2 * 1500 * 10**6, 2 * 1096 * 10**6]
    w = World(_new(w.folder), 1, scripts={"m": Says(CUT)}, request={"max_tokens": 1500}, output={"schema": SCHEMA, "on_length": "retry"})
    assert w.run().errors == {"truncated": 1}
    assert w.results()[0]["attempts"] == 3


def test_a_larger_cap_that_the_server_refuses_leaves_the_row_truncated(world):
    w = world(1, scripts={"m": Says(CUT, bad(400, "invalid_value", "max_tokens is too large"))}, output={"on_length": "retry"})
    assert w.run().errors == {"truncated": 1}
    assert [outcome for _, _, outcome, _ in told(w)] == ["truncated", "rejected"]


@pytest.mark.parametrize(("on_length", "exit_code"), [("ok", 0), ("fail", 1)])
def test_without_a_form_a_cut_answer_follows_on_length_and_with_one_it_is_never_ok(world, on_length, exit_code):
    w = world(1, scripts={"m": Says(CUT)}, output={"on_length": on_length})
    assert w.run().exit_code == exit_code
    w = World(_new(w.folder), 1, scripts={"m": Says(CUT)}, output={"on_length": on_length, "schema": {"type": "string"}})
    assert w.run().errors == {"truncated": 1}


def _new(folder: Path) -> Path:
    (folder / "more").mkdir()
    return folder / "more"


def test_a_changed_schema_is_noticed_also_in_its_own_file_and_a_changed_check_asks_nothing_again(world):
    w = world(2, scripts={"m": Says(GOOD)}, output={"schema": "s.json"})
    (w.folder / "s.json").write_text(json.dumps(SCHEMA))
    assert w.run().exit_code == 0
    assert w.run(output={"schema": "s.json", "check": "parsed.age > 1", "on_invalid": {"retries": 5}}).attempts == 2
    assert w.run().attempts == 2
    (w.folder / "s.json").write_text(json.dumps({**SCHEMA, "description": "another"}))
    with pytest.raises(SpecError, match="2 answered rows now ask something else"):
        w.run(ask="refuse")
    assert w.run(ask="rerun").attempts == 4
    # The view follows the schema.
    smaller = {"type": "object", "properties": {"Age": {}, "age": {}, "custom_id": {}, 'it\'s "odd"': {}}}
    assert w.run(output={"schema": smaller}, on_change="rerun").exit_code == 0
    with sqlite3.connect(w.folder / "t.db") as connection:
        names = [column[0] for column in connection.execute("SELECT * FROM answers").description]
    connection.close()
    assert names == ["row_key", "row", "custom_id", "model", "Age", "age_2", "custom_id_2", 'it\'s "odd"']
    assert w.sql("SELECT Age, age_2 FROM answers") == [(None, 3), (None, 3)]


def test_a_response_format_of_the_spec_wins_and_null_takes_it_away(world):
    says = Says("no", GOOD)
    w = world(1, scripts={"m": says}, models={"m": {"request": {"response_format": None}}}, output={"schema": SCHEMA})
    assert w.run().exit_code == 0
    assert "response_format" not in says.bodies[0]
    # Then the repair says what it is about.
    assert json.dumps(SCHEMA, separators=(",", ":")) in says.bodies[1]["messages"][-1]["content"]


def test_tool_calls_are_no_answers_yet(world):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    reply = {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    w = world(1, scripts={"m": Says(reply)}, output={"schema": SCHEMA}, request={"tools": [tool]})
    assert w.run().exit_code == 0
    assert (w.results()[0]["parsed"], w.results()[0]["tool_calls"]) == (None, [call])


def test_the_call_of_a_tool_that_nobody_offered_is_no_answer(world):
    call = {"id": "c", "type": "function", "function": {"name": "json", "arguments": "{}"}}
    reply = {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}
    w = world(1, scripts={"m": Says(reply, GOOD)}, output={"schema": SCHEMA})
    assert w.run().exit_code == 0
    assert w.results()[0]["parsed"] == {"name": "x", "age": 3}
    assert [outcome for _, _, outcome, _ in told(w)] == ["invalid_output", "ok"]


def test_equal_invalid_answers_at_the_start_stop_the_run(world):
    w = world(60, scripts={"m": Says("no")}, concurrency=4, output={"schema": SCHEMA, "on_invalid": {"retries": 0}})
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by) == (4, "provider")
    assert summary.rows.failed == 0


def test_many_deaths_end_in_the_results_of_one_life(tmp_path):
    """Guarantee 1 with repairs and escalations: answers are those of an uninterrupted run, and what was committed is never asked for again."""
    kinds = ["", "[[sim:schema_violation]]", "[[sim:bad_json]]", "[[sim:length]]", "[[sim:refusal]]"]
    listed = [{"custom_id": f"r{i}", "text": f"row {i} {kinds[i % 7] if i % 7 < 5 else ''}"} for i in range(120)]
    keys: dict[str, Any] = {
        "sims": {"cheap": {"latency_ms": 200.0, "latency_sigma": 0.5}, "strong": {"latency_ms": 250.0, "seed": 9}},
        "routes": [{"use": "cheap"}],
        "concurrency": 5,
        "request": {"max_tokens": 200},
        "output": {"schema": SCHEMA, "check": "parsed.age % 3 != 0", "on_invalid": {"retries": 1, "escalate": ["strong"]}},
        "max_failed": 120,
    }
    w = World(_new(tmp_path), listed, **keys)
    whole = World(_new(w.folder), listed, **{**keys, "input": str(w.folder / "in.jsonl")})
    assert whole.run().exit_code == 0
    done: list[int] = []
    for life in range(1, 40):
        arrived = {record.request_id for name in w.sims for record in w.records(name)}

        async def live(life: int = life) -> bool:
            task = asyncio.ensure_future(w.go())
            await asyncio.wait([task], timeout=1.3 + life % 3)
            if task.done():
                task.result()
                return False
            w.image(tmp_path / str(life))
            task.cancel()
            await asyncio.wait([task])
            return True

        cut = w.play(live)
        later = [record.client_request_id for name in w.sims for record in w.records(name) if record.request_id not in arrived]
        assert not {int(name.split(".")[1]) for name in later} & set(done)
        if not cut:
            break
        w.folder = tmp_path / str(life)
        done = [key for (key,) in w.sql("SELECT row_key FROM outcomes")]
    assert life > 3
    differ = {"attempts", "latency_seconds", "cost_usd"}
    one, many = ([{k: v for k, v in line.items() if k not in differ} for line in each.results()] for each in (whole, w))
    assert many == one
    assert {line["status"] for line in one} == {"ok", "failed"}
    assert {line["model"] for line in one} == {"cheap", "strong"}


def test_rows_of_one_job_share_nothing(world):
    """A row's repairs don't use up another's."""
    w = world(rows(30), sims={"m": {}}, concurrency=8, output={"choices": ["yes", "no"]})
    assert w.run().exit_code == 0
    assert {line["parsed"] for line in w.results()} == {"yes", "no"}
