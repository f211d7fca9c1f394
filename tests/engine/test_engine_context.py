"""`context`: conversations lose whole turns until they fit, and what can't fit fails unsent or goes to a model with more room."""

from __future__ import annotations

import pytest
from world import World

from batchllm.core.errors import SpecError
from batchllm.core.words import count_messages
from batchllm.engine import RunOptions
from batchllm.engine.access import Access
from batchllm.engine.fit import check_context
from batchllm.engine.plan import plan_job
from batchllm.rows.trim import trimmed
from batchllm.spec import build


def turn(number: int, size: int = 20) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"question {number} " + "word " * size},
        {"role": "assistant", "content": f"answer {number} " + "word " * size},
    ]


LONG = [
    {"role": "system", "content": "be kind"},
    *(message for number in range(6) for message in turn(number)),
    {"role": "user", "content": "last one"},
]


def numbers(messages) -> str:
    return "".join(message["content"].split()[1] for message in messages if message["role"] == "user")


@pytest.mark.parametrize(
    ("trim", "most", "left"), [("oldest", 130, "45one"), ("middle", 130, "05one"), ("middle", 40, "one"), ("oldest", 30, "one"), ("oldest", 5, None)]
)
def test_whole_turns_go(trim, most, left):
    kept = trimmed(LONG, most=most, count=count_messages, trim=trim)
    if left is None:
        assert kept is None
        return
    assert kept is not None
    assert numbers(kept) == left
    assert kept[0] == LONG[0]
    assert len(kept) == 2 * len(left.removesuffix("one")) + 2
    assert count_messages(kept) <= most


def test_a_tools_result_stays_with_its_call():
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
    messages = [
        *turn(0),
        {"role": "user", "content": "use it " + "word " * 20},
        call,
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        *turn(2),
        {"role": "user", "content": "last"},
    ]
    for most in range(20, 200, 7):
        kept = trimmed(messages, most=most, count=count_messages, trim="oldest")
        if kept is not None:
            assert [message for message in kept if message["role"] == "tool"] == [message for message in kept if message.get("tool_calls")] or {
                "tool"
            } <= {message["role"] for message in kept}
            assert kept[0]["role"] == "user"


def job(folder, **keys):
    return World(folder, [{"custom_id": "a", "messages": LONG}, {"custom_id": "b", "prompt": "short"}], prompt=None, **keys)


def test_trimmed_rows_are_answered_and_counted(tmp_path):
    w = job(tmp_path, context={"max_tokens": 150, "trim": "oldest"})
    assert w.run().exit_code == 0
    assert max(record.input_tokens for record in w.records()) <= 150
    assert w.sql("SELECT custom_id, trimmed FROM attempts ORDER BY 1") == [("a", 8), ("b", None)]
    assert [note.text for note in w.notes if "lost turns" in note.text]
    # What is cut on the way is no change of the row: nothing is asked again.
    assert w.run(context={"max_tokens": 100, "trim": "middle"}).attempts == 2


def test_without_trimming_a_long_row_fails_unsent(tmp_path):
    w = job(tmp_path, context={"max_tokens": 150})
    summary = w.run()
    assert (summary.rows.ok, summary.rows.failed, summary.attempts) == (1, 1, 1)
    error = w.results()[0]["error"]
    assert error["code"] == "too_long"
    assert "at most 150" in error["message"]
    assert "trim: oldest" in error["message"]


def test_the_window_is_kept_free_for_the_answer(tmp_path):
    w = job(tmp_path, sims={"m": {"context_tokens": 128_000}}, context={"trim": "oldest", "reserve": 128_000 - 150})
    assert w.run().exit_code == 0
    assert max(record.input_tokens for record in w.records()) <= 150


def test_a_window_that_nobody_knows_is_refused(tmp_path):
    models = {"m": {"provider": "openai-compatible", "base_url": "http://x.example/v1", "api_key_env": "none", "model": "mine"}}
    access = {"m": Access(base_url="http://x.example/v1", key=None, headers={})}
    with pytest.raises(SpecError, match="how long a prompt 'mine' takes is not known"):
        check_context(build({"models": models, "context": {"trim": "oldest"}}, folder=tmp_path), access)
    check_context(build({"models": models, "context": {"trim": "oldest", "max_tokens": 9}}, folder=tmp_path), access)


def test_a_window_may_be_told_and_must_leave_room(tmp_path):
    w = job(tmp_path, models={"m": {"context_window": 200}}, context={"trim": "oldest", "reserve": 50})
    assert w.run().exit_code == 0
    assert max(record.input_tokens for record in w.records()) <= 150
    with pytest.raises(SpecError, match=r"context.reserve: leaves no room for a prompt: 'm' takes 200 tokens"):
        w.run(context={"reserve": 200})
    models = {"m": {"provider": "ollama", "model": "mine", "body": {"options": {"num_ctx": 4096}}}}
    with pytest.raises(SpecError, match=r"context.trim: with `endpoint: embeddings` a prompt is one text"):
        build({"models": models, "endpoint": "embeddings", "context": {"trim": "oldest"}}, folder=tmp_path)
    spec = build({"models": models, "context": {"trim": "oldest"}}, folder=tmp_path)
    check_context(spec, {"m": Access(base_url="http://127.0.0.1:11434", key=None, headers={})})


def test_a_plan_counts_what_is_left_and_who_takes_it(tmp_path):
    def models(w, **keys):
        plan = plan_job(build({**w.keys, **keys}, folder=w.folder), {}, RunOptions(), utc=1_795_219_200.0)
        return {found.name: (found.rows, found.input_tokens) for found in plan.models}, dict(plan.bad)

    w = job(tmp_path, sims={"m": {}, "n": {}}, models={"m": {"context_window": 200}}, routes=[{"use": ["m", "n"]}])
    whole = models(w)[0]["m"][1]
    trimmed_to, bad = models(w, context={"trim": "oldest", "reserve": 50})
    assert (trimmed_to["m"][0], trimmed_to["m"][1] < min(whole, 170), bad) == (2, True, {})
    split, bad = models(w, context={"reserve": 50})
    assert ((split["m"][0], split["n"][0]), bad) == ((1, 1), {})
    alone, bad = models(w, context={"reserve": 50}, routes=[{"use": "m"}])
    assert (alone["m"][0], bad) == (1, {"too_long": 1})
