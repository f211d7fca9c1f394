"""Which stored row is this input row: fresh, resumed, repeated, moved, removed, returned, streamed - with no loop and no engine."""

from __future__ import annotations

import sqlite3

import pytest

from batchllm.core.nouns import Row
from batchllm.store import schema
from batchllm.store.intake import Bits, Intake, load_histories
from batchllm.store.records import FAILED, OK, PENDING
from batchllm.store.store import reopen


@pytest.fixture
def connection():
    one = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(one)
    yield one
    one.close()


def rows(*names: str, at: int = 0) -> list[Row]:
    """`a` is an id, `=a` content of a numbered row, `!a` a line that can't be read."""
    kinds = {"=": "content:", "!": "bad:"}
    return [
        Row(
            position=at + i,
            custom_id=None if name[0] in kinds else name,
            identity=kinds.get(name[0], "id:") + name.lstrip("=!"),
            fields={},
            place=f"in:{i}",
        )
        for i, name in enumerate(names)
    ]


def take(connection, *names, fresh=False, stream=False, adding=True, chunk=3):
    """One pass in chunks, as the feeder makes it."""
    intake = Intake(connection, fresh=fresh, stream=stream, adding=adding)
    found = []
    for at in range(0, len(names), chunk):
        found += intake.take(rows(*names[at : at + chunk], at=at))
    return intake, found


def table(connection):
    return connection.execute("SELECT identity, nth, row, custom_id FROM rows ORDER BY row IS NULL, row, row_key").fetchall()


