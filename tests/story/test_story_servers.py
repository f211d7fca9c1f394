"""Servers that are not there, go away, talk strangely or talk too much: rows wait instead of failing, hints are kept, and no secret is written down."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
from story_world import Asked, Said, World, answer, simulator, stub, until

QUICK = {"initial_seconds": 0.05, "max_seconds": 0.5, "timeout_seconds": 5}


def test_nothing_listens(world: World) -> None:
    with socket.socket() as taken:
        # Bound but not listening: connections are refused, and nobody else gets the port.
        taken.bind(("127.0.0.1", 0))
        world.rows(40)
        job = world.job(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", retry={**QUICK, "outage_seconds": 1.5})
        began = time.monotonic()
        ended = world.run("run", job, "--json").expect(4)
        assert time.monotonic() - began < 10
    assert ended.summary["stopped_by"] == "outage"
    assert ended.summary["rows"]["failed"] == 0
    assert ended.summary["reserved_usd"] == 0
    assert ended.summary["cost_usd"] in {0, None}
    assert "run again" in ended.err
    assert "127.0.0.1" in ended.err
    # The server is there at last: the same rows, none of which has used up an attempt.
    provider = simulator(world, latency_ms=5)
    world.job(provider.url, retry={**QUICK, "max_attempts": 1})
    world.run("run", job).expect(0)
    assert len(world.results()) == 40


def test_a_server_that_goes_away_and_comes_back(world: World) -> None:
    first = simulator(world, latency_ms=30)
    port = int(first.url.split(":")[2].split("/")[0])
    world.rows(100)
    run = world.start("run", world.job(first.url, model={"limits": {"concurrency": 4}}, retry={**QUICK, "outage_seconds": 60}), "--json")
    until(lambda: first.requests >= 20, what="the first answers")
    first.process.kill()
    time.sleep(1.5)
    assert run.running
    second = simulator(world, latency_ms=5, port=port)
    ended = run.end().expect(0)
    assert ended.summary["rows"] == {"total": 100, "ok": 100, "failed": 0, "pending": 0}
    assert "is down" in ended.err
    assert "is back" in ended.err
    assert second.requests <= 80 + 4
    # What was in flight when it went away may have been worked on.
    assert world.ask("SELECT count(*) FROM attempts WHERE billed = 'maybe'")[0][0] <= 4


@pytest.mark.parametrize(
    ("marker", "words"),
    [("401", ("api_key_env", "key was refused")), ("insufficient_quota", ("credit", "run again")), ("model_not_found", ("model", "base_url"))],
)
def test_a_provider_that_says_no_stops_the_run_at_once(world: World, marker: str, words: tuple[str, ...]) -> None:
    provider = simulator(world, latency_ms=10)
    world.write("rows.jsonl", "".join(f'{{"q": "number {n} [[sim:{marker}]]"}}\n' for n in range(200)))
    job = world.job(provider.url, model={"limits": {"concurrency": 8}})
    ended = world.run("run", job, "--json").expect(4)
    assert ended.summary["stopped_by"] == "provider"
    assert ended.summary["rows"]["failed"] == 0
    assert ended.summary["seconds"] < 2
    assert provider.requests <= 8
    for word in words:
        assert word in ended.err


# Gateways, as seen in the wild.

NGINX_503 = b"<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n<body>\r\n<center><h1>503 Service Temporarily Unavailable</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n"
LITELLM_429 = json.dumps(
    {
        "error": {
            "message": "max parallel request limit reached Crossed TPM / RPM / Max Parallel Request Limit",
            "type": "throttling_error",
            "param": None,
            "code": "429",
        }
    }
).encode()
LLAMA_LOADING = json.dumps({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}).encode()


def test_nginx_says_503_in_html_now_and_then(world: World) -> None:
    def reply(asked: Asked) -> Said:
        return Said(status=503, body=NGINX_503, type="text/html") if asked.number % 3 == 0 else Said(body=answer(asked.text))

    world.rows(60)
    with stub(reply) as (url, asked):
        ended = world.run("run", world.job(url, retry={**QUICK, "max_attempts": 2}), "--json").expect(0)
    assert [line["output"] for line in world.results()] == [f"Answer: question number {n}" for n in range(60)]
    assert len(asked) == 90 - 1 or len(asked) == 90
    assert ended.summary["refusals"] == len(asked) - 60


def test_litellm_asks_for_a_minute_and_is_asked_again_sooner(world: World) -> None:
    """Its `retry-after: 60` comes although a slot is free soon: nothing is sent before a hint below `max_seconds`, and one probe at `max_seconds`."""

    def reply(asked: Asked) -> Said:
        return Said(status=429, body=LITELLM_429, headers={"retry-after": "60"}) if asked.number == 5 else Said(body=answer())

    world.rows(20)
    with stub(reply) as (url, asked):
        ended = world.run("run", world.job(url, model={"limits": {"concurrency": 1, "rpm": 6000}}, retry=QUICK), "--json").expect(0)
    assert ended.summary["refusals"] == 1
    assert asked[5].at - asked[4].at >= QUICK["max_seconds"]
    assert ended.summary["seconds"] < 30
    assert "trying once" in ended.err


def test_a_hint_is_kept(world: World) -> None:
    def reply(asked: Asked) -> Said:
        return Said(status=429, body=LITELLM_429, headers={"retry-after": "1"}) if asked.number == 3 else Said(body=answer())

    world.rows(10)
    with stub(reply) as (url, asked):
        world.run("run", world.job(url, model={"limits": {"concurrency": 1, "rpm": 6000}}, retry={**QUICK, "max_seconds": 5})).expect(0)
    assert len(asked) == 11
    assert 1.0 <= asked[3].at - asked[2].at < 4.0


def test_llama_server_loads_its_model_first(world: World) -> None:
    def reply(asked: Asked) -> Said:
        return Said(status=503, body=LLAMA_LOADING) if asked.number <= 6 else Said(body=answer(model="tiny.gguf"))

    world.rows(10)
    with stub(reply) as (url, _):
        world.run("run", world.job(url, model={"limits": {"concurrency": 2}}, retry={**QUICK, "max_attempts": 1})).expect(0)
    assert {(line["status"], line["model"], line["provider_model"]) for line in world.results()} == {("ok", "m", "tiny.gguf")}


def test_one_row_that_is_too_long_fails_alone(world: World) -> None:
    too_long = {
        "error": {
            "code": 400,
            "message": "the request exceeds the available context size",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 1813,
            "n_ctx": 512,
        }
    }

    def reply(asked: Asked) -> Said:
        return Said(status=400, body=json.dumps(too_long).encode()) if asked.text.endswith(" 7") else Said(body=answer())

    world.rows(10)
    with stub(reply) as (url, asked):
        ended = world.run("run", world.job(url), "--json").expect(1)
    assert ended.summary["errors"] == {"too_long": 1}
    assert len(asked) == 10
    assert world.results()[7]["error"]["code"] == "too_long"


# Secrets.

KEY = "sk-very-secret-0123456789abcdef"
TOKEN = "gate-token-abcdef0123456789"


def test_a_key_that_a_server_echoes_is_written_nowhere(world: World) -> None:
    seen: set[str] = set()

    def reply(asked: Asked) -> Said:
        seen.update((asked.headers["Authorization"], asked.headers["X-Gate"]))
        if asked.number % 2:
            return Said(body=answer(f"your key is {KEY}, your token {TOKEN}"), headers={"x-request-id": f"gate-{TOKEN}"})
        return Said(
            status=400,
            body=json.dumps(
                {"error": {"message": f"Bearer {KEY} may not ask; token {TOKEN}", "type": "invalid_request_error", "code": KEY}}
            ).encode(),
        )

    world.rows(12)
    environ = {"MY_KEY": KEY, "MY_TOKEN": TOKEN}
    model = {"api_key_env": "MY_KEY", "headers": {"X-Gate": "Bearer ${MY_TOKEN}"}, "limits": {"concurrency": 2}}
    with stub(reply) as (url, _):
        job = world.job(url, model=model)
        said = [world.run("run", job, "--json", env=environ).expect(1)]
        # In the middle of a run the log of the store holds the newest pages: look at it after a kill, too.
        run = world.start("run", job, "--retry-failed", env=environ)
        until(lambda: "job.db-wal" in world.left() and (world.folder / "job.db-wal").stat().st_size > 0, what="the store's log")
        run.kill()
        said.append(world.run("run", job, "--results", "-", env=environ))
        said.append(world.run("run", job, "--results", "out.csv", env=environ))
        said += [world.run("try", job, "--row", str(row), env=environ) for row in (0, 1)]
    assert seen == {f"Bearer {KEY}", f"Bearer {TOKEN}"}, "the keys were sent, so there was something to hide"
    assert "may not ask" in json.dumps(world.results())
    for ended in said:
        assert KEY not in ended.out + ended.err
        assert TOKEN not in ended.out + ended.err
    for path in Path(world.folder).rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert KEY.encode() not in content, path
        assert TOKEN.encode() not in content, path
    assert (world.folder / "job.db").stat().st_mode & 0o777 == 0o600
