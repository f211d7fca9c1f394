"""What a wrong spec is told: every problem at once, each with its place and its mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchllm.core.errors import SpecError
from batchllm.spec import build, load, loads

S = "models: {s: {provider: simulated}}\n"


def problems(text: str, *, file: str = "job.yaml", **kwargs) -> list[str]:
    with pytest.raises(SpecError) as caught:
        loads(text, folder=Path("/nowhere"), file=file, **kwargs)
    return [str(problem) for problem in caught.value.problems]


BAD = """\
name: a/b
inputs: data/reviews.jsonl
prompt:
  system: 5
temperature: 0
models:
  mini:
    provider: anthropc
    modl: gpt
    rpm: 500
    limits: {rpm: many, rmp: null, tpm: 0}
  x: {provider: openai-compatible, model: y, api_key_env: sk-12-4}
routes:
  - use: [mini, min]
    wen: 1
retry:
  max_attempts: true
  on_outage: wiat
  max_attempts: 3
budget: {usd: -1, alerts: [2]}
limit_groups:
  acc: {models: [nope]}
output: x
"""


def test_all_problems_at_once_each_with_place_and_mend() -> None:
    assert problems(BAD) == [
        "job.yaml:1:7: name: names the store and the results, so it must be a file name without slashes, got 'a/b'",
        "job.yaml:2:1: inputs: unknown key; did you mean `input`?",
        "job.yaml:3:1: prompt.user: a prompt needs `user` (or `messages`)",
        "job.yaml:4:11: prompt.system: expected text or {file: PATH}, got 5",
        "job.yaml:5:1: temperature: unknown key; did you mean `request.temperature`?",
        "job.yaml:8:15: models.mini.provider: expected openai, anthropic, gemini, ollama, openai-compatible or simulated, got 'anthropc'; did you mean `anthropic`?",
        "job.yaml:9:5: models.mini.modl: unknown key; did you mean `model`?",
        "job.yaml:10:5: models.mini.rpm: unknown key; did you mean `limits.rpm`?",
        "job.yaml:11:19: models.mini.limits.rpm: expected a whole number, got 'many'",
        "job.yaml:11:25: models.mini.limits.rmp: unknown key; did you mean `rpm`?",
        "job.yaml:11:41: models.mini.limits.tpm: a limit of 0 would never send anything; leave it out to have it found, or write `limits: none` for no limit",
        "job.yaml:12:3: models.x.base_url: `openai-compatible` needs the server's address, e.g. http://localhost:8000/v1",
        "job.yaml:12:59: models.x.api_key_env: expected the name of an environment variable, such as OPENAI_API_KEY (never the key itself), or `none`",
        "job.yaml:14:17: routes.0.use.1: no model is called 'min'; did you mean `mini`?",
        "job.yaml:15:5: routes.0.wen: unknown key; did you mean `when`?",
        "job.yaml:17:17: retry.max_attempts: expected a whole number, got true",
        "job.yaml:18:14: retry.on_outage: expected wait or fallback, got 'wiat'; did you mean `wait`?",
        "job.yaml:19:3: retry.max_attempts: duplicate key, already given on line 17; keep one of them",
        "job.yaml:20:15: budget.usd: must be at least 0, got -1",
        "job.yaml:20:28: budget.alerts.0: must be at most 1, got 2",
        "job.yaml:22:18: limit_groups.acc.models.0: no model is called 'nope'; there are: mini, x",
        "job.yaml:23:9: output: expected keys and values, got 'x'",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "job.yaml:1:1: the spec is empty"),
        ("- x", "job.yaml:1:1: a spec is made of keys and values"),
        ("a: [1,\nb: 2", "job.yaml:2:5: the bracket of line 1 is not closed before this, or a comma is missing"),
        ("a: {b: [1, 2}\nc: 3", "job.yaml:1:13: the bracket of line 1 is not closed before this, or a comma is missing"),
        ('a: 1\nb: "two\nc: 3', "job.yaml:3:5: the quote of line 2 is not closed"),
        ("a:\n  b: 1\n c: 2", "job.yaml:3:2: this doesn't fit in here: indent keys of one object alike; in a text in quotes, write the quote twice"),
        ("a: b: c", "job.yaml:1:5: a second `:` in one line, or a line that is indented too far; put a text that contains `: ` in quotes"),
        ("a:\n\t- x", "job.yaml:2:1: found character '\\t' that cannot start any token; indent with spaces, not tabs"),
        ("a: *q", "job.yaml:1:4: found undefined alias 'q'"),
        ("a: 1\n---\nb: 2", "job.yaml:2:1: a spec is one YAML document"),
        ("a: \x00", "job.yaml: not YAML: "),
        ("a: " + "[" * 800, "job.yaml: nested too deeply"),
        (S + "request: {x: " + "[" * 110 + "]" * 110 + "}", "job.yaml: request.x.0: nested more than 100 levels deep"),
        ("name: x", "job.yaml:1:1: models: this key is required"),
        ("models: {}", "job.yaml:1:9: models: needs at least one model"),
        ("models:\n  mini:\n", "job.yaml:2:3: models.mini: expected keys and values, got null"),
        ("models:\n  mini:\n    model: x\n", "job.yaml:2:3: models.mini.provider: this key is required"),
        ("models: {a: {provider: openai}}", "job.yaml:1:10: models.a.model: this key is required"),
        ("models: {gpt-4.1: {provider: simulated}}", "job.yaml:1:10: models.gpt-4.1: a model's name can't hold a dot"),
        (
            "models: {a: {provider: simulated}, b: {provider: simulated}}",
            "job.yaml:1:1: routes: with several models `routes` says which rows go where",
        ),
        ("models: {a: {provider: openai, model: x, simulator: {}}}", "job.yaml:1:42: models.a.simulator: only with `provider: simulated`"),
        ("models: {a: {provider: simulated, api_key_env: X}}", "job.yaml:1:35: models.a.api_key_env: the simulated provider runs in this process"),
        (
            "models: {a: {provider: openai, model: x, base_url: ftp://h, api_key_env: K}}",
            "job.yaml:1:52: models.a.base_url: expected an http or https URL",
        ),
        ("models: {a: {provider: openai, model: x, price: {input: 1}}}", "job.yaml:1:42: models.a.price.output: a price needs both"),
        (
            "models: {a: {provider: openai, model: x, price: {input: 1.0000001, output: 1}}}",
            "job.yaml:1:57: models.a.price.input: at most six decimals",
        ),
        ("models: {a: {provider: openai, model: x, headers: {X: 5}}}", "job.yaml:1:55: models.a.headers.X: expected text (put it in quotes)"),
        ("models: {a: {provider: openai, model: x, headers: {'X Y': '1'}}}", "job.yaml:1:51: models.a.headers: 'X Y' is no header name"),
        (
            "models: {a: {provider: openai, model: x, body: {max_tokens: 5}}}",
            "job.yaml:1:49: models.a.body.max_tokens: `max_tokens` can't be set here",
        ),
        (
            "models: {a: {provider: openai, model: x, request: {n: 2}}}",
            "job.yaml:1:55: models.a.request.n: only one answer per request: use `samples`",
        ),
        (S + "request: {stream: true}", "job.yaml:2:19: request.stream: `stream` can't be set here: use `stream` at the top level"),
        (S + "request: {model: x}", "job.yaml:2:18: request.model: `model` can't be set here"),
        (S + "request: {messages: []}", "job.yaml:2:21: request.messages: `messages` can't be set here"),
        (S + "request: {max_tokens: 0}", "job.yaml:2:23: request.max_tokens: must be at least 1, got 0"),
        (S + "request: {temperature: true}", "job.yaml:2:24: request.temperature: expected a number, got true"),
        (S + "request: {x: .inf}", "job.yaml:2:14: request.x: .inf is no number that JSON can carry"),
        (S + "request: {x: 99999999999999999999}", "job.yaml:2:14: request.x: 99999999999999999999 is no number that JSON can carry"),
        (S + "request: {x: !thing 1}", "job.yaml:2:14: request.x: a value of type !thing is not possible"),
        (S + "request: &r {x: *r}", "job.yaml:2:14: request.x: contains itself"),
        (S + 'name: "\\ud83d"', "job.yaml:2:7: name: half of a surrogate pair is no character"),
        (S + "prompt: {{ text }}", "job.yaml:2:10: prompt: a key must be text; put a text that begins with `{{`"),
        (S + "prompt: {file: p.md}", "job.yaml:2:16: prompt.file: no such file: p.md (looked for in /nowhere)"),
        (S + "prompt: {user: {file: p.md}}", "job.yaml:2:16: prompt.user: no such file: p.md"),
        (S + "prompt: {user: x, messages: [{role: user, content: x}]}", "job.yaml:2:9: prompt: give either `messages` or"),
        (S + "prompt: ''", "job.yaml:2:9: prompt: must not be empty"),
        (
            S + "prompt: {messages: [{role: robot, content: x}]}",
            "job.yaml:2:28: prompt.messages.0.role: expected system, developer, user, assistant or tool",
        ),
        (S + "prompt: {messages: [{role: user}]}", "job.yaml:2:21: prompt.messages.0.content: this key is required"),
        (S + "input: []", "job.yaml:2:8: input: must not be empty"),
        (S + "input: [a.jsonl, 5]", "job.yaml:2:18: input.1: expected text, got 5 (put it in quotes)"),
        (S + "input: {types: {a: text}}", "job.yaml:2:8: input: needs `path` (or `files`, where each file is a row)"),
        (S + "input: {path: a.csv, files: '*.png'}", "job.yaml:2:8: input: give either `path` or `files`, not both"),
        (S + "input: {path: a.csv, types: {a: float}}", "job.yaml:2:33: input.types.a: expected text, number, integer, boolean or json, got 'float'"),
        (S + "input: {path: a.csv, delimiter: ab}", "job.yaml:2:33: input.delimiter: expected one character"),
        (S + "input: {path: a.csv, encoding: utf-9}", "job.yaml:2:32: input.encoding: unknown encoding 'utf-9'"),
        (S + "store: ${HOME", "job.yaml:2:8: store: `${` without its `}`"),
        (S + "input: '${A:-b}'", "job.yaml:2:8: input: `${A:-b}`: a variable's name is made of"),
        (S + "results: out.txt", "job.yaml:2:10: results: the ending picks the format: .jsonl or .csv or .parquet or .npy, got '.txt'"),
        (S + "deadline: 07:61", "job.yaml:2:11: deadline: expected a local time"),
        (S + "deadline: 8", "job.yaml:2:11: deadline: expected text, got 8 (put it in quotes)"),
        (S + "stream: yes", "job.yaml:2:9: stream: expected true or false, got 'yes'"),
        (S + "max_failed: 150%", "job.yaml:2:13: max_failed: expected a count or a percentage"),
        (S + "max_failed: -1", "job.yaml:2:13: max_failed: expected a count or a percentage"),
        (S + "dedupe: 'true'", "job.yaml:2:9: dedupe: expected auto, true or false, got 'true'"),
        (S + "concurrency: 0", "job.yaml:2:14: concurrency: must be at least 1, got 0"),
        (S + "routes: [{use: [s, s]}]", "job.yaml:2:16: routes.0.use: 's' is listed twice"),
        (S + "routes: [{use: []}]", "job.yaml:2:16: routes.0.use: must not be empty"),
        (S + "limits: {rpm: 1}", "job.yaml:2:1: limits: unknown key"),
        (S + "output: {usd: 1}", "job.yaml:2:10: output.usd: unknown key here; `budget.usd` belongs to the top level"),
        (S + "limit_groups: {a: {models: [s], rpm: 0}}", "job.yaml:2:38: limit_groups.a.rpm: a limit of 0 would never send"),
    ],
)
def test_one_problem(text: str, message: str) -> None:
    first, *others = problems(text)
    assert first.startswith(message)
    assert others == []


NOT_YET = [
    ("models.s.batch", "auto", "auto"),
    ("models.s.batch", "only", "only"),
    ("compress", True, "compress: true"),
]


@pytest.mark.parametrize(("key", "value", "name"), NOT_YET)
def test_what_this_version_cannot_honour_is_refused(key: str, value: object, name: str) -> None:
    text = "models: {s: {provider: openai, model: x}}\nlimit_groups: {g: {models: [s]}}\n"
    with pytest.raises(SpecError) as caught:
        loads(text, folder=Path(), file="job.yaml", set={key: value})
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("--set", None)
    assert problem.message.endswith(" is not supported by this version yet")
    assert f"`{name}`" in problem.message


def test_a_bad_set_is_reported_as_such() -> None:
    changes = {"budget.usd": "5", "models.s.limts.rpm": 3, "routes.7": 1, "budgt.usd": 1, "name.x": 1, "a..b": 1, "models.t.provider": "simulated"}
    assert problems("name: x\nroutes: [{use: s}]\n" + S, set=changes) == [
        "--set: routes.7: `7`: the list has 1 items, counted from 0",
        "--set: name.x: `name` is 'x' and has no keys; set it as a whole",
        "--set: a..b: expected names separated by single dots",
        "--set: models.s.limts: unknown key; did you mean `limits`?",
        "--set: budgt: unknown key; did you mean `budget`?",
        "--set: budget.usd: expected a number, got '5'",
    ]
    job = loads(S, folder=Path())
    with pytest.raises(SpecError) as caught:
        job.with_changes(**{"budget.usd": -5})
    assert str(caught.value) == "budget.usd: must be at least 0, got -5"


def test_built_in_code_problems_name_the_key() -> None:
    with pytest.raises(SpecError) as caught:
        build({"models": {"s": {"provider": "simulated"}}, "budgt": 1, "request": {"x": float("nan"), "y": object}})
    assert [problem.path for problem in caught.value.problems] == ["request.x", "request.y", "budgt"]
    assert caught.value.exit_code == 2
    loop: dict[str, object] = {}
    loop["x"] = loop
    with pytest.raises(SpecError, match="nested more than 100 levels deep"):
        build({"request": loop})


TOML = '''\
# a comment with = and [brackets]
nme = "x"
prompt = """
not.a.key = 1 # [models]
"""
[models.mini]
provider = "openai"
  "model" = 5
limits = {rpm = "many", tpm = 0}
[[routes]]
use = ["mini",
  "nope"]
[[routes]]
wen = 'x'
use = "mini"
[budget]
usd = -1
[retry]
x.y = 2026-01-01 07:00:00
'''


def test_toml_has_places_too() -> None:
    assert problems(TOML, file="job.toml") == [
        "job.toml:2:1: nme: unknown key; did you mean `name`?",
        "job.toml:8:13: models.mini.model: expected text, got 5 (put it in quotes)",
        "job.toml:9:17: models.mini.limits.rpm: expected a whole number, got 'many'",
        "job.toml:9:31: models.mini.limits.tpm: a limit of 0 would never send anything; leave it out to have it found, or write `limits: none` for no limit",
        "job.toml:12:3: routes.0.use.1: no model is called 'nope'; there are: mini",
        "job.toml:14:1: routes.1.wen: unknown key; did you mean `when`?",
        "job.toml:17:7: budget.usd: must be at least 0, got -1",
        "job.toml:19:1: retry.x: unknown key; possible here: max_attempts, initial_seconds, max_seconds, timeout_seconds, stall_seconds, outage_seconds, on_outage",
    ]
    assert problems('a = 1\nb = "x', file="job.toml")[0].startswith("job.toml: not TOML: ")
    assert problems("a = 1\na = 2\n", file="job.toml") == ["job.toml:2:6: not TOML: Cannot overwrite a value"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"SQLite format 3\0...", "is a SQLite file (a store?), not a spec"),
        (b"name: x\nprompt: \xff", ":2:9: not UTF-8"),
    ],
)
def test_files_that_are_no_spec(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "j.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    with pytest.raises(SpecError, match="is a folder"):
        load(tmp_path)


def test_many_aliases_end_in_a_message() -> None:
    text = "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}\n" for n in range(1, 40))
    assert problems(text) == ["job.yaml: more than 100,000 values (aliases counted as often as they are used)"]


def test_keys_are_never_shown() -> None:
    text = "models: {a: {provider: openai, model: x, api_key_env: sk-proj-123456, headers: {Authorization: [sk-proj-123456]}, base_url: 'https://u:sk-proj-123456@h'}}"
    assert "sk-proj" not in "".join(problems(text))
