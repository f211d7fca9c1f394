"""Runs that share a limit: the arithmetic of parts, what is held while they shift, and files of runs that live, stop, or died."""

from __future__ import annotations

import fcntl
import json
import math
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.core.secret import Secret
from batchllm.share import Claim, DayLedger, Seat, account_of, running, state_folder
from batchllm.share.claim import granted
from batchllm.share.ledger import leased
from batchllm.share.seat import SILENT_SECONDS, Busy
from batchllm.share.split import split, split_whole

INF = math.inf


# Parts of a limit.


@pytest.mark.parametrize(
    ("limit", "wants", "parts"),
    [
        (600, [INF], [600]),
        (600, [0], [600]),  # alone: all of it, wanted or not
        (600, [INF, INF], [300, 300]),
        (600, [100, INF], [100, 500]),  # what one doesn't use moves
        (600, [100, 200, INF], [100, 200, 300]),
        (600, [0, INF], [6, 594]),  # the idle keep a little
        (600, [100, 100], [300, 300]),  # what nobody asks for is spread
        (600, [500, 300, 10], [295, 295, 10]),
        (600, [], []),
    ],
)
def test_split(limit, wants, parts):
    assert split(limit, wants, [INF] * len(wants)) == pytest.approx(parts)


def test_a_run_that_may_have_a_part_only_leaves_the_rest_to_others():
    assert split(600, [INF, INF], [120, INF]) == pytest.approx([120, 480])
    assert split(600, [INF, 10], [120, INF]) == pytest.approx([120, 480])


@pytest.mark.parametrize(
    ("limit", "wants", "parts"),
    [(5, [INF, INF], [3, 2]), (5, [1, INF], [1, 4]), (2, [INF, INF, INF], [1, 1, 0]), (1, [0, INF], [1, 0]), (64, [INF], [64])],
)
def test_slots_are_split_in_whole_ones(limit, wants, parts):
    assert split_whole(limit, wants, [INF] * len(wants)) == parts


wishes = st.lists(st.one_of(st.just(INF), st.floats(0, 1e6)), min_size=1, max_size=12)


@given(st.floats(1, 1e6), wishes, st.data())
def test_parts_never_add_up_to_more_and_nobody_gets_nothing(limit, wants, data):
    mosts = data.draw(st.lists(st.one_of(st.just(INF), st.floats(0.1, 1e6)), min_size=len(wants), max_size=len(wants)))
    parts = split(limit, wants, mosts)
    assert math.fsum(parts) <= limit * (1 + 1e-9)
    for part, want, most in zip(parts, wants, mosts, strict=True):
        assert 0 < part <= most
        # Nobody is kept below an even part that it could use.
        assert part >= min(want, most, limit / len(wants)) * (1 - 1e-9)
    if any(want == most == INF for want, most in zip(wants, mosts, strict=True)):
        assert math.fsum(parts) == pytest.approx(limit)


@given(st.integers(1, 500), wishes)
def test_slots_never_add_up_to_more_and_none_is_left_over(limit, wants):
    parts = split_whole(limit, wants, [INF] * len(wants))
    assert sum(parts) == limit
    assert min(parts) >= (1 if limit >= len(wants) else 0)


# What is granted while parts shift.


def claim(held: float = 0.0, *, limit: float | None = 600.0, **more: object) -> Claim:
    return Claim(limit=limit, held=held, **more)


def test_a_newcomer_gets_nothing_until_the_others_have_let_go():
    assert granted([claim(600), claim()], 1).part == 0
    assert granted([claim(600), claim()], 1).target == 300
    assert granted([claim(600), claim()], 0).part == 300
    assert granted([claim(300), claim()], 1).part == pytest.approx(300)


@pytest.mark.parametrize(
    ("claims", "mine", "part"),
    [
        ([claim(), claim(limit=200)], 0, 100),  # the lowest limit that anybody knows
        ([claim(limit=None), claim(limit=200)], 0, 100),
        ([claim(limit=600, most=120.0), claim()], 0, 120),
        ([claim(2, limit=4, whole=True), claim(limit=4, whole=True)], 1, 2),
        ([claim(4, limit=4, whole=True), claim(limit=4, whole=True)], 1, 0),
        ([claim(1, limit=1, whole=True), claim(limit=1, whole=True)], 1, 0),
    ],
)
def test_granted(claims, mine, part):
    assert granted(claims, mine).part == pytest.approx(part)


