"""Guarantee 3 and 9: at every instant spent + reserved <= cap, the provider's bill stays under it, the cap is used up, and unknown is not zero."""

from __future__ import annotations

import pytest
from world import PRICE, Scripted, bad, good, rows

from batchllm.admit import Purse
from batchllm.core.errors import SpecError
from batchllm.core.money import text_usd
from batchllm.core.nouns import Fault, Kind
from batchllm.engine import RunOptions
from batchllm.engine.lane import Lane


@pytest.fixture
def watched(monkeypatch):
    """Every purse of the run, asserting the promise at each admission."""
    purses: list[Purse] = []
    hold = Purse.hold

    def checked(self: Purse, pico: int) -> None:
        hold(self, pico)
        assert self.cap_pico is None or self.spent_pico + self.reserved_pico <= self.cap_pico
        if self not in purses:
            purses.append(self)

    monkeypatch.setattr(Purse, "hold", checked)
    return purses


FAULTS = {"none": {}, "faults": {"faults": 0.3, "latency_sigma": 0.5}}


@pytest.mark.parametrize("sim", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_the_bill_never_passes_the_cap_and_uses_it_up(world, watched, sim, concurrency):
    # About 30 micro-dollars an answer: 1,000 rows want far more than 0.01 USD.
    w = world(1000, sims={"m": sim}, concurrency=concurrency, budget={"usd": 0.01}, retry={"timeout_seconds": 10})
    summary = w.run()
    bill = w.sims["m"].audit.cost_pico
    assert (summary.exit_code, summary.stopped_by) == (3, "budget")
    assert bill <= 10**10
    ((spent, reserved),) = w.sql("SELECT sum(cost_pico), coalesce(sum(CASE WHEN billed = 'maybe' THEN reserved_pico END), 0) FROM attempt_log")
    assert spent <= bill <= spent + reserved
    assert spent + reserved >= 0.95 * 10**10
    assert watched
    assert watched[0].held_pico == 0
    assert "raise budget.usd" in (summary.message or "")


def test_a_larger_cap_goes_on_and_counts_what_was_spent(world, watched):
    w = world(300, budget={"usd": 0.002})
    first = w.run()
    assert first.exit_code == 3
    second = w.run(budget={"usd": 0.004})
    assert second.exit_code == 3
    assert 0.95 * 4 * 10**9 <= w.sims["m"].audit.cost_pico <= 4 * 10**9
    done = w.run(budget={"usd": 1})
    assert (done.exit_code, done.rows.ok, done.attempts) == (0, 300, 300)
    assert done.cost_usd == pytest.approx(w.sims["m"].audit.cost_pico / 1e12)


def test_a_budget_of_nothing_sends_nothing(world):
    w = world(30, budget={"usd": 0})
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by, summary.attempts, w.sims["m"].audit.requests) == (3, "budget", 0, 0)


def test_a_free_model_runs_on_a_budget_of_nothing(world):
    w = world(30, models={"m": {"price": {"input": 0, "output": 0}}}, budget={"usd": 0})
    assert (w.run().exit_code, w.results()[0]["cost_usd"]) == (0, 0)


def test_a_cap_lowered_below_what_is_spent_sends_nothing(world):
    w = world(100, budget={"usd": 0.002})
    assert w.run().exit_code == 3
    sent = w.sims["m"].audit.requests
    assert (w.run(budget={"usd": 0.001}).exit_code, w.sims["m"].audit.requests) == (3, sent)


def test_a_200_without_usage_keeps_its_reservation(world):
    w = world(5, scripts={"m": Scripted(lambda nth, text, now: (0.1, good(usage=None)))}, budget={"usd": 1})
    summary = w.run()
    assert (summary.exit_code, summary.cost_usd) == (0, None)
    ((count, reserved, pico),) = w.sql("SELECT count(*), sum(reserved_pico), sum(cost_pico) FROM attempt_log WHERE billed = 'maybe'")
    assert (count, pico) == (5, None)
    assert summary.reserved_usd == pytest.approx(reserved / 1e12)
    assert w.results()[0]["cost_usd"] is None
    assert w.results()[0]["usage"] is None
    # The next run starts from there: one reservation more than is pinned doesn't fit.
    w.put(rows(6))
    assert w.run(budget={"usd": reserved / 1e12}).exit_code == 3


