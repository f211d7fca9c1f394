"""A stranger's mistakes: each ends in a message that names what was typed and the mend, and none costs a file."""

from __future__ import annotations

import gzip
import json

import pytest
from story_world import Asked, Said, World, answer, stub

from batchllm.core.errors import SHOWN_PROBLEMS, Problem, SpecError
from batchllm.core.secret import Scrubber
from batchllm.engine.setup import Access, cap_of, scrubber
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
