"""The tools around a job as a person uses them: init, try, doctor, models, prices, tokens; `.env` and keys from commands. Bad input for each."""

from __future__ import annotations

import json
import signal
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
from story_world import Asked, Said, SimulatorProcess, World, answer, simulator, stub

from batchllm.cli import main, run
from batchllm.core.events import RowsCompared

KEY = "sk-right-key-1234"


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd):
    """`batchllm ARGS` inside this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "TIKTOKEN_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BATCHLLM_CACHE", str(tmp_path / "cache"))

    def run(*args):
        with pytest.raises(SystemExit) as end:
            main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return end.value.code or 0, out, err

    run.folder = tmp_path
    return run


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """A simulator that lets one key in."""
    world = World(tmp_path_factory.mktemp("keyed"))
    yield simulator(world, latency_ms=5, key=KEY)
    world.close()


CSV = "review_id,stars,text\nr1,5,Boils fast and pours without dripping.\nr2,1,The lid broke off after nine days.\n"


# init


def test_from_a_csv_to_results(cli):
    write(cli.folder, "reviews.csv", CSV)
    code, _, err = cli("init", "reviews.csv", "--task", "Label as positive or negative.", "--provider", "openai", "--yes")
    assert code == 0
    assert "[user] Boils fast" in err
    code, out, err = cli("run", "reviews.yaml", "--simulate", "--json")
    assert (code, json.loads(out)["rows"]["ok"]) == (0, 2)
    code, out, _ = cli("try", "reviews.yaml", "--simulate", "--row", "r2", "--json")
    (request,) = json.loads(out)["requests"]
    assert (code, request["body"]["messages"][1]["content"]) == (0, "The lid broke off after nine days.")


def test_a_spreadsheet_of_another_country(cli):
    write(cli.folder, "reviews.csv", '\ufeffid;Review Text;stars\r\n1;"Good, cheap; small";5\r\n2;Bad;1\r\n')
    code, _, err = cli("init", "reviews.csv", "--yes")
    assert code == 0
    assert "[user] Good, cheap; small" in err
    assert cli("run", "reviews.yaml", "--simulate", "--quiet")[0] == 0
    assert "sent     2 requests, none of them by this run" in cli("run", "reviews.yaml", "--simulate")[2]


def test_a_job_for_a_server_of_unknown_price_runs(cli, keyed: SimulatorProcess):
    write(cli.folder, "reviews.csv", CSV)
    write(cli.folder, ".env", f"MY_KEY={KEY}\n")
    to = ["--base-url", keyed.url, "--model", "sim-small", "--api-key-env", "MY_KEY", "--yes"]
    code, _, err = cli("init", "reviews.csv", *to)
    assert code == 0
    assert "has no cap in dollars" in err
    assert "sim-small" in cli("models", "--base-url", keyed.url, "--api-key-env", "MY_KEY")[1]
    assert cli("run", "reviews.yaml", "--quiet")[0] == 0
    assert cli("init", "reviews.csv", *to, "--to", "priced.yaml", "--price", "1/2", "--budget", "3")[0] == 0
    code, out, _ = cli("run", "priced.yaml", "--json")
    assert (code, json.loads(out)["cost_usd"] > 0) == (0, True)
    assert "budget: {usd: 3}" in (cli.folder / "priced.yaml").read_text()


def test_rows_are_no_job(cli):
    write(cli.folder, "reviews.csv", CSV)
    code, _, err = cli("run", "reviews.csv")
    assert (code, "batchllm init reviews.csv" in err) == (2, True)


def test_init_never_overwrites(cli):
    write(cli.folder, "reviews.csv", CSV)
    write(cli.folder, "reviews.yaml", "mine")
    code, _, err = cli("init", "reviews.csv", "--yes")
    assert (code, (cli.folder / "reviews.yaml").read_text()) == (2, "mine")
    assert "--force" in err
    assert cli("init", "reviews.csv", "--yes", "--force")[0] == 0
    (cli.folder / "jobs").mkdir()
    assert cli("init", "reviews.csv", "--yes", "--to", "jobs/j.yaml", "--id", "none", "--text", "text")[0] == 0
    assert 'input: {path: "../reviews.csv"' in (cli.folder / "jobs" / "j.yaml").read_text()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["gone.csv"], "gone.csv: the input file doesn't exist"),
        (["reviews.csv", "--text", "txt"], "--text: there is no column 'txt'; there are review_id, stars, text"),
        (["reviews.csv", "--to", "job.json"], "ends in .yaml"),
        (["reviews.csv", "--provider", "openai-compatible"], "--model"),
        (["reviews.csv", "--budget", "much"], "--budget: expected dollars"),
        (["reviews.csv", "--task", "Say {{ txet }}"], "--task: none of the first 2 rows has a column 'txet'"),
        (["reviews.csv", "--price", "0.1"], "--price: expected dollars per million input and output tokens"),
        (["reviews.csv", "--base-url", "http://h:1/v1", "--model", "m", "--budget", "1"], "--budget: the price of 'm' there is not known"),
        (["header.csv"], "only a header"),
        (["bad.jsonl"], "no row can be read"),
        (["empty.csv"], "empty"),
    ],
)
def test_init_with_bad_input_writes_nothing(cli, args, words):
    write(cli.folder, "reviews.csv", CSV)
    write(cli.folder, "bad.jsonl", "{nonsense\n")
    write(cli.folder, "empty.csv", "")
    write(cli.folder, "header.csv", "a,b\n")
    code, _, err = cli("init", *args, "--yes")
    assert code == 2
    assert words in err
    assert not list(cli.folder.glob("*.yaml"))


@pytest.mark.parametrize(("said", "code", "words"), [(KeyboardInterrupt, 130, "interrupted"), (EOFError, 2, "no answer: stdin has ended")])
def test_leaving_a_question(cli, monkeypatch, said, code, words):
    def leave(_question: str) -> str:
        raise said

    write(cli.folder, "reviews.csv", CSV)
    monkeypatch.setattr("click.termui.visible_prompt_func", leave)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    left = cli("init", "reviews.csv")
    assert (left[0], left[2].splitlines()[-1]) == (code, words)
    assert "Aborted" not in left[2]
    assert not list(cli.folder.glob("*.yaml"))


def test_ctrl_c_reaches_the_question_of_a_run(monkeypatch):
    """The loop waits for the answer, so the run's own way of hearing Ctrl-C is deaf meanwhile."""
    before = signal.getsignal(signal.SIGINT)
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    monkeypatch.setattr("click.prompt", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt):
            run._ask(RowsCompared(new=0, changed=1, removed=0, unchanged=0))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, heard)
    assert signal.getsignal(signal.SIGINT) is before