def test_possibly_billed_attempts_eat_the_cap(world, watched):
    """A provider that hangs and may bill: three tries a row, each one pinned, and the cap holds over them."""
    w = world(
        100,
        scripts={"m": Scripted(lambda nth, text, now: (0.1, Fault(kind=Kind.NETWORK, message=f"reset {nth}", billed="maybe")))},
        budget={"usd": 0.001},
    )
    summary = w.run(concurrency=2)
    assert (summary.exit_code, summary.stopped_by) == (3, "budget")
    assert summary.reserved_usd <= 0.001
    assert "settle" in (summary.message or "")


def test_a_provider_that_bills_above_the_bound_is_booked_and_stops_the_run(world):
    script = Scripted(lambda nth, text, now: (0.1, good(usage=(10_000, 10_000))))
    w = world(100, scripts={"m": script}, budget={"usd": 0.02}, concurrency=1)
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by, len(script.arrivals)) == (3, "budget", 1)
    assert summary.cost_usd == pytest.approx(0.03)
    assert summary.rows.ok == 1


def test_refused_and_unreachable_requests_cost_nothing(world):
    script = Scripted(lambda nth, text, now: (0.1, bad(429, "rate_limit_exceeded", retry_after_ms="100") if nth < 50 else good()))
    w = world(10, scripts={"m": script}, budget={"usd": 0.01})
    summary = w.run()
    assert (summary.exit_code, summary.reserved_usd) == (0, 0)
    assert summary.cost_usd == pytest.approx(10 * 20e-6)


def test_it_waits_for_money_in_flight_instead_of_giving_up(world):
    # Room for one reservation at a time: each answer frees what it didn't use.
    (reserved,) = (11 + 20 * 2 + 2,)
    w = world(20, scripts={"m": Scripted(lambda nth, text, now: (1.0, good(usage=(5, 1))))}, budget={"usd": (reserved + 20 * 7) * 1e-6})
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 20)
    assert summary.seconds > 3


def test_a_cap_needs_prices_and_bounds(world):
    w = world(
        3,
        models={
            "m": {
                "price": None,
                "model": "nobody-knows-it",
                "provider": "openai-compatible",
                "base_url": "http://localhost:1/v1",
                "api_key_env": "none",
            }
        },
    )
    with pytest.raises(SpecError, match="price"):
        w.run(budget={"usd": 1})


def test_the_cost_of_a_row_is_the_sum_of_its_attempts(world):
    w = world([{"custom_id": "a", "text": "[[sim:finish_error*2]] say hello"}])
    w.run()
    (result,) = w.results()
    assert (result["attempts"], result["cost_usd"]) == (3, pytest.approx(w.sims["m"].audit.cost_pico / 1e12))


def test_alerts_come_once_each_and_not_again_on_a_resume(world):
    # Each answer costs 20 millionths of a dollar (10 tokens at 1, 5 at 2); the cap is worth 50 of them, and one is reserved at 50.
    script = Scripted(lambda nth, text, now: (1.0, good()))
    w = world(40, scripts={"m": script}, models={"m": {"limits": {"concurrency": 1}}}, budget={"usd": 0.001, "alerts": [0.25, 0.5]})
    w.run(RunOptions(limit=20))
    said = [note.text for note in w.notes if "of the budget" in note.text]
    assert [text.split(" ")[0] for text in said] == ["25%"]
    w.notes.clear()
    w.run(RunOptions(limit=38))
    assert [note.text.split(" ")[0] for note in w.notes if "of the budget" in note.text] == ["50%"]


def test_an_unknown_price_is_not_made_a_zero_by_what_cost_nothing(world):
    """A refused request cost nothing; the answers after it cost nobody knows what. The job isn't free (a row's cost is the sum of what is known)."""
    script = Scripted(lambda nth, text, now: (0.1, bad(429) if nth == 0 else good()))
    model = {"provider": "openai-compatible", "model": "my-own", "base_url": "http://localhost/v1", "api_key_env": "none"}
    w = world(3, models={"m": {**model, "price": None}}, scripts={"m": script}, concurrency=1)
    summary = w.run()
    assert (summary.exit_code, summary.cost_usd, summary.unpriced) == (0, None, 3)
    assert [line["cost_usd"] for line in w.results()] == [0, None, None]
    # A cap from now on can't count them, and says so.
    w.put(rows(4))
    assert w.run(budget={"usd": 1}, models={"m": {**model, "price": PRICE}}).exit_code == 0
    assert [note.text for note in w.notes if "3 earlier requests" in note.text]


def test_a_request_that_is_larger_than_the_cap_is_told_from_a_cap_that_is_used_up(world):
    w = world(3, budget={"usd": 0.00000001})
    message = w.run().message or ""
    assert "$0.0000000100 left, and the next request may cost $0.0000" in message
    assert "used up" not in message


