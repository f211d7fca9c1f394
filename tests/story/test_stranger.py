"""A stranger's mistakes: each ends in a message that names what was typed and the mend, and none costs a file."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from story_world import Asked, Said, World, answer, stub

from batchllm.core.errors import SHOWN_PROBLEMS, BatchLLMError, Problem, SpecError
from batchllm.core.secret import Scrubber
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.engine.access import Access, check_access, scrubber
from batchllm.engine.budgets import cap_of
from batchllm.engine.pace import charging_of
from batchllm.engine.served import Server, served
from batchllm.spec import build

FLAGS: dict[str, tuple[tuple[str, ...], str]] = {
    "no number of dollars": (("--budget", "nan"), "--budget: expected dollars"),
    "endless dollars": (("--budget", "inf"), "--budget: expected dollars"),
    "a negative budget": (("--budget", "-1"), "--budget: must be at least 0, got -1"),
    "a name that is a path": (("--name", "../x"), "--name: names the store"),
    "too many failures": (("--max-failed", "300%"), "--max-failed: expected a count"),
    "results over the input": (("--results", "rows.jsonl"), "--results: rows.jsonl is an input of this job"),
    "results over the store": (("--results", "x.csv", "--store", "x.csv"), "--results: x.csv is the store"),
}


@pytest.mark.parametrize("case", FLAGS)
def test_a_wrong_flag_is_told_by_its_own_name(world: World, case: str) -> None:
    flags, words = FLAGS[case]
    world.job(None)
    before = world.rows(3).read_bytes()
    ended = world.run("run", "job.yaml", *flags).expect(2)
    assert ended.err.startswith(f"error: {words}"), ended.err
    assert (world.folder / "rows.jsonl").read_bytes() == before
    assert world.left() == {"job.yaml", "rows.jsonl"}


def test_a_job_that_is_not_there_is_looked_for_nearby(world: World) -> None:
    world.job(None, name="reviews")
    assert "did you mean reviews.yaml?" in world.run("run", "review.yaml").expect(2).err


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"prompt": {"user": "Answer: {{ qq }}"}}, "prompt.user: none of the first 3 rows has a column 'qq'"),
        ({"prompt": {"user": "Answer: {{ q | nofilter }}"}}, "prompt.user: filter nofilter is unknown"),
        ({"output": {"keep": ["lang"]}}, "output.keep: none of the first 3 rows has a column 'lang'"),
        ({"id": "key"}, "id: none of the first 3 rows has a column 'key'"),
        ({"budget": {"usd": 1}, "model": {"model": "my-own"}}, "models.m: the price of 'my-own' is not known"),
    ],
)
def test_what_only_the_input_shows_has_its_place_in_the_spec(world: World, keys: dict[str, object], words: str) -> None:
    job = world.job("http://127.0.0.1:9/v1", **keys)
    world.rows(3)
    said = world.run("run", "job.yaml").expect(2).err
    assert words in said
    line, column = said.removeprefix("error: job.yaml:").split(":")[:2]
    key = words.partition(":")[0].rpartition(".")[2]
    # The value, where it stands on its key's line.
    before = job.read_text().splitlines()[int(line) - 1]
    assert f'"{key}"' in before
    assert 0 < int(column) <= len(before)


def test_a_flood_of_problems_is_cut() -> None:
    lines = str(SpecError([Problem(message=f"wrong {number}") for number in range(SHOWN_PROBLEMS + 5)])).splitlines()
    assert (len(lines), lines[-1]) == (SHOWN_PROBLEMS + 1, "... and 5 more problems")


def test_a_glob_does_not_take_in_what_the_job_wrote(world: World) -> None:
    world.rows(3)
    world.job(None, input="*.jsonl")
    assert world.run("run", "job.yaml", "--simulate", "--json").expect(0).summary["rows"]["total"] == 3
    for _ in range(2):
        assert world.run("run", "job.yaml", "--json").expect(0).summary["rows"]["total"] == 3
    exported = world.run("export", "job.yaml", "--with", "q").expect(0).out.splitlines()
    assert [json.loads(line)["input"]["q"] for line in exported] == [f"question number {n}" for n in range(3)]
    world.job(None, input="job.*.jsonl")
    assert "results of this job aside" in world.run("run", "job.yaml").expect(2).err


def test_a_host_from_a_variable_is_told_to_nobody(world: World) -> None:
    world.rows(2)
    world.job("http://${MY_HOST}:9/v1", retry={"outage_seconds": 0.2, "initial_seconds": 0.1, "max_seconds": 0.1})
    ended = world.run("run", "job.yaml", env={"MY_HOST": "127.0.0.12"}).expect(4)
    assert "is down" in ended.err
    assert "127.0.0.12" not in ended.err
    assert b"127.0.0.12" not in b"".join(path.read_bytes() for path in world.folder.iterdir())


def test_a_host_is_masked_in_messages_and_not_in_answers() -> None:
    job = build({"models": {"m": {"provider": "openai-compatible", "model": "x", "base_url": "https://${H}/v1", "api_key_env": "none"}}})
    scrub = scrubber({"m": Access(base_url="https://models.example.org/v1", key=None, headers={})}, job, {"H": "models.example.org"})
    assert scrub.text("can't connect to models.example.org:443") == "can't connect to [secret]:443"
    assert scrub.reply(b"see models.example.org") == b"see models.example.org"
    assert Scrubber(["long-secret-key"], mentions=["hostname"]).text("long-secret-key at hostname") == "[secret] at [secret]"


@pytest.mark.parametrize(
    ("written", "value"),
    [("${BASE}", "https://gw.example.org/t-0123456789ab/openai/v1"), ("https://gw.example.org/${BASE}/openai/v1", "t-0123456789ab")],
)
def test_what_a_server_echoes_of_a_secret_is_masked_however_it_is_written(written: str, value: str) -> None:
    job = build({"models": {"m": {"provider": "openai-compatible", "model": "x", "base_url": written, "api_key_env": "none"}}})
    base = job.models["m"].api_base({"BASE": value})
    scrub = scrubber({"m": Access(base_url=base, key=None, headers={})}, job, {"BASE": value})
    assert scrub.bytes(b"Cannot POST /t-0123456789ab/openai/v1/chat/completions") == b"Cannot POST /[secret]/openai/v1/chat/completions"
    assert Scrubber(['pass "word" 1']).bytes(rb'{"error": "header pass \"word\" 1"}') == b'{"error": "header [secret]"}'


def test_a_gateway_counts_as_the_host_that_stands_behind_it() -> None:
    model = {"provider": "openai-compatible", "model": "x", "base_url": "https://gw.example.org/v1", "api_key_env": "none"}
    hosts = {"ours": {"like": "azure-classic"}}
    job = build(
        {
            "hosts": hosts,
            "models": {"plain": model, "ours": {**model, "host": "ours"}, "groq": {**model, "host": "groq"}},
            "routes": [{"use": "plain"}],
        }
    )
    how = {name: charging_of(one, one.base_url or "") for name, one in job.models.items()}
    assert [how[name].settled for name in ("plain", "ours", "groq")] == [True, False, True]
    assert [how[name].cached_free for name in ("plain", "ours", "groq")] == [False, False, True]


def test_a_list_of_models_that_is_refused_tells_no_secret() -> None:
    model = {"provider": "openai-compatible", "host": "azure-classic", "model": "x", "base_url": "${BASE}", "api_key_env": "KEY"}
    job = build({"models": {"m": model}})
    environ = {"BASE": "https://gw.example.org/t-0123456789ab", "KEY": "sk-0123456789"}
    access = check_access(job, environ, ["m"])
    asked: list[HttpCall] = []

    class Echo:
        async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply:
            asked.append(call)
            return HttpReply(status=401, body=b'{"error": {"message": "Bad key sk-0123456789 at /t-0123456789ab/models"}}')

    server = Server(model=job.models["m"], access=access["m"], scrub=scrubber(access, job, environ))
    with pytest.raises(BatchLLMError) as caught:
        asyncio.run(served(server, Echo()))  # type: ignore[arg-type]  # of a transport only what is used
    assert str(caught.value) == "${BASE}: 401 Bad key [secret] at /[secret]/models"
    # And it is asked as the job says that its host is: the key in Azure's header, beside the deployments.
    assert asked[0].url == "https://gw.example.org/t-0123456789ab/openai/models?api-version=2024-10-21"
    assert "api-key" in asked[0].headers


def test_a_base_url_that_cant_be_used_says_why_and_not_what() -> None:
    model = build({"models": {"m": {"provider": "openai-compatible", "model": "x", "base_url": "${BASE}", "api_key_env": "none"}}}).models["m"]
    for value, words in (("https://me:pw123@h/v1", "must not hold a user or password"), ("h.example/pw123", "expected an http or https URL")):
        with pytest.raises(SpecError, match=words) as caught:
            model.api_base({"BASE": value})
        assert "pw123" not in str(caught.value)


def test_a_cap_is_never_rounded_up() -> None:
    models = {"m": {"provider": "simulated"}}
    assert cap_of(build({"models": models, "budget": {"usd": 1.5e-12}})) == 1
    assert cap_of(build({"models": models, "budget": {"usd": 0.3}})) == 3 * 10**11


def test_a_csv_with_semicolons_says_so(world: World) -> None:
    world.write("rows.csv", "q;lang\nhello, you;en\n")
    world.job(None, input="rows.csv")
    world.run("run", "job.yaml").expect(1)
    (line,) = world.results()
    assert 'delimiter: ";"' in line["error"]["message"]


@pytest.mark.parametrize("gzipped", [False, True])
def test_an_answer_too_large_for_the_machine_fails_its_row_alone(world: World, gzipped: bool) -> None:
    """65 MiB of blanks, as they are or as a gzip bomb of 65 KiB, before an answer like any other."""
    world.rows(2)
    huge = b" " * (65 << 20) + answer()
    body = gzip.compress(huge, 1) if gzipped else huge

    def reply(asked: Asked) -> Said:
        large = "number 0" in asked.text
        return Said(body=body, headers={"content-encoding": "gzip"} if gzipped else None) if large else Said(body=answer())

    with stub(reply) as (url, _):
        world.job(url, retry={"max_attempts": 1})
        world.run("run", "job.yaml").expect(1)
    large, small = world.results()
    assert (large["error"]["code"], small["status"]) == ("bad_response", "ok")
    assert "larger than 64 MiB" in large["error"]["message"]
    assert world.ask("SELECT billed FROM attempts ORDER BY attempt_id") == [("maybe",), ("yes",)]
