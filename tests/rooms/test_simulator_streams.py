"""Streams of the simulator in virtual time: what comes when, what ends them, and what is booked."""

from __future__ import annotations

import asyncio

import pytest

from batchllm.core import json
from batchllm.core.nouns import Fault, Kind
from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.simulator.faults import KINDS

SLOW = Settings(latency_ms=1000, latency_sigma=0)
USER = [{"role": "user", "content": "x"}]


class Reader:
    """Takes frames that bring data for progress, as a decoder would."""

    def __init__(self, clock=None):
        self.clock = clock
        self.data = b""
        self.times = []

    def feed(self, chunk):
        self.data += chunk
        moved = chunk.strip() != b"" and not chunk.startswith(b":")
        if moved and self.clock is not None:
            self.times.append(self.clock.now())
        return moved

    def events(self):
        found = [line[6:] for line in self.data.split(b"\n") if line.startswith(b"data: ")]
        return [json.loads(line) for line in found if line != b"[DONE]"]

    def text(self):
        return "".join(event["choices"][0]["delta"].get("content") or "" for event in self.events() if event.get("choices"))


def call(text="Hello", path="/v1/chat/completions", **more):
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True, "stream_options": {"include_usage": True}, **more}
    return HttpCall(url="http://sim" + path, body=json.dumps(body))


def played(request, settings=None, *, timeout=30.0, stall=10.0):
    """What came, the reader, when it was over, and the books."""

    async def main():
        clock = VirtualClock()
        simulator = Simulator(settings or Settings())
        reader = Reader(clock)
        came = await SimulatedTransport(simulator, clock).stream(request, reader, timeout_seconds=timeout, stall_seconds=stall)
        return came, reader, clock.now(), simulator.audit.records[0]

    return run_virtual(main)


def plain(request):
    simulator = Simulator()
    script = simulator.receive(HttpCall(url=request.url, body=json.dumps({**json.loads(request.body), "stream": False})), now=0, utc=0)
    return json.loads(script.body)


def test_a_stream_takes_as_long_as_the_answer_and_begins_earlier():
    came, reader, now, record = played(call(), SLOW)
    assert isinstance(came, HttpReply)
    assert came.body == b""
    assert reader.text() == plain(call())["choices"][0]["message"]["content"]
    assert reader.times[0] == pytest.approx(0.3, abs=1e-3)
    assert now == pytest.approx(1.0, abs=1e-3)
    gaps = [later - earlier for earlier, later in zip(reader.times, reader.times[1:], strict=False)]
    assert max(gaps) - min(gaps) < 1e-3
    assert (record.delivered, record.billed, record.seconds) == (True, True, pytest.approx(1.0, abs=1e-3))
    assert reader.events()[-1]["usage"] == plain(call())["usage"]


@pytest.mark.parametrize(
    ("fault", "kind", "at", "begun"),
    [
        ("stall", Kind.TIMEOUT, 30.0, False),
        ("stall_mid", Kind.TIMEOUT, None, True),
        ("stream_stall_comments", Kind.TIMEOUT, 11.0, True),
        ("reset_mid", Kind.NETWORK, None, True),
        ("short_body", Kind.NETWORK, None, True),
        ("reset", Kind.NETWORK, 1.0, False),
        ("refuse", Kind.UNREACHABLE, 0.0, False),
    ],
)
def test_how_a_stream_breaks(fault, kind, at, begun):
    came, reader, now, record = played(call(f"[[sim:{fault}]] hello"), SLOW)
    assert isinstance(came, Fault)
    assert came.kind is kind
    assert bool(reader.times) is begun
    assert now == pytest.approx(reader.times[-1] + 10 if at is None and kind is Kind.TIMEOUT else now if at is None else at, abs=1e-3)
    assert not record.delivered
    assert record.fault == fault
    if begun:
        assert record.billed


def test_comments_are_no_progress():
    came, reader, _, _ = played(call("[[sim:stream_stall_comments]] hello"), SLOW)
    assert reader.data.count(b": keep-alive") >= 18
    assert "stalled: nothing new for 10 s" in came.message