def test_a_run_that_commits_nothing_leaves_the_results_alone(world):
    w = world(3, budget={"usd": 0})
    assert (w.run().exit_code, (w.folder / "t.results.jsonl").exists()) == (3, False)
    assert (w.run(budget={"usd": 1}).exit_code, len(w.results())) == (0, 3)


# Near the cap, and beyond one row's reach.


@pytest.mark.parametrize("concurrency", [1, 64])
@pytest.mark.parametrize("faults", [0.0, 0.2])
def test_the_cap_is_used_but_for_what_is_pinned(world, watched, concurrency, faults):
    """Rows are small against the cap: what is neither spent nor possibly billed is less than a twentieth of it."""
    w = world(
        2000,
        sims={"m": {"faults": faults, "fault_kinds": ("stall", "500", "reset")}},
        concurrency=concurrency,
        budget={"usd": 0.02},
        retry={"timeout_seconds": 5},
    )
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by) == (3, "budget")
    ((spent, pinned),) = w.sql("SELECT sum(cost_pico), coalesce(sum(CASE WHEN billed = 'maybe' THEN reserved_pico END), 0) FROM attempt_log")
    assert spent >= 0.95 * (2 * 10**10 - pinned)
    assert spent + pinned <= 2 * 10**10
    message = summary.message or ""
    assert (f"{text_usd(pinned)} is held" in message, "batchllm settle" in message) == (bool(pinned), bool(pinned))


def test_a_row_that_costs_more_than_the_whole_cap_stops_nobody_else(world, watched):
    listed = [{"custom_id": f"r{i}", "text": "word " * (5000 if i in {3, 30} else 5)} for i in range(60)]
    w = world(listed, concurrency=4, budget={"usd": 0.005})
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by, summary.rows.ok, summary.rows.pending) == (3, "budget", 58, 2)
    message = summary.message or ""
    assert "row 3 (which may cost $0.0" in message
    assert "and 1 more had no room in it and stay pending" in message
    done = w.run(budget={"usd": 1})
    assert (done.exit_code, done.rows.ok, done.attempts) == (0, 60, 60)


def test_smaller_rows_use_what_a_larger_one_leaves(world, watched):
    """The first row wants more than half of the cap, twice: the second time it makes way for those that fit."""
    listed = [{"custom_id": f"r{i}", "text": "word " * (600 if i < 2 else 5)} for i in range(30)]
    w = world(listed, concurrency=1, budget={"usd": 0.0011})
    summary = w.run()
    assert summary.exit_code == 3
    assert 8 <= summary.rows.ok < 30
    assert "row 1 (which" in (summary.message or "")


def test_a_long_input_is_not_read_to_its_end_for_rows_that_are_all_too_dear(world):
    w = world(rows(3000), budget={"usd": 0.00000001})
    summary = w.run()
    assert (summary.exit_code, summary.attempts) == (3, 0)
    assert w.sql("SELECT count(*) < 3000 FROM rows") == [(1,)]


def test_an_answer_at_an_unknown_price_keeps_its_reservation(world, monkeypatch):
    """The provider bills another service tier than was asked for, and nobody knows its price: it is no zero, and no free money."""
    real = Lane.prices_of_answer
    monkeypatch.setattr(Lane, "prices_of_answer", lambda self, answered, utc, tier: None if tier == "flash" else real(self, answered, utc, tier))
    w = world(20, scripts={"m": Scripted(lambda nth, text, now: (0.1, good(service_tier="flash")))}, budget={"usd": 0.0003}, concurrency=1)
    summary = w.run()
    assert (summary.exit_code, summary.cost_usd) == (3, None)
    ((count, pinned),) = w.sql("SELECT count(*), sum(reserved_pico) FROM attempt_log WHERE billed = 'maybe' AND input_tokens = 10")
    assert count == summary.attempts < 20
    assert pinned <= 3 * 10**8


# Reserving what was learnt.


def test_learned_reserves_use_more_of_the_cap_at_once_and_book_the_truth(world):
    """Answers of 5 tokens under a cap of 2,000: by the worst case 2 fit the budget at once, by experience all that may be in flight."""
    keys = {"request": {"max_tokens": 2000}, "budget": {"usd": 0.01, "reserve": "learned"}, "concurrency": 50}
    w = world(450, scripts={"m": (script := Scripted(lambda nth, text, now: (1.0, good())))}, **keys)
    learned = w.run()
    assert (learned.exit_code, learned.rows.ok) == (0, 450)
    assert script.most_in_flight > 20
    assert any("overshot by at most $0.20" in note.text for note in w.notes)  # 50 requests of 2,000 tokens at 2 USD a million
    assert w.sql("SELECT min(reserved_pico) >= 4000000000 FROM attempt_log") == [(1,)]  # the store keeps the worst