# try


def job(folder, url, *, key="api_key_env: none", rows='{"custom_id": "a", "q": "one"}\n{"custom_id": "1", "q": "two"}\n', more=""):
    write(folder, "rows.jsonl", rows)
    text = f"""
input: rows.jsonl
prompt: "Answer: {{{{ q }}}}"
request: {{max_tokens: 30}}
models:
  m: {{provider: openai, model: gpt-6-luna, base_url: "{url}", {key}}}
  n: {{provider: openai, model: gpt-4o, base_url: "{url}", {key}}}
routes: [{{when: "q == 'two'", use: [n, m]}}, {{use: m}}]
{more}"""
    return write(folder, "job.yaml", text)


def test_a_try_shows_everything_and_touches_nothing(cli):
    with stub(lambda asked: Said(body=answer(f"You said {asked.text}"))) as (url, asked):
        job(cli.folder, url, key="api_key_env: MY_KEY, headers: {X-Team: '${TEAM}'}")
        write(cli.folder, ".env", f"MY_KEY={KEY}\nTEAM=hidden-team\n")
        before = {path.name for path in cli.folder.iterdir()}
        code, out, err = cli("try", "job.yaml", "--row", "1")
    assert (code, out) == (0, "You said Answer: two\n")
    assert [one.headers["Authorization"] for one in asked] == [f"Bearer {KEY}"]
    assert "route: n, then m (rule 1 of 2: q == 'two')" in err
    assert '"max_completion_tokens": 30' in err
    assert "it costs at most $" in err
    assert "ok, finish stop; 9 in, 2 out; $0.0000425 of at most" in err
    assert "Nothing was recorded" in err
    assert KEY not in out + err
    assert "hidden-team" not in out + err
    assert {path.name for path in cli.folder.iterdir()} == before