def test_a_limit_that_nobody_knows_is_not_granted():
    assert granted([claim(limit=None), claim(limit=None)], 0) is None


steps = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["want", "idle", "leave", "beat"])), max_size=80)


@given(st.floats(10, 1e5), steps)
def test_what_is_held_never_adds_up_to_more_whoever_comes_and_goes(limit, moves):
    present: dict[int, Claim] = {}
    for run, move in moves:
        if move == "leave":
            present.pop(run, None)
            continue
        want = {"want": None, "idle": 0.0, "beat": limit / 3}[move]
        present[run] = Claim(limit=limit, want=want, held=present[run].held if run in present else 0.0)
        order = sorted(present)
        part = granted([present[one] for one in order], order.index(run)).part
        present[run] = Claim(limit=limit, want=want, held=part)
        assert math.fsum(one.held for one in present.values()) <= limit * (1 + 1e-12)
    for _ in range(2):
        for run in sorted(present):
            order = sorted(present)
            present[run] = Claim(limit=limit, want=None, held=granted([present[one] for one in order], order.index(run)).part)
    # Two words of each are enough for everybody to have its part.
    assert all(one.held == pytest.approx(limit / len(present)) for one in present.values())


# Files.


def seat(folder, since: float = 1000.0, **info: object) -> Seat:
    return Seat(folder / "state", {"job": "j", "store": "/x.db", "pid": os.getpid(), "since": since, **info})


def word(one: Seat, now: float, want: float | None = None, limit: float = 600.0) -> float:
    return one.beat(now, {"a/rpm": Claim(limit=limit, want=want)}, {"state": "running"})["a/rpm"].part


def test_two_runs_share_and_the_last_one_has_it_all(tmp_path):
    first, second = seat(tmp_path, 1.0), seat(tmp_path, 2.0)
    assert word(first, 0.0) == 600
    assert word(second, 0.5) == 0, "the first one doesn't know of it yet"
    assert word(first, 1.0) == pytest.approx(300)
    assert word(second, 1.1) == pytest.approx(300)
    assert word(first, 2.0, want=30) == pytest.approx(30)
    assert word(second, 2.1) == pytest.approx(570)
    # It wants more again: as soon as the other has let go.
    assert word(first, 3.0) == pytest.approx(30)
    assert word(second, 3.1) == pytest.approx(300)
    assert word(first, 3.2) == pytest.approx(300)
    second.leave()
    assert word(first, 4.0) == 600
    first.leave()
    assert running(tmp_path / "state") == []


def die(one: Seat) -> None:
    """As the kernel does it: the lock goes, the file stays."""
    os.close(one._fd)
    one._fd = None


def test_a_dead_run_gives_its_part_back_though_its_process_id_lives(tmp_path):
    first, second = seat(tmp_path, 1.0), seat(tmp_path, 2.0)  # both name this very process: to a process id, the dead one looks alive
    word(first, 0.0), word(second, 0.1), word(first, 0.2)
    assert word(second, 0.3) == pytest.approx(300)
    die(first)
    assert word(second, 0.4) == 600
    assert [one["since"] for one in running(tmp_path / "state")] == [2.0]
    assert len(list((tmp_path / "state" / "runs").iterdir())) == 1, "its file is gone, too"
    second.leave()


def test_a_stopped_run_lends_its_part_and_takes_nothing_back_that_is_in_use(tmp_path):
    first, second = seat(tmp_path, 1.0), seat(tmp_path, 2.0)
    word(first, 0.0), word(second, 0.1), word(first, 0.2)
    now = 0.3
    while now < 0.2 + SILENT_SECONDS:
        assert word(second, now) == pytest.approx(300), "no word for a few seconds is no death"
        now += 1.0
    assert word(second, now + 0.5) == 600
    assert len(running(tmp_path / "state")) == 2
    # It goes on.
    assert word(first, now + 1.0) == 0
    assert word(second, now + 1.5) == pytest.approx(300)
    assert word(first, now + 1.6) == pytest.approx(300)
    first.leave(), second.leave()


