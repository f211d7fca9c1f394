"""The door in virtual time: order, joint taking, shared groups, cancellation, money that may come back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from batchllm.admit import Admission, Bucket, Closed, Evicted, Lease, LimitGroup, Purse
from batchllm.core.virtual import VirtualClock, run_virtual


class Door:
    """An admission with its clock, and who passed when."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.broke: list[float] = []
        self.admission = Admission(self.clock, on_broke=lambda: self.broke.append(self.clock.now()))
        self.passed: list[tuple[str, float]] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def group(self, name: str = "g", *, rpm: float | None = None, tpm: float | None = None, slots: float = 1e9) -> LimitGroup:
        limits = [(dimension, rate) for dimension, rate in (("rpm", rpm), ("tpm", tpm)) if rate is not None]
        return LimitGroup(name, buckets=[Bucket(d, per_minute=rate, burst_seconds=1, now=self.clock.now()) for d, rate in limits], slots=slots)

    def queue(self, *groups: LimitGroup, purse: Purse | None = None):
        return self.admission.queue(groups, purse or Purse(cap_pico=None, spent_pico=0, pinned_pico=0))

    def goes(
        self,
        name: str,
        queue,
        *,
        tpm: float = 0,
        pico: int = 0,
        hold: float = 0.0,
        used: float | None = None,
        cost: int | None = 0,
        maybe: bool = False,
    ) -> asyncio.Task[Any]:
        """A request that passes, is under way for `hold` seconds and settles."""

        async def go() -> None:
            lease = await self.admission.reserve(queue, {"rpm": 1.0, "tpm": tpm}, pico)
            self.passed.append((name, round(self.clock.now(), 3)))
            await asyncio.sleep(hold)
            lease.end(used=None if used is None else {"tpm": used}, cost_pico=cost, maybe=maybe)

        self.tasks.append(asyncio.ensure_future(go()))
        return self.tasks[-1]

    async def all(self) -> list[tuple[str, float]]:
        await asyncio.gather(*self.tasks)
        return self.passed