def test_a_flag_picks_the_model_whatever_routes_and_rows_say(cli):
    with stub(lambda asked: Said(body=answer())) as (url, _):
        job(cli.folder, url, rows='{"custom_id": "a", "q": "two", "who": "n"}\n', more="overrides: {model: who}")
        assert "route: n (the row names it)" in cli("try", "job.yaml")[2]
        code, out, _ = cli("try", "job.yaml", "--model", "m", "--json")
    assert (code, json.loads(out)["requests"][0]["body"]["model"], json.loads(out)["result"]["model"]) == (0, "gpt-6-luna", "m")


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (
            Said(status=429, headers={"retry-after": "77"}, body=b'{"error": {"message": "slow", "code": "rate_limit_exceeded"}}'),
            4,
            "asks to wait 77 s",
        ),
        (Said(status=500, body=b'{"error": {"message": "oops"}}'), 1, "no answer: 500 server: oops"),
        (
            Said(status=401, body=b'{"error": {"message": "bad key sk-right-key-1234", "code": "invalid_api_key"}}'),
            4,
            "bad key [secret]\na run would stop: the key",
        ),
        (Said(status=400, body=b'{"error": {"message": "bad parameter"}}'), 1, "bad parameter"),
        (Said(body=b"<html>", type="text/html"), 1, "protocol"),
    ],
)
def test_a_try_ends_with_the_first_reply(cli, said, code, words):
    """One request, whatever a run would do: no wait, no fallback."""
    with stub(lambda asked: said) as (url, asked):
        job(cli.folder, url, key="api_key_command: \"sh -c 'echo sk-right-key-1234'\"")
        ended, out, err = cli("try", "job.yaml", "--row", "1")
    assert (ended, out, len(asked)) == (code, "", 1)
    assert words in err
    assert KEY not in err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["job.yaml", "--row", "zz"], 2, "no row has the id 'zz', and rows are counted from 0 to 2"),
        (["job.yaml", "--row", "3"], 2, "0 to 2"),
        (["job.yaml", "--row", "2"], 1, "this row is not sent: template"),
        (["job.yaml", "--model", "x"], 2, "the job has no model called 'x'; it has m, n"),
        (["gone.yaml"], 2, "no such file"),
        (["job.yaml", "--set", "budget.usd=0.0000001"], 3, "budget"),
    ],
)
def test_a_try_that_sends_nothing(cli, args, code, words):
    with stub(lambda asked: Said(body=answer())) as (url, asked):
        job(cli.folder, url, rows='{"custom_id": "a", "q": "one"}\n{"custom_id": "b", "q": "two"}\n{"custom_id": "c"}\n')
        ended, _, err = cli("try", *args)
    assert (ended, asked) == (code, [])
    assert words in err


def test_a_streamed_try(cli, keyed: SimulatorProcess):
    job(cli.folder, keyed.url, key="api_key_file: key.txt")
    write(cli.folder, "key.txt", f"{KEY}\n")
    code, whole, _ = cli("try", "job.yaml", "--no-stream")
    assert code == 0
    code, streamed, err = cli("try", "job.yaml", "--stream")
    assert (code, streamed) == (0, whole)
    assert "first words after" in err