def test_who_slept_itself_calls_nobody_stopped(tmp_path):
    first, second = seat(tmp_path, 1.0), seat(tmp_path, 2.0)
    word(first, 0.0), word(second, 0.1), word(first, 0.2), word(second, 0.3)
    # Both were away for an hour, and one is a little quicker on its feet.
    assert word(second, 3600.0) == pytest.approx(300)
    assert word(second, 3601.0) == pytest.approx(300)
    first.leave(), second.leave()


def test_a_torn_file_of_a_living_run_is_read_as_it_was(tmp_path):
    first, second = seat(tmp_path, 1.0), seat(tmp_path, 2.0)
    word(first, 0.0), word(second, 0.1), word(first, 0.2), word(second, 0.3)
    os.pwrite(first._fd, b"{]" * 50, 0)
    assert word(second, 1.0) == pytest.approx(300)
    first.leave(), second.leave()


def test_a_swept_folder_is_made_anew(tmp_path):
    first, second = seat(tmp_path, 1.0), seat(tmp_path, 2.0)
    word(first, 0.0), word(second, 0.1), word(first, 0.2), word(second, 0.3)
    for path in (tmp_path / "state" / "runs").iterdir():
        path.unlink()
    word(first, 1.0), word(second, 1.1), word(first, 1.2)
    assert word(second, 1.3) == pytest.approx(300)
    assert len(running(tmp_path / "state")) == 2
    first.leave(), second.leave()


def test_only_the_user_may_read_and_write(tmp_path):
    (tmp_path / "state").mkdir(mode=0o755)
    one = seat(tmp_path)
    word(one, 0.0)
    modes = {path.name.partition("-")[0]: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "state", *(tmp_path / "state").rglob("*")]}
    assert all(mode == (0o700 if name in {"state", "runs"} else 0o600) for name, mode in modes.items()), modes
    one.leave()


def test_a_lock_in_other_hands_is_told_and_nothing_is_lost(tmp_path):
    one = seat(tmp_path)
    assert word(one, 0.0) == 600
    fd = os.open(tmp_path / "state" / "runs.lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(Busy):
        word(one, 1.0)
    with pytest.raises(Busy):
        running(tmp_path / "state")
    os.close(fd)
    assert word(one, 2.0) == 600
    one.leave()


def test_what_is_written_says_who_runs_and_no_secret(tmp_path):
    account = account_of("openai", "https://user:pass@api.example.com/v1", Secret("sk-very-secret"), {"Authorization": Secret("Bearer hidden-too")})
    one = seat(tmp_path, accounts=[account.as_dict()])
    word(one, 0.0)
    (entry,) = running(tmp_path / "state")
    assert (entry["job"], entry["state"], entry["accounts"][0]["host"]) == ("j", "running", "api.example.com")
    (path,) = (tmp_path / "state" / "runs").iterdir()
    text = path.read_text()
    assert not any(secret in text for secret in ("secret", "hidden", "pass"))
    assert json.loads(text)["version"] == 1
    assert len(text) % 4096 == 0, "written over in place, without new room on the disk"
    one.leave()


# A day's money.

DAY = 20_000 * 86_400.0


@pytest.mark.parametrize(
    ("held", "used", "need", "mine"),
    [
        ({}, 0, 10, 125),  # an eighth of what is left
        ({}, 0, 300, 300),  # as much as is needed
        ({"b": 900}, 0, 10, 12),  # near the cap, leases get small
        ({"b": 900}, 0, 200, 100),  # too little: all that is left
        ({"b": 1000}, 0, 1, 0),
        ({"a": 500}, 20, 10, 142),  # its own old lease is no hindrance, and shrinks
        ({"b": 900}, 300, 1, 300),  # the truth, also above the cap
    ],
)
def test_leased(held, used, need, mine):
    assert leased(held, "a", cap=1000, used=used, need=need) == mine


moves = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 400), st.sampled_from(["spend", "crash", "give"])), max_size=60)


