"""Which model a row goes to: weighted splits that never move a row for nothing, and prompts that are too long for one model."""

from __future__ import annotations

from collections import Counter

import pytest
from world import Scripted, bad, dead, good, rows

from batchllm.core.errors import SpecError
from batchllm.engine.deps import RunOptions
from batchllm.report.by_model import by_model, model_lines
from batchllm.route.split import pick
from batchllm.store.read import StoreReader

AB = {"sims": {"mini": {}, "strong": {}}, "concurrency": 16}


def models(w) -> dict[str, str]:
    return {line["custom_id"]: line["model"] for line in w.results()}


def test_a_split_is_by_id_and_by_weight():
    shares = Counter(pick({"a": 80, "b": 20}, str(i), 0) for i in range(20_000))
    assert shares["a"] / 20_000 == pytest.approx(0.8, abs=0.01)
    # Held by value: another hash would send pending rows of a running experiment elsewhere.
    assert "".join(pick({"a": 1, "b": 1, "c": 1}, f"r{i}", 0) for i in range(12)) == "aaabbbbbacca"
    assert {pick({"a": 1, "b": 0}, str(i), 0) for i in range(100)} == {"a"}


def test_other_weights_move_only_the_rows_that_must():
    ids = [f"row {i}" for i in range(5000)]
    before = {key: pick({"a": 50, "b": 50}, key, 0) for key in ids}
    assert before == {key: pick({"b": 1, "a": 1}, key, 0) for key in ids}
    after = {key: pick({"a": 60, "b": 40}, key, 0) for key in ids}
    assert {(before[key], after[key]) for key in ids if before[key] != after[key]} == {("b", "a")}
    # Two rules split independently.
    both = Counter((before[key], pick({"a": 50, "b": 50}, key, 1)) for key in ids)
    assert all(count / 5000 == pytest.approx(0.25, abs=0.03) for count in both.values())


def test_weights_decide_and_a_change_of_them_asks_no_answered_row_again(world):
    w = world(200, **AB, routes=[{"use": {"mini": 80, "strong": 20}}])
    assert w.run().exit_code == 0
    first = models(w)
    assert 0.1 < Counter(first.values())["strong"] / 200 < 0.3
    for use in ({"strong": 20, "mini": 80}, {"mini": 0, "strong": 1}):
        assert w.run(routes=[{"use": use}]).attempts == 200
        assert models(w) == first
    # A model that the rule no longer names is another matter.
    with pytest.raises(SpecError, match="answered rows now ask something else"):
        w.run(routes=[{"use": "strong"}], ask="refuse")


def test_a_rule_that_no_row_can_be_judged_by_is_a_mistake_of_the_spec(world):
    routes = [{"when": "text > 3", "use": "mini"}, {"use": "strong"}]
    w = world(30, **AB, routes=routes)
    with pytest.raises(SpecError, match=r"routes\.0\.when: `text > 3` compares text and a number .*column 'text' is text"):
        w.run()
    assert w.records("mini") == []
    # One row that can be judged: the others fail alone.
    w.put([{"custom_id": "n", "text": 5}, *rows(3)])
    assert w.run().errors == {"bad_row": 3}


def test_a_split_is_the_same_in_any_order_of_rows_and_in_any_job(world, tmp_path):
    w = world(100, **AB, routes=[{"use": {"mini": 1, "strong": 1}}])
    w.run()
    first = models(w)
    (tmp_path / "t.db").unlink()
    w.put(list(reversed(rows(100))))
    w.run()
    assert models(w) == first


def test_rows_without_ids_split_by_their_number(world):
    w = world([{"text": "the same"}] * 60, **AB, routes=[{"use": {"mini": 1, "strong": 1}}])
    w.run()
    first = models(w)
    assert set(first.values()) == {"mini", "strong"}
    assert w.run(budget={"usd": 3}).attempts == 60


def test_the_other_arm_of_a_split_is_no_fallback(world):
    scripts = {"a": Scripted(lambda nth, text, now: (0.1, bad(400, "invalid_value"))), "b": Scripted(lambda nth, text, now: (0.1, good()))}
    w = world(40, scripts=scripts, routes=[{"use": {"a": 1, "b": 1}}], max_failed=40)
    summary = w.run()
    assert summary.rows.failed + summary.rows.ok == 40
    assert {(line["model"], line["status"]) for line in w.results()} == {("a", "failed"), ("b", "ok")}


@pytest.mark.parametrize(
    ("use", "words"),
    [
        ({"a": 0, "b": 0}, "routes.0.use: needs at least one weight above 0"),
        ({"a": -1}, "routes.0.use.a: expected a weight such as 80 (0 or more), got -1"),
        ({"a": "80"}, "routes.0.use.a: expected a weight such as 80 (0 or more), got '80'"),
        ({"a": True}, "routes.0.use.a: expected a weight"),
        ({}, "routes.0.use: needs at least one weight above 0"),
        ({"c": 1}, "routes.0.use.c: no model is called 'c'"),
    ],
)
def test_weights_that_are_none_are_refused(world, use, words):
    with pytest.raises(SpecError) as caught:
        world(1, sims={"a": {}, "b": {}}, routes=[{"use": use}]).run()
    assert words in str(caught.value)


