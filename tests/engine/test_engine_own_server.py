"""A server of one's own: no limits to run into, only a throughput to use up - and a queue that more requests would only wait in."""

from __future__ import annotations

import heapq

import pytest
from world import Scripted, good

OWN = {"provider": "openai-compatible", "base_url": "http://127.0.0.1:1/v1", "api_key_env": "none"}


class Server:
    """So many slots of a second each, and a queue before them."""

    def __init__(self, slots: int) -> None:
        self._free = [0.0] * slots

    def __call__(self, _nth: int, _text: str, now: float):
        begins = max(now, heapq.heappop(self._free))
        heapq.heappush(self._free, begins + 1.0)
        return (begins + 1.0 - now, good())


@pytest.mark.parametrize(("slots", "count", "most"), [(1, 60, 8), (8, 400, 20), (64, 6000, 150)])
def test_as_many_in_flight_as_the_server_can_use_and_not_many_more(world, slots, count, most):
    script = Scripted(Server(slots))
    w = world(count, scripts={"m": script}, models={"m": OWN})
    summary = w.run()
    assert (summary.exit_code, summary.attempts) == (0, count)
    assert script.most_in_flight <= most
    # At the end it is as busy as it can be.
    last = [at for at in script.times if at > script.times[-1] * 0.75]
    assert len(last) / (last[-1] - last[0]) >= 0.95 * slots


def test_slow_input_says_nothing_about_the_server():
    from batchllm.admit.saturation import Saturation

    one = Saturation(4, 256)
    for second in range(1000):
        assert one.answered(float(second), 1) == 4


def test_a_refusal_is_the_edge():
    from batchllm.admit.saturation import Saturation

    one = Saturation(4, 256)
    now, slots = 0.0, 4.0
    while slots < 64:
        now += 1 / slots
        slots = one.answered(now, slots)
    one.refused(32.0)
    for _ in range(500):
        now += 1 / 32
        assert one.answered(now, 32) == 32