def virtual(test: Callable[[Door], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test's coroutine on a virtual loop, with a door."""

    async def with_door() -> None:
        await test(Door())

    def run() -> None:
        run_virtual(with_door)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@virtual
async def test_requests_pass_in_order_at_the_exact_rate(door):
    queue = door.queue(door.group(rpm=600))
    for i in range(25):
        door.goes(str(i), queue)
    assert await door.all() == [(str(i), pytest.approx(max(0, i - 9) / 10, abs=0.003)) for i in range(25)]


@virtual
async def test_a_large_request_is_not_starved_by_small_ones_behind_it(door):
    queue = door.queue(door.group(tpm=60_000))
    door.goes("fills", queue, tpm=1000)
    door.goes("large", queue, tpm=900)
    for i in range(20):
        door.goes(f"small{i}", queue, tpm=10)
    passed = await door.all()
    assert passed[1] == ("large", pytest.approx(0.9, abs=0.003))
    assert [at for _, at in passed[2:]] == sorted(at for _, at in passed[2:])
    assert passed[-1][1] == pytest.approx(1.1, abs=0.01)


@virtual
async def test_an_oversize_request_passes_at_a_full_bucket_into_debt(door):
    queue = door.queue(door.group(tpm=60_000))
    door.goes("half", queue, tpm=500)
    door.goes("huge", queue, tpm=5000)
    door.goes("next", queue, tpm=1)
    assert await door.all() == [("half", 0.0), ("huge", pytest.approx(0.505, abs=0.003)), ("next", pytest.approx(4.506, abs=0.005))]


@virtual
async def test_settling_gives_back_what_was_not_used_and_takes_what_was_used_more(door):
    queue = door.queue(door.group(tpm=60_000))
    door.goes("much", queue, tpm=1000, hold=0.1, used=100)
    door.goes("after", queue, tpm=900, hold=0.1, used=2900)
    door.goes("last", queue, tpm=1000)
    # 0.1 s refill 100, 900 come back: `after` goes at 0.1; its 2,900 leave -1,800 at 0.2 s.
    assert await door.all() == [("much", 0.0), ("after", 0.1), ("last", pytest.approx(0.2 + 2.8, abs=0.01))]


@virtual
async def test_nothing_is_held_while_it_waits(door):
    """Both dimensions or none: who waits for tokens leaves the request limit and the money to others."""
    account, purse = door.group("account", rpm=600), Purse(cap_pico=100, spent_pico=0, pinned_pico=0)
    a = door.queue(door.group("a", tpm=60_000), account, purse=purse)
    b = door.queue(door.group("b"), account, purse=purse)
    door.goes("a0", a, tpm=1000)
    door.goes("a1", a, tpm=1000, pico=100)
    await asyncio.sleep(0.01)
    assert (account.buckets[0].level, purse.held_pico) == (pytest.approx(9, abs=0.11), 0)
    door.goes("b", b, pico=100)
    assert [name for name, _ in await door.all()] == ["a0", "b", "a1"]


@virtual
async def test_a_shared_group_is_claimed_for_the_older_head(door):
    """Without the claim, small requests of `b` would keep the shared bucket below what `a` needs, for ever."""
    shared = door.group("shared", tpm=60_000)
    a, b = door.queue(door.group("a"), shared), door.queue(door.group("b"), shared)
    door.goes("b-first", b, tpm=1000)
    await asyncio.sleep(0.01)
    door.goes("a", a, tpm=1000)

    async def drip() -> None:
        for i in range(40):
            door.goes(f"b{i}", b, tpm=50)
            await asyncio.sleep(0.05)

    await drip()
    passed = dict(await door.all())
    assert passed["a"] == pytest.approx(1.0, abs=0.01)
    assert passed["b0"] >= passed["a"]


@virtual
async def test_a_head_that_waits_for_its_own_limit_does_not_hold_up_the_others(door):
    shared = door.group("shared", rpm=6000)
    a, b = door.queue(door.group("a", rpm=60), shared), door.queue(door.group("b"), shared)
    door.goes("a0", a)
    door.goes("a1", a)
    await asyncio.sleep(0)
    for i in range(5):
        door.goes(f"b{i}", b)
    assert [name for name, _ in await door.all()] == ["a0", "b0", "b1", "b2", "b3", "b4", "a1"]


@virtual
async def test_slots_free_up_one_by_one(door):
    queue = door.queue(door.group(slots=2))
    for i in range(6):
        door.goes(str(i), queue, hold=1.0)
    assert [at for _, at in await door.all()] == [0, 0, 1, 1, 2, 2]


@virtual
async def test_a_pause_that_begins_as_a_slot_frees_up_is_kept(door):
    """The settlement of a refusal comes a moment before its pause: nobody slips out in between."""
    group = door.group(slots=1)
    queue = door.queue(group)

    async def refused() -> None:
        lease = await door.admission.reserve(queue, {"rpm": 1.0}, 0)
        await asyncio.sleep(1.0)
        lease.end(used=None, cost_pico=0, maybe=False)
        group.pause(door.clock.now() + 5.0)

    task = asyncio.ensure_future(refused())
    await asyncio.sleep(0)
    door.goes("next", queue)
    await task
    assert await door.all() == [("next", 6.0)]


@virtual
async def test_probing_lets_one_through_at_a_time(door):
    group = door.group()
    queue = door.queue(group)
    group.probing = True
    for i in range(3):
        door.goes(str(i), queue, hold=1.0)
    await asyncio.sleep(1.5)
    assert [at for _, at in door.passed] == [0, 1]
    group.probing = False
    door.admission.pump()
    assert [at for _, at in await door.all()] == [0, 1, 1.5]


@virtual
async def test_fewer_slots_hold_back_what_waits(door):
    group = LimitGroup("g", slots=8, first_slots=8)
    queue = door.queue(group)
    for i in range(8):
        door.goes(str(i), queue, hold=1.0)
    door.goes("late", queue)
    await asyncio.sleep(0.5)
    group.refused(sent_at=0.0, now=0.5)
    assert group.slots == 4.0
    passed = await door.all()
    assert passed[-1] == ("late", 1.0)


@virtual
async def test_money_in_flight_is_waited_for(door):
    purse = Purse(cap_pico=100, spent_pico=0, pinned_pico=0)
    queue = door.queue(door.group(), purse=purse)
    for i in range(3):
        door.goes(str(i), queue, pico=60, hold=1.0, cost=20)
    assert [at for _, at in await door.all()] == [0, 1, 2]
    assert (door.broke, purse.spent_pico) == ([], 60)


@virtual
async def test_broke_only_when_nothing_can_come_back(door):
    purse = Purse(cap_pico=100, spent_pico=0, pinned_pico=0)
    queue = door.queue(door.group(), purse=purse)
    door.goes("first", queue, pico=98, hold=1.0, cost=None, maybe=True)
    last = door.goes("last", queue, pico=60)
    await asyncio.sleep(0.9)
    assert door.broke == []
    await asyncio.sleep(0.2)
    assert (door.broke, queue.blocked_by) == ([1.0], "budget")
    door.admission.close()
    with pytest.raises(Closed):
        await last


@virtual
async def test_close_tells_everybody_and_lets_nobody_in(door):
    queue = door.queue(door.group(slots=1))
    door.goes("in", queue, hold=5.0)
    waiting = [door.goes(str(i), queue) for i in range(5)]
    await asyncio.sleep(1)
    door.admission.close()
    assert [type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)] == [Closed] * 5
    with pytest.raises(Closed):
        await door.admission.reserve(queue, {}, 0)
    await door.tasks[0]
    assert door.admission.waiting == 0


@virtual
async def test_a_line_that_is_sent_away_leaves_its_groups_to_others(door):
    shared = door.group("shared", rpm=600)
    a, b = door.queue(shared), door.queue(shared)
    for i in range(10):
        door.goes(f"b{i}", b)
    waiting = [door.goes(f"a{i}", a) for i in range(3)]
    await asyncio.sleep(0.05)
    late = door.goes("late", b)
    await asyncio.sleep(0)
    door.admission.evict(a)
    assert [type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)] == [Evicted] * 3
    await late
    assert door.passed[-1] == ("late", pytest.approx(0.1, abs=0.01))