def test_the_first_progress_has_the_whole_timeout_and_the_next_the_stall_time():
    came, _, now, _ = played(call(), Settings(latency_ms=100_000, latency_sigma=0), timeout=29.9, stall=1000)
    assert (came.message, now) == ("no answer began within 29.9 s", pytest.approx(29.9))
    came, _, now, _ = played(call(max_tokens=20), Settings(latency_ms=100_000, latency_sigma=0), timeout=31, stall=1.0)
    assert (came.message, now) == ("the answer stalled: nothing new for 1 s", pytest.approx(31))
    # A long answer is no fault.
    assert isinstance(played(call(max_tokens=20), Settings(latency_ms=100_000, latency_sigma=0), timeout=31, stall=50)[0], HttpReply)


@pytest.mark.parametrize(
    ("fault", "status", "starts"),
    [
        ("500", 500, b'{"error"'),
        ("html_200", 200, b"<!DOCTYPE"),
        ("error_200", 200, b'{"error"'),
        ("stream_plain", 200, b'{"id"'),
        ("empty_200", 200, b""),
    ],
)
def test_what_is_no_stream_comes_whole(fault, status, starts):
    came, reader, _, record = played(call(f"[[sim:{fault}]] x"), SLOW)
    assert isinstance(came, HttpReply)
    assert (came.status, reader.data, record.delivered) == (status, b"", True)
    assert came.body.startswith(starts)
    assert came.body or fault == "empty_200"


@pytest.mark.parametrize(
    "fault",
    [
        kind.name
        for kind in KINDS
        if kind.group == "variation" and kind.wire in ("any", "stream") and kind.name not in ("stream_plain", "usage_strings")
    ],
)
def test_variations_bring_the_same_words(fault):
    request = call(f"[[sim:{fault}]] Name a river")
    came, reader, now, record = played(request, SLOW)
    assert isinstance(came, HttpReply)
    expected = plain(request)
    assert reader.text() == expected["choices"][0]["message"]["content"]
    assert [event["usage"] for event in reader.events() if event.get("usage")][-1] == expected["usage"]
    assert record.fault == fault
    assert now < 2.1


@pytest.mark.parametrize(
    ("fault", "finish", "usage", "done"),
    [
        ("stream_no_finish", False, False, False),
        ("stream_cut", False, False, False),
        ("usage_missing", True, False, True),
        ("stream_no_done", True, True, False),
        ("stream_error", False, False, False),
    ],
)
def test_what_is_missing_at_the_end(fault, finish, usage, done):
    _, reader, _, record = played(call(f"[[sim:{fault}]] Name a river"))
    cut = reader.data.rpartition(b"\n\n")[0] if fault == "stream_cut" else reader.data
    reader.data = cut
    events = reader.events()
    assert any(choice.get("finish_reason") for event in events for choice in event.get("choices", ())) is finish
    assert any(event.get("usage") for event in events) is usage
    assert (b"[DONE]" in reader.data) is done
    assert ("error" in events[-1]) is (fault == "stream_error")
    assert reader.text()
    assert record.billed


def test_pieces_are_cut_at_any_byte_but_always_the_same():
    def chunks(seed):
        script = Simulator(Settings(seed=seed)).receive(call("[[sim:stream_split]] Name a river"), now=0, utc=0)
        return [chunk.data for chunk in script.chunks]

    assert chunks(1) == chunks(1) != chunks(2)
    assert b"".join(chunks(1)).endswith(b"data: [DONE]\n\n")
    assert any(not piece.endswith(b"\n\n") for piece in chunks(1))


def test_a_cancelled_stream_is_booked_and_passes_on():
    async def main():
        clock = VirtualClock()
        simulator = Simulator(SLOW)
        reader = Reader(clock)
        task = asyncio.create_task(SimulatedTransport(simulator, clock).stream(call(), reader, timeout_seconds=30, stall_seconds=10))
        await clock.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return reader, simulator

    reader, simulator = run_virtual(main)
    record = simulator.audit.records[0]
    assert (record.executed, record.billed, record.delivered, record.seconds) == (True, True, False, pytest.approx(0.5))
    assert reader.text()
    assert simulator.in_flight == 0