def test_a_prompt_that_is_too_long_goes_on_to_larger_windows_only(world):
    asked: list[str] = []

    def says(name: str, reply) -> Scripted:
        return Scripted(lambda nth, text, now: asked.append(name) or (0.1, reply))

    long = bad(400, "context_length_exceeded", "This model's maximum context length is 128000 tokens")
    scripts = {"small": says("small", long), "alike": says("alike", good()), "large": says("large", good())}
    ids = {"small": {"model": "gpt-4o"}, "alike": {"model": "gpt-4o-mini"}, "large": {"model": "gpt-4.1"}}
    w = world(1, scripts=scripts, models=ids, routes=[{"use": ["small", "alike", "large"]}])
    assert w.run().exit_code == 0
    assert asked == ["small", "large"]
    scripts["large"]._answer = lambda nth, text, now: (0.1, long)
    w.put([{"custom_id": "other", "text": "x"}])
    assert w.run().errors == {"too_long": 1}


def test_prefer_cheapest_asks_the_cheapest_first_and_then_the_next_dearer(world):
    prices = {"a": {"input": 5, "output": 9}, "b": {"input": 1, "output": 2}, "c": {"input": 1, "output": 1}}
    down = {"c": {"outages": ((0.0, 1e9),)}}
    w = world(
        20,
        sims={name: down.get(name, {}) for name in "abc"},
        models={name: {"price": price} for name, price in prices.items()},
        routes=[{"use": ["a", "b", "c"]}],
        prefer="cheapest",
        retry={"on_outage": "fallback"},
    )
    assert w.run().exit_code == 0
    assert set(models(w).values()) == {"b"}
    assert w.sql("SELECT model FROM attempts ORDER BY attempt_id LIMIT 1") == [("c",)]


def test_prefer_fastest_measures_and_then_keeps_to_the_fastest(world):
    sims = {"slow": {"latency_ms": 4000.0}, "quick": {"latency_ms": 200.0}, "middle": {"latency_ms": 900.0}}
    w = world(400, sims=sims, concurrency=2, routes=[{"use": ["slow", "quick", "middle"]}], prefer="fastest")
    assert w.run().exit_code == 0
    names = [model for (model,) in w.sql("SELECT model FROM attempts ORDER BY attempt_id")]
    assert set(names) == set(sims)
    assert set(names[-100:]) == {"quick"}


def test_models_side_by_side(world):
    def says(*texts: str) -> Scripted:
        return Scripted(lambda nth, text, now: (0.5 * len(texts), good(texts[min(nth, len(texts) - 1)])))

    listed = [{"custom_id": f"r{i}", "text": "t", "gold": gold, "n": 5} for i, gold in enumerate(["Yes", "no", "yes", None])]
    scripts = {"a": says("yes", "maybe", "yes", "no"), "b": says("no")}
    routes = [{"when": "row.custom_id == 'r3'", "use": "b"}, {"use": "a"}]
    output = {"choices": ["yes", "no"], "keep": ["gold", "n"]}
    w = world(listed, scripts=scripts, routes=routes, output=output, concurrency=1)
    assert w.run().exit_code == 0
    with StoreReader(w.folder / "t.db") as reader:
        a, b = by_model(reader, "gold")
        assert (a.ok, a.failed, a.attempts, a.cost_pico, a.latency_seconds, a.valid, a.output_tokens) == (3, 0, 4, 80_000_000, 2.0, 0.75, 5.0)
        # yes for Yes, yes (after a repair) for no, no for yes.
        assert (a.compared, a.agreed, a.agreement) == (3, 1, pytest.approx(1 / 3))
        assert (b.ok, b.valid, b.compared, b.agreement) == (1, 1.0, 0, None)
        lines = model_lines([a, b], gold="gold")
        assert lines[1].split() == [
            "a",
            "3",
            "0",
            "4",
            "$0.0000800",
            "simulated",
            "$0.0000267",
            "2.00",
            "s",
            "5.0",
            "75.0",
            "%",
            "33.3",
            "%",
            "of",
            "3",
        ]
        assert lines[2].endswith("- of 0")
        assert a.as_dict(gold=True)["agreement"] == pytest.approx(1 / 3)
        with pytest.raises(SpecError, match="no answer has a kept column 'label' \\(kept are gold, n\\)"):
            by_model(reader, "label")


def test_a_rule_that_no_row_can_reach_is_told(world):
    w = world(3, sims={"a": {}, "b": {}}, routes=[{"use": "a"}, {"use": "b"}])
    assert w.run().exit_code == 0
    assert [note.text for note in w.notes] == ["routes.0 has no `when`, so it takes every row, and no rule after it is ever looked at"]


def test_what_a_wire_cannot_carry_is_never_sent_there(world):
    audio = [
        {"role": "user", "content": [{"type": "text", "text": "listen"}, {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}
    ]
    plain = [{"role": "user", "content": "hello"}]
    model = {"provider": "anthropic", "model": "claude-sonnet-5-5", "base_url": "http://127.0.0.1:9", "api_key_env": "none"}
    claude = Scripted(lambda nth, text, now: (0.1, dead()))
    w = world(
        [{"messages": audio}, {"messages": plain}],
        prompt=None,
        scripts={"c": claude},
        sims={"m": {}},
        models={"c": model},
        routes=[{"use": ["c", "m"]}],
    )
    w.run(routes=[{"use": "c"}, {"use": "m"}], deadline="20s")
    (failed,) = [line for line in w.results() if line["row"] == 0]
    assert (failed["attempts"], failed["cost_usd"], failed["error"]["code"]) == (0, None, "rejected")
    assert "audio/wav" in failed["error"]["message"]
    assert w.sql("SELECT count(*) FROM attempts WHERE row_key = 1") == [(0,)]
    # Another model of the chain takes it.
    w.run(RunOptions(retry_failed=frozenset()), deadline="20s")
    assert w.sql("SELECT kind, model, outcome FROM attempts WHERE row_key = 1") == [("fallback", "m", "ok")]