@virtual
async def test_who_is_cancelled_before_the_head_makes_way(door):
    queue = door.queue(door.group(tpm=60_000))
    door.goes("fills", queue, tpm=1000)
    large = door.goes("large", queue, tpm=1000)
    door.goes("small", queue, tpm=10)
    await asyncio.sleep(0.1)
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)
    door.tasks.remove(large)
    assert (await door.all())[-1] == ("small", pytest.approx(0.1, abs=0.01))


@virtual
async def test_granted_and_cancelled_in_one_moment_gives_everything_back(door):
    group, purse = door.group(rpm=600, tpm=60_000, slots=1), Purse(cap_pico=10, spent_pico=0, pinned_pico=0)
    queue = door.queue(group, purse=purse)
    first = await door.admission.reserve(queue, {"rpm": 1.0, "tpm": 10.0}, 5)
    second = asyncio.ensure_future(door.admission.reserve(queue, {"rpm": 1.0, "tpm": 400.0}, 7))
    await asyncio.sleep(0)
    first.end(used={"tpm": 0.0, "rpm": 0.0}, cost_pico=0, maybe=False)
    door.admission.pump()  # grants `second`, whose task has not run yet
    assert group.in_flight == 1
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert (group.in_flight, purse.held_pico, [one.level for one in group.buckets]) == (0, 0, [10, 1000])


