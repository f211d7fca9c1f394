"""Several runs on one account, in one virtual time: together they use the limits up and never run into them, whoever comes, idles or goes."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace

import pytest

from batchllm.core.events import Note
from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.core.wire import HttpReply
from batchllm.engine import Deps, RunOptions, run_job
from batchllm.share import DayLedger, running
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.spec import build

RPM = {"rpm": 600, "burst_seconds": 1}


class Machine:
    """One provider, and the runs of one user on one machine."""

    silent = False
    """Whether the provider's replies don't say what is left of a limit."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.state = folder / "state"
        self.settings = {"latency_ms": 100.0, "latency_sigma": 0.0, "burst_seconds": 1, **settings}
        self.notes: dict[str, list[str]] = {}
        self.in_flight = self.most_in_flight = 0
        self.first: dict[str, float] = {}
        """When the first request of a job came."""

    def play(self, *runs):
        """Runs these coroutine functions side by side and returns what they return."""

        async def main():
            self.clock = VirtualClock()
            self.sim = Simulator(Settings(**self.settings), started=0.0)
            return await asyncio.gather(*(one() for one in runs))

        return run_virtual(main)

    def job(self, name, count, *, at=0.0, limits=RPM, key="key-number-one", model="gpt-6-luna", state=None, **keys):
        """A run of `count` rows that begins at a moment."""

        async def run():
            await asyncio.sleep(at)
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            (folder / "in.jsonl").write_text("".join(json.dumps({"custom_id": f"{name}{i}", "text": f"{name} {i}"}) + "\n" for i in range(count)))
            deployment = {
                "provider": "openai",
                "model": model,
                "base_url": "http://127.0.0.1:9/v1",
                "api_key_env": "KEY",
                "price": {"input": 1, "output": 2},
            }
            if limits is not None:
                deployment["limits"] = limits
            spec = build(
                {"name": name, "input": str(folder / "in.jsonl"), "prompt": "{{ text }}", "request": {"max_tokens": 20}, "durability": "normal",
                 "models": {"m": deployment}, **keys},
                folder=folder,
            )  # fmt: skip
            notes = self.notes.setdefault(name, [])
            deps = Deps(
                clock=self.clock,
                environ={"KEY": key},
                rng=random.Random(1),
                inline=True,
                listener=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
                transports=lambda _name, _model: self,
                state=self.state if state is None else state,
            )
            return await run_job(spec, deps, RunOptions())

        return run

    async def send(self, call, *, timeout_seconds):
        name = json.loads(call.body)["messages"][-1]["content"].split()[0]
        self.first.setdefault(name, self.clock.now())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = await SimulatedTransport(self.sim, self.clock).send(call, timeout_seconds=timeout_seconds)
            if self.silent and isinstance(reply, HttpReply):
                return replace(reply, headers={name: value for name, value in reply.headers.items() if "ratelimit" not in name})
            return reply
        finally:
            self.in_flight -= 1

    async def close(self):
        """Others may still be at it."""

    @property
    def refusals(self):
        return self.sim.audit.refusals

    def passed(self, begin, end):
        """Requests that came in between two moments."""
        return len([record for record in self.sim.audit.records if begin <= record.now < end])


@pytest.fixture
def machine(tmp_path):
    return lambda **settings: Machine(tmp_path, **settings)


def test_two_runs_use_one_limit_up_and_never_run_into_it(machine):
    one = machine(rpm=600)
    first, second = one.play(one.job("a", 300), one.job("b", 300))
    assert (first.exit_code, second.exit_code, one.refusals) == (0, 0, 0)
    assert 57 < max(first.seconds, second.seconds) < 62, "600 requests at 600 a minute"
    assert abs(first.seconds - second.seconds) < 3, "neither comes first"
    assert any("another run on this machine" in note for note in one.notes["b"])
    assert running(one.state) == []


def test_without_a_common_folder_they_run_into_it(machine, tmp_path):
    one = machine(rpm=600)
    one.play(one.job("a", 300), one.job("b", 300, state=tmp_path / "other"))
    assert one.refusals >= 5


def test_a_newcomer_waits_until_its_part_is_free_and_a_leaver_s_part_comes_back(machine):
    one = machine(rpm=600)
    one.play(one.job("a", 600), one.job("b", 50, at=10.25))
    assert one.refusals == 0
    assert 10.9 < one.first["b"] < 11.6, "only when the other one has let go, at its next word"
    arrivals = [record.now for record in one.sim.audit.records]
    last_of_b = 10.25 + 50 / 5 + 2.5
    assert one.passed(0, 10) == pytest.approx(100, abs=8)
    assert one.passed(13, 20) == pytest.approx(70, abs=4), "both together are as fast as one alone"
    assert one.passed(last_of_b, 50) == pytest.approx((50 - last_of_b) * 10, abs=4)
    # All in all nothing was left unused but the moment of the change.
    assert max(arrivals) < 65 / 0.97


def test_what_one_run_does_not_use_goes_to_the_other(machine):
    # `a` waits for its answers: one request a second is all it can use.
    one = machine(rpm=600, latency_ms=1000.0)
    one.play(one.job("a", 60, limits={**RPM, "concurrency": 1}), one.job("b", 500))
    assert one.refusals == 0
    assert one.passed(10, 50) >= 0.95 * 400


def test_a_run_without_limits_keeps_to_what_another_one_declares(machine):
    one = machine(rpm=600)
    first, second = one.play(one.job("a", 300), one.job("b", 300, at=3.0, limits=None))
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert one.refusals == 0
    assert one.passed(6, 50) >= 0.95 * 440