def test_an_overshoot_is_told_with_the_caps_that_requests_may_come_to(world):
    """`on_length: retry` doubles a cap up to the model's documented 4,096."""
    w = world(1, request={"max_tokens": 2000}, budget={"usd": 0.01, "reserve": "learned"}, concurrency=50, output={"on_length": "retry"})
    w.run()
    assert any("overshot by at most $0.410" in note.text for note in w.notes)


def test_a_learned_guess_that_was_wrong_is_booked_and_stops(world):
    usage = [(10, 5)] * 150 + [(10, 1900)] * 100
    script = Scripted(lambda nth, text, now: (1.0, good(usage=usage[nth])))
    w = world(250, scripts={"m": script}, request={"max_tokens": 2000}, budget={"usd": 0.02, "reserve": "learned"}, concurrency=10)
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by) == (3, "budget")
    assert "reserve: learned" in (summary.message or "")
    overshoot = (summary.cost_usd or 0) - 0.02
    assert 0 < overshoot <= 10 * 2000 * 2e-6
    assert w.run(budget={"usd": 0.02}).attempts == summary.attempts


# Alerts and where the money went.


def test_alerts_of_every_budget_and_of_each_new_day(world):
    script = Scripted(lambda nth, text, now: (0.1, good()))
    budget = {"usd": 0.01, "usd_per_day": 0.001, "alerts": [0.5], "when_used_up": "wait"}
    w = world(90, scripts={"m": script}, models={"m": {"limits": {"concurrency": 1}}}, budget=budget)
    w.elapsed = 86_400.0 - 20
    assert w.run().exit_code == 0
    said = [note.text for note in w.notes if "50%" in note.text]
    assert [text.split(" is ")[0] for text in said] == ["50% of the budget of $0.00100 a day"] * 2


def test_spend_by_kind_day_and_route(world):
    listed = [{"custom_id": f"r{i}", "text": f"{'[[sim:finish_error*1]] ' if i == 1 else ''}row {i}", "which": "ab"[i % 2]} for i in range(8)]
    w = world(listed, routes=[{"when": "which == 'a'", "use": "m"}, {"use": "m"}])
    assert w.run().exit_code == 0
    assert w.sql("SELECT kind, attempts, cost_usd > 0, reserved_usd FROM spend_by_kind") == [("first", 8, 1, None), ("retry", 1, 1, None)]
    assert w.sql("SELECT route, attempts FROM spend_by_route") == [(0, 4), (1, 5)]
    ((day, attempts),) = w.sql("SELECT day, attempts FROM spend_by_day")
    assert (day, attempts) == ("2026-11-21", 9)
    assert w.sql("SELECT abs(sum(k.cost_usd) - (SELECT cost_usd FROM spend_by_model)) < 1e-12 FROM spend_by_kind k") == [(1,)]


def test_views_show_null_where_costs_are_unknown(world):
    model = {"provider": "openai-compatible", "model": "my-own", "base_url": "http://localhost/v1", "api_key_env": "none", "price": None}
    script = Scripted(lambda nth, text, now: (0.1, bad(429) if nth == 0 else good()))
    w = world(3, models={"m": model}, scripts={"m": script}, concurrency=1)
    assert w.run().exit_code == 0
    for view in ("spend_by_model", "spend_by_day", "spend_by_route"):
        assert w.sql(f"SELECT sum(attempts), max(cost_usd), sum(unpriced) FROM {view}") == [(4, None, 3)]
    assert w.sql("SELECT cost_usd FROM summary") == [(None,)]


def test_real_and_simulated_dollars_are_summed_apart(world):
    real = {
        "provider": "openai-compatible",
        "model": "x",
        "base_url": "http://127.0.0.1:1/v1",
        "api_key_env": "none",
        "price": {"input": 1, "output": 2},
    }
    models = {"m": {}, "r": real}
    w = world(20, scripts={"r": Scripted(lambda *_: (0.1, good()))}, models=models, routes=[{"use": {"m": 50, "r": 50}}])
    summary = w.run()
    by_model = dict(w.sql("SELECT model, cost_usd FROM spend_by_model"))
    assert not summary.simulated
    assert (summary.cost_usd, summary.simulated_cost_usd) == (pytest.approx(by_model["r"]), pytest.approx(by_model["m"]))
    alone = world(5, store="other.db").run()
    assert (alone.simulated, alone.simulated_cost_usd) == (True, None)