# keys


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("api_key_command: \"sh -c 'echo sk-half-a-key; echo sk-more >&2; exit 3'\"", "api_key_command 'sh' ended with exit status 3"),
        ("api_key_command: no-such-program-here", "there is no program 'no-such-program-here'"),
        ("api_key_command: 'true'", "what api_key_command printed is empty"),
        ("api_key_command: \"printf 'sk-half\\\\nsk-more'\"", "characters that no header can carry"),
        ('api_key_command: "echo \'oops"', "can't be read as a command"),
        ("api_key_file: gone.txt", "api_key_file gone.txt: can't be read"),
        ("api_key_env: NOT_SET_HERE", "NOT_SET_HERE is not set"),
        ("api_key_env: A, api_key_file: b", "give either `api_key_env` or `api_key_file`"),
    ],
)
def test_keys_that_cant_be_had(cli, key, words):
    job(cli.folder, "http://127.0.0.1:9/v1", key=key)
    for command in ("run", "try"):
        code, out, err = cli(command, "job.yaml")
        assert (code, out) == (2, "")
        assert words in err
        assert "sk-half" not in err
        assert "sk-more" not in err
    assert not list(cli.folder.glob("*.db"))


def test_a_run_reads_the_env_file_and_runs_a_command_once(cli):
    with stub(lambda asked: Said(body=answer())) as (url, asked):
        job(cli.folder, url, key="api_key_command: \"sh -c 'echo x >> ran; echo $SECRET_KEY'\"")
        write(cli.folder, ".env", f"SECRET_KEY={KEY}\n")
        assert cli("run", "job.yaml", "--json")[0] == 0
    assert {one.headers["Authorization"] for one in asked} == {f"Bearer {KEY}"}
    assert (cli.folder / "ran").read_text() == "x\n"
    assert KEY.encode() not in (cli.folder / "job.db").read_bytes()


# doctor


def checks(out):
    return {(check["level"], check["about"]): check["words"] for check in json.loads(out)["checks"]}


def test_a_doctor_finds_nothing_wrong(cli, keyed: SimulatorProcess):
    job(cli.folder, keyed.url, key="api_key_env: MY_KEY, price: {input: 1, output: 2}")
    write(cli.folder, ".env", f"MY_KEY={KEY}\n").chmod(0o600)
    code, out, err = cli("doctor", "job.yaml", "--json")
    found = checks(out)
    assert (code, json.loads(out)["failed"]) == (0, 0)
    assert found["ok", ".env"] == "gives MY_KEY"
    assert found["ok", "key of m"] == "from MY_KEY"
    assert "within" in found["ok", "clock"]
    assert ("warn", "endpoint of m") in found  # the simulator lists its own models only
    assert "batchllm models job.yaml lists them" in out
    assert KEY not in out + err


def test_a_doctor_finds_what_is_wrong(cli, keyed: SimulatorProcess):
    job(cli.folder, keyed.url, key="api_key_env: MY_KEY", more="budget: {usd: 1}\nid: nope")
    write(cli.folder, ".env", "MY_KEY=sk-wrong-key-9876\n").chmod(0o644)
    write(cli.folder, "job.db", "SQLite format 3\0 and then nothing of it" + " " * 200)
    code, out, err = cli("doctor", "job.yaml", "--json")
    found = checks(out)
    assert code == 1
    assert {about for level, about in found if level == "fail"} == {"input", "store", "endpoint of m", "endpoint of n"}
    assert "the key was refused: 401" in found["fail", "endpoint of m"]
    assert "other users" in found["warn", ".env"]
    assert "sk-wrong-key-9876" not in out + err


def test_a_doctor_offline_and_without_a_job(cli):
    code, _, err = cli("doctor", "--offline")
    assert code == 0
    assert "warn  keys: none of OPENAI_API_KEY" in err
    write(cli.folder, ".env", "not a line\n")
    code, _, err = cli("doctor")
    assert (code, "/.env:1: can't be read" in err) == (2, True)


def test_a_doctor_sees_a_dead_server_and_a_wrong_clock(cli):
    def late(asked: Asked) -> Said:
        raise AssertionError(asked)

    job(cli.folder, "http://127.0.0.1:9/v1")
    code, _, err = cli("doctor", "job.yaml")
    assert code == 1
    assert "fail  endpoint of m: can't connect to 127.0.0.1:9: Connection refused" in err


# errors