def test_limits_that_headers_tell_are_shared(machine):
    one = machine(rpm=600, burst_seconds=60, latency_ms=500.0)
    one.play(one.job("a", 450, limits=None), one.job("b", 450, limits=None, at=1.0))
    assert one.refusals == 0
    assert 285 <= one.passed(20, 50) <= 320, "600 a minute for both together, though the provider would let twice as much through for a minute"


def test_slots_are_shared_in_whole_ones(machine):
    one = machine(latency_ms=2500.0)  # what is in flight keeps its slot longer than two words take
    four = {"concurrency": 4}
    one.play(one.job("a", 40, limits=four), one.job("b", 20, at=1.0, limits=four), one.job("c", 4, at=6.0, limits=four))
    assert one.most_in_flight == 4


def test_a_limit_group_is_one_for_all_runs_that_name_it(machine):
    one = machine()
    groups = {"limit_groups": {"account": {"models": ["m"], "rpm": 300, "burst_seconds": 1}}}
    first, second = one.play(one.job("a", 75, limits="none", **groups), one.job("b", 75, limits="none", model="gpt-6-terra", **groups))
    assert 28 < max(first.seconds, second.seconds) < 32, "150 requests at 300 a minute"


def test_another_key_is_another_account(machine):
    one = machine()
    first, second = one.play(one.job("a", 100), one.job("b", 100, key="key-number-two"))
    assert first.seconds == pytest.approx(second.seconds, abs=0.2)
    assert first.seconds < 10
    assert not any("another run" in note for notes in one.notes.values() for note in notes)


def test_tokens_are_shared_too(machine):
    one = machine(tpm=30_000)
    limits = {"tpm": 30_000, "burst_seconds": 1}
    first, second = one.play(one.job("a", 200, limits=limits), one.job("b", 200, limits=limits))
    assert (first.exit_code, second.exit_code, one.refusals) == (0, 0, 0)
    used = sum(summary.tokens.input + summary.tokens.output for summary in (first, second))
    assert used / 30_000 * 60 < max(first.seconds, second.seconds)


@pytest.mark.parametrize("apart", [False, True])
def test_what_others_used_of_a_day_s_limit_is_not_used_again(machine, tmp_path, apart):
    """Gemini says nothing of what is left of a day; the jobs of one morning do."""
    limits = {"rpd": 100, "concurrency": 2}
    one = machine(rpd=100, latency_ms=3_000.0, accounting="gemini")
    one.silent = True
    other = {"state": tmp_path / "other"} if apart else {}

    def short(name, count, **more):
        return one.job(name, count, limits=limits, deadline="200s", **more)

    *_, third = one.play(short("a", 30), short("b", 30, **other), short("c", 60, at=100.0, **other))
    if apart:
        assert one.refusals > 0
    else:
        assert (third.exit_code, third.stopped_by, third.rows.ok, one.refusals) == (3, "deadline", 40, 0)


def test_a_group_s_dollars_of_the_day_are_one_purse_for_all_runs(machine):
    one = machine()
    groups = {"limit_groups": {"account": {"models": ["m"], "usd_per_day": 0.012, "concurrency": 8}}}
    first, second = one.play(one.job("a", 400, **groups), one.job("b", 400, at=0.7, **groups))
    assert (first.exit_code, second.exit_code) == (3, 3)
    spent = first.cost_usd + second.cost_usd
    assert 0.95 * 0.012 <= spent <= 0.012, f"${spent:.6f}"
    assert min(first.cost_usd, second.cost_usd) > 0.002, "neither took it all"
    assert "by other runs on the account" in first.message + second.message
    # Later in the day there is nothing left, for nobody.
    (third,) = one.play(one.job("c", 10, **groups))
    assert (third.exit_code, third.attempts) == (3, 0)


def test_alone_a_group_s_dollars_are_spent_to_the_last(machine, tmp_path):
    groups = {"limit_groups": {"account": {"models": ["m"], "usd_per_day": 0.001}}}
    one = machine()
    (shared,) = one.play(one.job("a", 200, **groups))
    (alone,) = one.play(one.job("b", 200, state=tmp_path / "other", **groups))
    assert shared.cost_usd == pytest.approx(alone.cost_usd, rel=0.05)
    (again,) = one.play(one.job("a", 200, **groups))
    assert again.attempts == shared.attempts
    assert "other runs" not in shared.message + again.message


def test_a_folder_that_can_not_be_used_is_a_note_and_no_failure(machine, tmp_path):
    (tmp_path / "file").write_text("")
    one = machine(rpm=600)
    (alone,) = one.play(one.job("a", 60, state=tmp_path / "file" / "state"))
    assert (alone.exit_code, one.refusals) == (0, 0)
    assert any("limits are not shared" in note for note in one.notes["a"])


def test_a_ledger_that_can_not_be_written_any_more_is_told_once(machine, monkeypatch):
    lease, asked = DayLedger.lease, []

    def full(self, *args, **keys):
        asked.append(1)
        if len(asked) > 5:
            raise OSError(28, "No space left on device")
        return lease(self, *args, **keys)

    monkeypatch.setattr(DayLedger, "lease", full)
    one = machine()
    groups = {"limit_groups": {"account": {"models": ["m"], "usd_per_day": 0.012}}}
    (summary,) = one.play(one.job("a", 400, **groups))
    assert (summary.exit_code, summary.rows.failed) == (3, 0)
    assert len(asked) > 7
    assert len([note for note in one.notes["a"] if "No space left" in note]) == 1
