"""The arithmetic of limits, slots, pauses and money, with time as an argument."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.admit import Bucket, LimitGroup, Purse


def bucket(per_minute: float = 600, burst: float = 1.0) -> Bucket:
    return Bucket("rpm", per_minute=per_minute, burst_seconds=burst, now=0.0)


@pytest.mark.parametrize(
    ("taken", "amount", "now", "wait"),
    [
        (0, 10, 0.0, 0.0),  # full at the start
        (10, 1, 0.0, 0.1),
        (10, 5, 0.25, 0.25),
        (10, 10, 5.0, 0.0),
        (10, 1, -3.0, 0.1),  # a clock that falls refills nothing
        (0, 1000, 0.0, 0.0),  # larger than the bucket: at a full one
        (1, 1000, 0.0, 0.105),  # ... and only there, when the provider's is surely full, too
        (1000, 1, 0.0, 99.1),  # in debt until it is paid
        (1000, 1000, 0.0, 100.005),
    ],
)
def test_wait_seconds(taken, amount, now, wait):
    one = bucket()
    one.take(taken)
    assert one.wait_seconds(amount, now) == pytest.approx(wait)


@pytest.mark.parametrize(("now", "wait"), [(0.05, 0.055), (0.1, 0.005), (0.104, 0.001), (0.106, 0.0), (50.0, 0.0)])
def test_what_is_larger_than_the_bucket_waits_until_it_has_been_full_for_a_moment(now, wait):
    for refill in (lambda one: one.take(1), lambda one: (one.take(3), one.give(2, 0.0))):
        one = bucket()
        refill(one)
        assert one.wait_seconds(1000, now) == pytest.approx(wait, abs=1e-9)
    one = bucket()
    one.take(9)
    one.give(9, 0.04)
    assert one.wait_seconds(1000, 0.042) == pytest.approx(0.003)


def test_it_saves_up_no_more_than_its_burst_and_at_least_one():
    one = bucket(burst=0.5)
    assert one.wait_seconds(0, 1000.0) == 0
    assert one.level == 5
    assert bucket(per_minute=1, burst=0.5).capacity == 1


def test_what_is_given_back_never_spills_over_and_more_use_makes_debt():
    one = bucket()
    one.take(8)
    one.give(4, 0.0)
    assert one.level == 6
    one.give(100, 0.0)
    assert one.level == 10
    one.give(-25, 0.0)
    assert (one.level, one.wait_seconds(1, 0.0)) == (-15, pytest.approx(1.6))


def test_an_absurd_usage_takes_a_minute_to_pay_back_at_most():
    one = bucket()
    one.give(-(10**9), 0.0)
    assert one.wait_seconds(1, 0.0) == pytest.approx(60.1)
    one.take(5000)  # what was let through at its declared size is a debt in full
    one.give(-(10**9), 0.0)
    assert one.level == -5600


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0.1, 40)), max_size=60))
def test_no_window_sees_more_than_burst_and_refill(steps):
    """Whoever sends only when `wait_seconds` is 0 never passes `capacity + rate * time`, save for the one oversize request at a full bucket."""
    one, now, passed = bucket(), 0.0, []
    for pause, amount in steps:
        now += pause
        wait = one.wait_seconds(amount, now)
        now += wait
        assert one.wait_seconds(amount, now) == pytest.approx(0, abs=1e-5)
        one.take(amount)
        passed.append((now, amount))
    for at, (begin, _) in enumerate(passed):
        total = 0.0
        for end, amount in passed[at:]:
            assert total <= one.capacity + one.rate * (end - begin) + 40 + 1e-3
            total += amount


class TestGroup:
    def test_slots_probe_and_pause(self):
        group = LimitGroup("g", slots=2)
        assert group.short_of({}, 0.0) is None
        group.take({})
        group.take({})
        assert group.short_of({}, 0.0) == ("concurrency", math.inf)
        group.end(None, 0.0)
        group.probing = True
        assert group.short_of({}, 0.0) == ("pause", math.inf)
        group.end(None, 0.0)
        assert group.short_of({}, 0.0) is None
        group.pause(10.0)
        group.pause(5.0)  # a shorter one never cuts a longer one
        assert group.short_of({}, 4.0) == ("pause", 6.0)
        assert group.short_of({}, 10.0) is None

    def test_a_burst_of_refusals_is_one(self):
        group = LimitGroup("g", slots=64.0, first_slots=64.0)
        for _ in range(40):
            group.take({})
        assert group.refused(sent_at=0.0, now=1.0)
        slots = group.slots
        assert slots == pytest.approx(20.5)
        assert [group.refused(sent_at=0.5, now=1.0 + i / 10) for i in range(39)] == [False] * 39
        assert (group.slots, group.refusals) == (slots, 1)
        assert group.refused(sent_at=1.5, now=2.0)
        assert (group.refusals, group.slots < slots) == (2, True)

    def test_slots_are_never_fewer_than_one_and_grow_back(self):
        group = LimitGroup("g", slots=8.0, first_slots=8.0)
        for now in range(20):
            group.refused(sent_at=float(now), now=float(now))
        assert group.slots == 1
        for _ in range(200):
            group.went_well(0.0)
        assert (group.slots, group.refusals) == (8.0, 0)

    @pytest.mark.parametrize("slots", [8.0, math.inf])
    def test_declared_slots_stay_what_they_are(self, slots):
        group = LimitGroup("g", slots=slots)
        assert group.refused(sent_at=0.0, now=0.0)
        assert group.slots == slots

    def test_the_longest_wait_is_told(self):
        group = LimitGroup("g", buckets=[bucket(), Bucket("tpm", per_minute=6000, burst_seconds=1, now=0.0)])
        group.take({"rpm": 10, "tpm": 100})
        assert group.short_of({"rpm": 1, "tpm": 50}, 0.0) == ("tpm", 0.5)
        assert group.short_of({"rpm": 8, "tpm": 50}, 0.0) == ("rpm", pytest.approx(0.8))
        assert group.short_of({}, 0.0) is None


class TestPurse:
    @given(
        st.integers(0, 1000),
        st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1), st.sampled_from(["cost", "maybe", "nothing"]), st.integers(0, 5)), max_size=60),
    )
    def test_the_promise_holds_while_nobody_bills_above_the_bound(self, cap, steps):
        purse = Purse(cap_pico=cap, spent_pico=0, pinned_pico=0)
        held: list[tuple[int, float, str]] = []
        for pico, share, end, wait in steps:
            if purse.fits(pico):
                purse.hold(pico)
                held.append((pico, share, end))
            if len(held) > wait:
                back, share_, end_ = held.pop(0)
                purse.settle(back, cost_pico=int(back * share_) if end_ == "cost" else None, maybe=end_ == "maybe")
            assert purse.spent_pico + purse.reserved_pico <= cap
            assert not purse.overdrawn
            assert purse.holders == len(held)
            assert purse.held_pico == sum(pico for pico, _, _ in held)

    def test_the_truth_is_booked_even_above_the_cap(self):
        purse = Purse(cap_pico=100, spent_pico=90, pinned_pico=0)
        purse.hold(10)
        purse.settle(10, cost_pico=25, maybe=False)
        assert (purse.spent_pico, purse.overdrawn, purse.fits(0)) == (115, True, False)

    @pytest.mark.parametrize(
        ("cap", "cost", "maybe", "overdrawn"),
        [
            (60, 5, False, False),  # 40 spent and 40 held: what is held may come back, and does
            (60, 20, False, False),
            (60, 21, False, True),  # it didn't come back
            (60, None, True, True),  # it may have been spent
            (39, 0, False, True),  # spent already
        ],
    )
    def test_a_lowered_cap_is_passed_by_what_is_spent_not_by_what_is_held(self, cap, cost, maybe, overdrawn):
        purse = Purse(cap_pico=100, spent_pico=40, pinned_pico=0)
        purse.hold(10)
        purse.hold(40)
        purse.set_cap(cap)
        assert (purse.lowered, purse.fits(0)) == (True, False)
        purse.settle(10, cost_pico=0, maybe=False)
        assert purse.overdrawn is (cap < 40)
        purse.settle(40, cost_pico=cost, maybe=maybe)
        assert purse.overdrawn is overdrawn
        purse.set_cap(200)
        assert (purse.lowered, purse.overdrawn, purse.fits(100)) == (False, False, True)

    def test_under_a_lowered_cap_billing_above_the_bound_is_still_seen(self):
        purse = Purse(cap_pico=100, spent_pico=0, pinned_pico=0)
        purse.hold(40)
        purse.hold(40)
        purse.set_cap(60)
        purse.settle(40, cost_pico=45, maybe=False)
        assert purse.overdrawn

    def test_what_may_have_been_billed_stays_pinned(self):
        purse = Purse(cap_pico=100, spent_pico=0, pinned_pico=30)
        assert not purse.fits(71)
        purse.hold(70)
        purse.settle(70, cost_pico=None, maybe=True)
        assert (purse.reserved_pico, purse.pinned_pico, purse.fits(1)) == (100, 100, False)

    def test_no_cap_is_no_cap(self):
        purse = Purse(cap_pico=None, spent_pico=10**30, pinned_pico=0)
        assert purse.fits(10**30)
        assert not purse.overdrawn