@given(st.integers(100, 5000), moves)
def test_stores_never_spend_more_than_the_cap_together(cap, moves):
    held: dict[str, int] = {}
    used = dict.fromkeys("abc", 0)
    for who, pico, move in moves:
        if move == "crash":
            continue  # the lease stays
        held[who] = leased(held, who, cap=cap, used=used[who], need=pico if move == "spend" else 0)
        if move == "spend" and used[who] + pico <= held[who]:
            used[who] += pico
        assert sum(used.values()) <= sum(held.values()) <= cap
    for who in "abc":
        held[who] = used[who]
    assert leased(held, "a", cap=cap, used=used["a"], need=cap) == cap - used["b"] - used["c"], "all that is left can be had in the end"


def test_a_ledger_holds_a_dead_run_s_lease_until_its_store_is_opened_again(tmp_path):
    (tmp_path / "state").mkdir()
    one, other = (DayLedger(tmp_path / "state", "digest/group:odd / name", who) for who in ("job-1", "job-2"))
    assert one.lease(DAY + 5, cap=800, used=0, need=1) == 100
    # It dies here, having spent 30.
    assert other.lease(DAY + 6, cap=800, used=0, need=750) == 700
    one.settle(DAY + 7, used=30)
    assert other.lease(DAY + 8, cap=800, used=700, need=60) == 760
    # Another day.
    assert other.lease(DAY + 86_400, cap=800, used=0, need=800) == 800
    assert DayLedger(tmp_path / "state", "digest/group:another", "job-1").lease(DAY, cap=800, used=0, need=800) == 800
    later = DayLedger(tmp_path / "state", "digest/group:odd / name", "job-1")
    later.lease(DAY + 3 * 86_400, cap=800, used=0, need=1)
    days = {path.name.partition("-")[0] for path in (tmp_path / "state" / "days").iterdir()}
    assert days == {"20001", "20003"}, "older days are swept away"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state" / "days").iterdir()} == {0o600}


def test_a_damaged_ledger_lends_nothing(tmp_path):
    (tmp_path / "state").mkdir()
    one = DayLedger(tmp_path / "state", "pool", "job-1")
    one.lease(DAY, cap=800, used=0, need=1)
    (path,) = (tmp_path / "state" / "days").iterdir()
    path.write_text('{"held_pico": [')
    with pytest.raises(OSError, match="damaged"):
        one.lease(DAY, cap=800, used=0, need=1)


# Who is who.


@pytest.mark.parametrize(
    ("same", "other"),
    [
        (True, ("openai", "https://api.example.com/v1/", "sk-1", {})),
        (True, ("openai", "https://API.example.com/v1", "sk-1", {"X-Trace": "job 7"})),
        (False, ("openai", "https://api.example.com/v1", "sk-2", {})),
        (False, ("openai", "https://api.example.com/v1", None, {})),
        (False, ("openai", "https://api.example.com/v2", "sk-1", {})),
        (False, ("openai-compatible", "https://api.example.com/v1", "sk-1", {})),
        (False, ("openai", "https://api.example.com/v1", "sk-1", {"OpenAI-Project": "p"})),
    ],
)
def test_an_account_is_provider_address_and_key(same, other):
    def account(provider, url, key, headers):
        return account_of(provider, url, Secret(key) if key else None, {name: Secret(value) for name, value in headers.items()})

    one = account("openai", "https://api.example.com/v1", "sk-1", {})
    assert (one.digest == account(*other).digest) is same
    assert len(one.digest) == 16


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HOME": "/h", "BATCHLLM_STATE": "/s", "XDG_STATE_HOME": "/x"}, "/s"),
        ({"HOME": "/h", "BATCHLLM_STATE": "", "XDG_STATE_HOME": "/x"}, "/x/batchllm"),
        ({"HOME": "/h", "XDG_STATE_HOME": "relative"}, "/h/.local/state/batchllm"),
        ({"HOME": "/h"}, "/h/.local/state/batchllm"),
        ({}, None),
    ],
)
def test_the_state_folder(environ, folder):
    assert (str(state_folder(environ)) if folder else state_folder(environ)) == folder