def test_no_smaller_model_for_what_was_too_long(cli):
    write(cli.folder, "rows.jsonl", '{"q": "one"}\n' + json.dumps({"q": "word " * 100}) + "\n")
    spec = """
input: rows.jsonl
prompt: "{{ q }}"
request: {max_tokens: 10}
context: {reserve: 10}
models:
  a: {provider: simulated, context_window: 60}
  small: {provider: simulated, context_window: 50}
  large: {provider: simulated, context_window: 5000}
routes: [{use: a}]
"""
    write(cli.folder, "job.yaml", spec)
    assert cli("run", "job.yaml", "--quiet")[0] == 1
    assert "--code too_long --model large\n" in cli("errors", "job.yaml")[2]
    write(cli.folder, "job.yaml", "\n".join(line for line in spec.splitlines() if "large" not in line))
    assert "small" not in cli("errors", "job.yaml")[2]


def test_a_label_without_its_quotes(cli):
    write(cli.folder, "rows.jsonl", '{"q": "one"}\n{"q": "two"}\n')
    write(cli.folder, "job.yaml", 'input: rows.jsonl\nprompt: "{{ q }}"\nmodels: {a: {provider: simulated}}\noutput: {choices: [bug]}\n')
    assert cli("run", "job.yaml", "--quiet")[0] == 0
    for command in ("export", "retry"):
        code, out, err = cli(command, "job.yaml", "--where", "status = 'ok' and parsed = 'bug'")
        assert (code, out) == (0, "")
        assert "write json_extract(parsed, '$') = 'bug' instead of parsed = 'bug'" in err
    assert len(cli("export", "job.yaml", "--where", "json_extract(parsed, '$') = 'bug'")[1].splitlines()) == 2
    assert "JSON" not in cli("export", "job.yaml", "--where", "parsed = '\"none\"'")[2]


# models


@pytest.mark.parametrize("provider", ["openai-compatible", "anthropic", "gemini", "ollama"])
def test_what_a_server_serves(cli, keyed: SimulatorProcess, provider, monkeypatch):
    monkeypatch.setenv("THE_KEY", KEY)
    base = keyed.url if provider == "openai-compatible" else keyed.url.removesuffix("/v1")
    code, out, _ = cli("models", "--provider", provider, "--base-url", base, "--api-key-env", "THE_KEY", "--json")
    (server,) = json.loads(out)["servers"]
    assert code == 0
    assert "sim-small" in {model["id"].removesuffix(":latest") for model in server["models"]}


def test_models_of_a_job_and_a_refused_key(cli, keyed: SimulatorProcess):
    job(cli.folder, keyed.url)
    code, out, err = cli("models", "job.yaml")
    assert (code, out) == (1, "")
    assert "error: " in err
    assert "401" in err


def test_ollamas_models(cli, provider: SimulatorProcess):
    base = ("--base-url", provider.url.removesuffix("/v1"))
    code, out, err = cli("models", "pull", "gemma4", *base)
    assert (code, out) == (0, "")
    assert "success\ngemma4 is here" in err
    assert cli("models", "create", "terse", "--from", "gemma4", "--system", "One word.", "--parameter", "num_ctx=512", *base)[0] == 0
    code, out, _ = cli("models", "show", "terse", *base)
    assert code == 0
    assert "num_ctx" in out
    assert "One word." in out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ([], 2, "name either a JOB, or a provider"),
        (["gone.yaml"], 2, "no such file"),
        (["--provider", "openai"], 2, "OPENAI_API_KEY is not set"),
        (["--provider", "ollama", "--base-url", "localhost"], 2, "--base-url: expected an http or https URL"),
        (["--provider", "ollama", "--base-url", "http://127.0.0.1:9"], 1, "can't connect"),
        (["create", "x", "--from", "y", "--parameter", "z"], 2, "--parameter: expected NAME=VALUE"),
        (["show", "x", "--base-url", "http://127.0.0.1:9"], 1, "can't connect"),
    ],
)
def test_models_with_bad_input(cli, args, code, words):
    ended, out, err = cli("models", *args)
    assert (ended, out) == (code, "")
    assert words in err


# prices and tokens


