"""Embeddings: many rows in one request, and each still its own row - its answer, its money, its failure, over crashes too."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from test_engine_crash import _Dies
from world import World

from batchllm.core.nouns import Fault, Reply, Request
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.providers.codecs import codec_for
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.store.vectors import blob_of, output_of

PRICE = {"input": 1, "output": 0}
EMBED = {"endpoint": "embeddings", "prompt": None, "request": {"dimensions": 8}, "models": {"m": {"price": PRICE}}}
LISTED = [{"custom_id": f"r{i}", "text": f"row {i} says " + "hello " * (i % 7)} for i in range(1000)]


def world(folder, listed=LISTED, **keys):
    return World(folder, listed, **{**EMBED, **keys})


def vector_of_alone(w: World, text: str) -> list[float]:
    """What the provider gives for a text that is sent alone."""
    codec = codec_for(provider="simulated", endpoint="embeddings", base_url="http://x/v1", model="m", api_key=None, headers={})
    call = codec.encode(
        Request(endpoint="embeddings", messages=({"role": "user", "content": text},), params={"dimensions": 8}), client_request_id=None
    )

    async def ask() -> HttpReply | Fault:
        clock = asyncio.get_running_loop()

        class Clock:
            now = utc = staticmethod(clock.time)
            sleep = staticmethod(asyncio.sleep)

        return await SimulatedTransport(Simulator(Settings(latency_ms=1.0)), Clock()).send(call, timeout_seconds=9)

    reply = codec.decode(w.play(ask))
    assert isinstance(reply, Reply)
    return list(reply.vector)


def test_rows_travel_together_and_end_alone(tmp_path):
    w = world(tmp_path)
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (0, 1000)
    results = w.results()
    assert [line["custom_id"] for line in results] == [row["custom_id"] for row in LISTED]
    assert w.sims["m"].audit.executed <= 12
    for place in (0, 127, 128, 500, 999):
        assert results[place]["output"] == pytest.approx(vector_of_alone(w, LISTED[place]["text"]), rel=1e-6)
    # The ledger agrees with the bill, to the pico-dollar, and every row has its own part of it.
    assert w.sql("SELECT sum(cost_pico), sum(input_tokens), count(*), count(DISTINCT row_key) FROM attempt_log WHERE billed = 'yes'") == [
        (w.sims["m"].audit.cost_pico, sum(record.input_tokens for record in w.records()), 1000, 1000)
    ]
    costs = {line["cost_usd"] for line in results}
    assert min(costs) > 0
    assert len(costs) > 1
    # The store holds four bytes a number, and no bodies of what was answered.
    assert w.sql("SELECT DISTINCT typeof(output), length(output) FROM results") == [("blob", 32)]
    assert w.sql("SELECT count(*) FROM bodies") == [(0,)]
    assert w.run().attempts == 1000


@pytest.mark.parametrize("marker", ["[[sim:invalid_request]]", "[[sim:context]]"])
def test_a_bad_row_fails_alone(tmp_path, marker):
    listed = [{"custom_id": f"r{i}", "text": marker if i == 77 else f"row {i}"} for i in range(300)]
    w = world(tmp_path, listed)
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok, summary.rows.failed) == (1, 299, 1)
    assert [line["custom_id"] for line in w.results() if line["error"]] == ["r77"]
    assert w.sql("SELECT count(*) FROM attempt_log WHERE counted") == [(1,)]
    assert w.sims["m"].audit.executed < 30
    ((kept,),) = w.sql("SELECT count(*) FROM bodies")
    assert kept == 1


def test_an_empty_text_is_not_sent(tmp_path):
    w = world(tmp_path, [{"custom_id": "a", "text": "fine"}, {"custom_id": "b", "text": ""}], prompt="{{ text }}")
    summary = w.run()
    assert (summary.rows.ok, summary.rows.failed) == (1, 1)
    failed = w.results()[1]
    assert "empty" in failed["error"]["message"]
    assert w.sims["m"].audit.executed == 1


def test_a_wire_that_takes_fewer_inputs_is_learnt(tmp_path):
    w = world(tmp_path, concurrency=1)
    sent: list[int] = []

    class Small:
        """Refuses more than 32 inputs."""

        async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply | Fault:
            count = len(json.loads(call.body)["input"])
            sent.append(count)
            await asyncio.sleep(0.1)
            if count > 32:
                return HttpReply(status=400, body=b'{"error": {"message": "too many inputs", "type": "invalid_request_error"}}')
            data = [{"object": "embedding", "index": i, "embedding": [1.0, 2.0]} for i in range(count)]
            return HttpReply(
                status=200, body=json.dumps({"data": data, "model": "m", "usage": {"prompt_tokens": count, "total_tokens": count}}).encode()
            )

        async def close(self) -> None:
            """Nothing is open."""

    w.scripts["m"] = Small()
    assert w.run().exit_code == 0
    assert sent.count(128) <= 2
    assert max(sent[20:]) <= 32
    assert len(sent) < 60


@pytest.mark.parametrize("error", [{}, {"error": {"message": "cut", "code": 500}}, {"error": {"message": "blocked", "code": "content_filter"}}])
def test_a_pack_that_was_billed_in_vain_is_booked_once(tmp_path, error):
    """A 200 with a usage and nothing else: it is the bill of all rows together, not of each."""
    bills: list[int] = []

    class Empty:
        async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply | Fault:
            bill = 97 + len(json.loads(call.body)["input"])
            bills.append(bill)
            await asyncio.sleep(0.1)
            return HttpReply(status=200, body=json.dumps({**error, "data": [], "usage": {"prompt_tokens": bill}}).encode())

        async def close(self) -> None:
            """Nothing is open."""

    w = world(tmp_path, LISTED[:60])
    w.scripts["m"] = Empty()
    w.run()
    assert bills[0] == 157
    assert w.sql("SELECT sum(input_tokens) FROM attempt_log") == [(sum(bills),)]


@pytest.mark.parametrize("fault", ["500", "reset", "504", "429_retry_after_ms"])
def test_a_pack_that_breaks_is_one_fault_not_many(tmp_path, fault):
    w = world(tmp_path, sims={"m": {"faults": 0.3, "fault_kinds": (fault,)}}, retry={"timeout_seconds": 10, "max_attempts": 20})
    assert w.run().exit_code in ({0, 1} if fault in {"504", "500"} else {0})
    assert not [note.text for note in w.notes if "is down" in note.text]
    assert w.sims["m"].audit.executed < 200


def test_the_request_limit_counts_packs(tmp_path):
    w = world(
        tmp_path, sims={"m": {"rpm": 60, "burst_seconds": 2}}, models={"m": {"price": PRICE, "limits": {"rpm": 60, "burst_seconds": 2, "rpd": 500}}}
    )
    w.run()
    assert not [record for record in w.records() if record.status == 429]
    assert 5 <= w.elapsed <= 15
    # A later run knows that a day's limit was used for eight requests, not for a thousand.
    w.put([*LISTED, *({"custom_id": f"n{i}", "text": "more"} for i in range(100))])
    assert w.run().exit_code == 0
    assert w.elapsed <= 30


def test_the_token_limit_is_used_up_and_not_run_into(tmp_path):
    limits = {"tpm": 30_000, "burst_seconds": 4}
    w = world(tmp_path, sims={"m": limits}, models={"m": {"price": PRICE, "limits": limits}})
    assert w.run().exit_code == 0
    assert not [record for record in w.records() if record.status == 429]
    tokens = sum(record.input_tokens for record in w.records())
    assert w.elapsed <= tokens / 500 + 3


def test_the_cap_holds_and_is_used_up_to_the_last_row(tmp_path):
    w = world(tmp_path, budget={"usd": 0.004})
    summary = w.run()
    assert (summary.exit_code, summary.stopped_by) == (3, "budget")
    assert w.sims["m"].audit.cost_pico <= 4 * 10**9
    # What is left does not do for one more row.
    assert 4 * 10**9 - w.sims["m"].audit.cost_pico < 40 * 10**6
    assert w.run(budget={"usd": 1}).rows.ok == 1000
    assert w.sims["m"].audit.cost_pico == w.sql("SELECT sum(cost_pico) FROM attempt_log")[0][0]


@pytest.mark.parametrize("seed", range(4))
def test_results_after_many_deaths(tmp_path, seed):
    rng = random.Random(seed)
    for name in ("0", "calm"):
        (tmp_path / name).mkdir()
    sim = {"fault_kinds": ("502", "reset", "reset_mid", "429_retry_after_ms"), "latency_ms": 400.0, "latency_sigma": 0.6, "faults": 0.2}
    keys = {"sims": {"m": sim}, "concurrency": 3, "retry": {"timeout_seconds": 10, "max_attempts": 20}, "budget": {"usd": 0.05}}
    w = world(tmp_path / "0", **keys)
    done: list[set[int]] = []
    for life in range(1, 60):
        ends, at = _Dies(w, tmp_path / str(life)), rng.uniform(0.1, 1.0)
        if not w.play(lambda ends=ends, at=at: ends.at(at)):
            break
        w.folder = tmp_path / str(life)
        done.append({key for (key,) in w.sql("SELECT row_key FROM outcomes")})
    assert len(done) >= 3
    whole = world(tmp_path / "calm")
    whole.run()
    assert [(line["custom_id"], line["output"]) for line in w.results()] == [(line["custom_id"], line["output"]) for line in whole.results()]
    # No row was sent again after its answer, and what the provider billed is in the ledger: known, or listed as possibly billed.
    assert w.sql("SELECT count(*) FROM (SELECT row_key FROM attempt_log WHERE outcome = 'ok' GROUP BY 1 HAVING count(*) > 1)") == [(0,)]
    bill = sum(record.cost_pico or 0 for record in w.records())
    ((spent, reserved),) = w.sql("SELECT sum(cost_pico), coalesce(sum(CASE WHEN billed = 'maybe' THEN reserved_pico END), 0) FROM attempt_log")
    assert spent <= bill <= spent + reserved <= 5 * 10**10


def test_rows_of_the_batch_form_bring_embeddings_into_a_chat_job(tmp_path):
    line = {"method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "embed me"}}
    w = World(tmp_path, [{"custom_id": "e", **line}, {"custom_id": "c", "prompt": "hi"}], prompt=None, budget={"usd": 1})
    assert w.run().exit_code == 0
    vector, words = (result["output"] for result in w.results())
    assert isinstance(vector, list)
    assert isinstance(words, str)


def test_a_vector_is_stored_as_float32():
    assert blob_of([1.0, -0.5]) == b"\x00\x00\x80?\x00\x00\x00\xbf"
    assert output_of(blob_of([1.0, -0.5])) == [1.0, -0.5]
    assert output_of("text") == "text"
    assert output_of(None) is None


def test_vectors_that_are_no_array_end_the_run_with_a_word_and_stay_in_the_store(tmp_path):
    models = {"a": {"price": PRICE}, "b": {"price": PRICE, "request": {"dimensions": 16}}}
    w = world(tmp_path, LISTED[:40], models=models, routes=[{"use": {"a": 1, "b": 1}}], results="x.npy")
    summary = w.run()
    assert (summary.exit_code, summary.rows.ok) == (1, 40)
    assert "an array can't hold both" in summary.message
    assert not (tmp_path / "x.npy").exists()
    # Nothing keeps the store's last checkpoint waiting.
    assert not list(tmp_path.glob("*-wal"))
    assert w.run(results="x.jsonl").exit_code == 0