def test_a_first_pass_takes_everything_in(connection):
    _, found = take(connection, "a", "=x", "!z", fresh=True)
    assert [(one.row_key, one.state, one.nth, one.custom_id, one.new, one.position) for one in found] == [
        (1, PENDING, 1, "a", True, 0), (2, PENDING, 1, "1", True, 1), (3, PENDING, 1, None, True, 2),
    ]  # fmt: skip
    assert table(connection) == [("id:a", 1, 0, "a"), ("content:x", 1, 1, "1"), ("bad:z", 1, 2, None)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_repeats_are_counted_within_and_over_chunks(connection, chunk):
    _, found = take(connection, "a", "a", "b", "=x", "a", "=x", "b", fresh=True, chunk=chunk)
    assert [one.nth for one in found] == [1, 2, 1, 1, 3, 2, 2]
    assert len({one.row_key for one in found}) == 7
    # The same again, on a store that knows them.
    intake, again = take(connection, "a", "a", "b", "=x", "a", "=x", "b", chunk=chunk)
    assert [(one.row_key, one.nth, one.new) for one in again] == [(one.row_key, one.nth, False) for one in found]
    assert intake.unseen() == []


def test_moved_rows_keep_their_key_and_numbered_ones_get_a_new_number(connection):
    _, first = take(connection, "=x", "=y", "=x", "b", fresh=True)
    _, second = take(connection, "b", "=x", "=new", "=x", "=y")
    x1, y, x2, b = (one.row_key for one in first)
    assert [(one.row_key, one.new, one.position, one.custom_id) for one in second] == [
        (b, False, 0, "b"), (x1, False, 1, "1"), (5, True, 2, "2"), (x2, False, 3, "3"), (y, False, 4, "4"),
    ]  # fmt: skip
    assert [row for _, _, row, _ in table(connection)] == [0, 1, 2, 3, 4]


def test_removed_rows_lose_their_place_and_come_back_as_what_they_were(connection):
    _, first = take(connection, "a", "b", "c", fresh=True)
    connection.execute("UPDATE rows SET state = ? WHERE row_key = ?", (OK, first[0].row_key))
    intake, _ = take(connection, "b")
    assert intake.unseen() == [1, 3]
    assert intake.remove_unseen() == 2
    assert table(connection) == [("id:b", 1, 0, "b"), ("id:a", 1, None, "a"), ("id:c", 1, None, "c")]
    intake, back = take(connection, "c", "a", "b")
    # An answered row that returns brings its answer; a pending one is as good as new.
    assert [(one.row_key, one.state, one.new) for one in back] == [(3, PENDING, True), (1, OK, False), (2, PENDING, False)]
    assert intake.unseen() == []


def test_a_pass_that_only_compares_changes_nothing(connection):
    take(connection, "a", "b", fresh=True)
    before = table(connection)
    intake, found = take(connection, "new", "b", "b", adding=False)
    assert [(one.new, one.nth) for one in found] == [(True, 1), (False, 1), (True, 2)]
    assert (table(connection), intake.unseen()) == (before, [1])


def test_a_stream_adds_behind_what_is_known_and_takes_nothing_away(connection):
    take(connection, "a", "b", fresh=True, stream=True)
    _, found = take(connection, "c", "a", "a", stream=True)
    assert [(one.row_key, one.position, one.nth, one.new) for one in found] == [(3, 2, 1, True), (1, 0, 1, False), (4, 3, 2, True)]
    assert [row for _, _, row, _ in table(connection)] == [0, 1, 2, 3]


def test_bits():
    bits = Bits()
    for key in (0, 7, 8, 1_000_000):
        bits.add(key)
    assert [key for key in (0, 1, 7, 8, 9, 999_999, 1_000_000, 10**9) if key in bits] == [0, 7, 8, 1_000_000]


class TestHistory:
    @pytest.fixture
    def store(self, connection):
        connection.execute("INSERT INTO deployments VALUES (1, 'm', 'simulated', '', 'm'), (2, 'b', 'simulated', '', 'b')")
        take(connection, "a", "b", "c", fresh=True)
        return connection

    @staticmethod
    def attempt(connection, key, attempt, outcome, *, deployment=1, counted=1, cost=None, status=None):
        connection.execute(
            """INSERT INTO attempt_log (row_key, attempt, kind, deployment, simulated, started_at, run, outcome, counted, cost_pico, http_status)
               VALUES (?, ?, 'first', ?, 0, 0, 1, ?, ?, ?, ?)""",
            (key, attempt, deployment, outcome, counted, cost, status),
        )

    def test_what_counts_per_model(self, store):
        for attempt, (outcome, deployment, counted, cost, status) in enumerate(
            [
                ("unavailable", 1, 1, 5, 500), ("rate_limited", 1, 0, 0, 429), ("cancelled", 1, 0, None, None), ("unavailable", 1, 1, None, 504),
                ("timeout", 2, 1, None, None), ("timeout", 2, 1, 7, None),
            ], 1,
        ):  # fmt: skip
            self.attempt(store, 1, attempt, outcome, deployment=deployment, counted=counted, cost=cost, status=status)
        (history,) = load_histories(store, [1, 2]).values()
        assert (history.attempts, history.failures, history.cost_pico) == (6, {"m": 2, "b": 2}, 12)
        assert history.by_outcome == {("m", "unavailable"): 1, ("m", "gateway_timeout"): 1, ("b", "timeout"): 2}

    @pytest.mark.parametrize(("reason", "changed", "cost"), [("retry", False, 5), ("changed", True, None)])
    def test_reopen_forgets_failures_and_moves_the_answer_to_history(self, store, reason, changed, cost):
        self.attempt(store, 1, 1, "rejected", cost=5)
        store.execute(
            "INSERT INTO outcomes (row_key, status, attempts, run, finished_at, error_code, fingerprint, deployment, cost_pico) VALUES (1, 'failed', 1, 1, 9, 'rejected', 'v1:x', 1, 5)"
        )
        store.execute("UPDATE rows SET state = ? WHERE row_key = 1", (FAILED,))
        reopen(store, [1], reason=reason, now_utc=77.0, changed=changed, pin="b")
        assert store.execute("SELECT state, pin FROM rows WHERE row_key = 1").fetchone() == (PENDING, "b")
        assert store.execute("SELECT count(*) FROM outcomes").fetchone() == (0,)
        columns = "replaced_at, reason, row_key, custom_id, status, model, error_code, fingerprint, attempts, cost_pico"
        assert store.execute(f"SELECT {columns} FROM history").fetchone() == (77.0, reason, 1, "a", "failed", "m", "rejected", "v1:x", 1, 5)
        (history,) = load_histories(store, [1]).values()
        # Every request ever sent is counted; costs start anew only when the request changed.
        assert (history.attempts, history.failures, history.cost_pico) == (1, {}, cost)
        self.attempt(store, 1, 2, "unavailable", cost=3)
        (history,) = load_histories(store, [1]).values()
        assert (history.failures, history.cost_pico) == ({"m": 1}, (cost or 0) + 3)