def test_prices(cli):
    code, out, _ = cli("prices", "gpt-6-luna", "--json", "--at", "2026-11-21")
    (luna, *_) = json.loads(out)["models"]
    assert (code, luna["prices"][0]["input"], luna["prices"][1]["above_input_tokens"]) == (0, 0.1, 272_000)
    assert luna["other_prices"]["batch"][0]["output"] == 0.25
    write(cli.folder, "own.yaml", "gpt-6-luna: {input: 7, output: 8}\nmine: {input: 1, output: 2}\n")
    assert "standard       7.00" in cli("prices", "gpt-6-luna", "--file", "own.yaml")[1]
    assert "[own]\nmine" in cli("prices", "--file", "own.yaml")[1]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["prices", "gpt6-luna"], 2, "did you mean gpt-6-luna"),
        (["prices", "--provider", "nobody"], 2, "the book has no provider 'nobody'"),
        (["prices", "--at", "tomorrow"], 2, "--at: expected a day"),
        (["prices", "--file", "gone.yaml"], 2, "gone.yaml: no such file"),
        (["prices", "update", "--url", "http://127.0.0.1:9/x"], 1, "prices were not updated; genai-prices"),
        (["tokens"], 2, "nothing to count"),
        (["tokens", "--file", "gone.md"], 2, "gone.md: can't be read"),
        (["tokens", "x", "--image", "job.yaml"], 2, "is no PNG, JPEG, GIF or WebP"),
        (["tokens", "x", "--tools", "job.yaml"], 2, "no JSON"),
        (["tokens", "x", "--job", "job.yaml", "--model", "z"], 2, "the job has no model called 'z'"),
        (["tokens", "fetch", "nope"], 2, "'nope' is no encoding"),
    ],
)
def test_prices_and_tokens_with_bad_input(cli, args, code, words):
    job(cli.folder, "http://127.0.0.1:9/v1")
    ended, _, err = cli(*args)
    assert ended == code
    assert words in err


def test_an_update_of_the_prices(cli, monkeypatch):
    from batchllm.cli import _fetch
    from batchllm.cost import updates

    model = {"id": "m-1", "match": {"equals": "m-1"}, "prices": {"input_mtok": 3, "output_mtok": 7}}
    providers = [{"id": f"p{n}", "name": f"P{n}", "api_pattern": f"https://p{n}", "models": [model]} for n in range(12)]
    monkeypatch.setattr(_fetch, "fetch", lambda url: json.dumps(providers).encode())
    try:
        with pytest.raises(SystemExit) as end:
            main(["prices", "update"])
        assert not end.value.code
        assert "fetched 20" in cli("prices", "m-1")[1]
    finally:
        updates.current.cache_clear()


def test_tokens(cli):
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}}]
    write(cli.folder, "tools.json", json.dumps(tools))
    (cli.folder / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 512, 512))
    code, out, _ = cli("tokens", "One two three.", "--model", "gpt-4o", "--image", "p.png", "--tools", "tools.json", "--json")
    (count,) = json.loads(out)["counts"]
    assert code == 0
    assert count["tokens"] == count["text_tokens"] + count["frame_tokens"] + count["tools_tokens"] + 255
    assert count["tools_tokens"] > 12
    code, out, _ = cli("tokens", "One two three.", "One", "--model", "sim-small", "--provider", "simulated")
    assert (code, out.splitlines()[0].split("   ")[0]) == (0, "4 tokens")


def test_tokens_learn_from_a_job(cli):
    def usage(asked: Asked) -> Said:
        body = json.loads(answer())
        return Said(body=json.dumps({**body, "usage": {"prompt_tokens": 90, "completion_tokens": 2, "total_tokens": 92}}).encode())

    with stub(usage) as (url, _):
        job(cli.folder, url)
        assert cli("run", "job.yaml", "--quiet")[0] == 0
    code, out, _ = cli("tokens", "some words here", "--job", "job.yaml", "--model", "m", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["learnt_ratio"] > 3
    assert found["counts"][0]["corrected"] == round(found["tokens"] * found["learnt_ratio"])