@virtual
async def test_a_lease_ends_once(door):
    lease: Lease = await door.admission.reserve(door.queue(door.group()), {}, 0)
    lease.end(used=None, cost_pico=0, maybe=False)
    with pytest.raises(RuntimeError, match="once"):
        lease.end(used=None, cost_pico=0, maybe=False)


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_nothing_is_lost_and_nothing_is_exceeded(seed):
    """Random requests, ends and cancellations over two queues with a shared group: order, limits, money, and everything back in its place at the end."""

    async def main() -> None:
        rng, door = random.Random(seed), Door()
        shared, purse = door.group("shared", rpm=1200, tpm=60_000, slots=6), Purse(cap_pico=3000, spent_pico=0, pinned_pico=0)
        own = [door.group("a", tpm=30_000), door.group("b", rpm=600)]
        queues = [door.queue(group, shared, purse=purse) for group in own]
        order: dict[int, list[int]] = {0: [], 1: []}
        sent: list[tuple[float, float]] = []

        async def one(number: int, which: int) -> None:
            tokens, pico = float(rng.randrange(1, 900)), rng.randrange(1, 400)
            lease = await door.admission.reserve(queues[which], {"rpm": 1.0, "tpm": tokens}, pico)
            order[which].append(number)
            assert shared.in_flight <= 6
            assert purse.spent_pico + purse.reserved_pico <= 3000
            sent.append((door.clock.now(), tokens))
            used: dict[str, float] | None = None
            try:
                await asyncio.sleep(rng.choice([0, 0.05, 0.1, 0.3]))
            finally:
                lease.end(used=used, cost_pico=rng.randrange(0, 3), maybe=False)

        tasks = []
        for number in range(120):
            task = asyncio.ensure_future(one(number, rng.randrange(2)))
            tasks.append(task)
            if rng.random() < 0.3:
                # On a grid of tenths many cancellations meet a grant in the same moment.
                asyncio.get_running_loop().call_later(rng.choice([0, 0.05, 0.1, 0.5, 2]), task.cancel)
            if rng.random() < 0.5:
                await asyncio.sleep(rng.choice([0, 0.05, 0.1]))
        await asyncio.gather(*tasks, return_exceptions=True)
        errors = [task.exception() for task in tasks if not task.cancelled() and task.exception() is not None]
        assert errors == []
        assert all(numbers == sorted(numbers) for numbers in order.values())
        assert len(order[0]) + len(order[1]) >= 70
        for at, (begin, _) in enumerate(sent):
            total = 0.0
            for end, tokens in sent[at:]:
                assert total <= 1000 + 1000 * (end - begin) + 900
                total += tokens
        await asyncio.sleep(600)
        assert [group.in_flight for group in (shared, *own)] == [0, 0, 0]
        assert (purse.held_pico, purse.holders, door.admission.waiting) == (0, 0, 0)
        for group in (shared, *own):
            for one_ in group.buckets:
                one_.wait_seconds(0, door.clock.now())
                assert one_.level == one_.capacity

    run_virtual(main)


def test_a_further_try_keeps_its_place():
    async def main():
        clock = VirtualClock()
        admission = Admission(clock, on_broke=lambda: None)
        group = LimitGroup("g", buckets=[Bucket("rpm", per_minute=60, burst_seconds=1, now=clock.now())])
        queue = admission.queue((group,), Purse(cap_pico=None, spent_pico=0, pinned_pico=0))
        order = []

        async def pass_with(name, ticket):
            lease = await admission.reserve(queue, {"rpm": 1.0}, 0, ticket=ticket)
            order.append(name)
            lease.end(used=None, cost_pico=None, maybe=False)

        tickets = [admission.ticket() for _ in range(6)]
        await pass_with("first", tickets[0])
        tasks = [asyncio.ensure_future(pass_with(f"row {i}", tickets[i])) for i in (3, 4, 5)]
        await asyncio.sleep(0.1)
        tasks += [asyncio.ensure_future(pass_with(f"row {i} again", tickets[i])) for i in (2, 1)]
        await asyncio.gather(*tasks)
        assert order == ["first", "row 1 again", "row 2 again", "row 3", "row 4", "row 5"]

    run_virtual(main)
