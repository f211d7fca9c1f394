"""The spec as people write it: what loads, and what the loaded value says."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from batchllm.core.errors import SpecError
from batchllm.core.secret import Secret
from batchllm.spec import JobSpec, MaxFailed, Route, build, json_schema, load, loads, parse_set
from batchllm.spec.variables import expand, literal

MINI = {"mini": {"provider": "openai", "model": "gpt-6-luna"}}

# Every key of contract 2, with its default where it has one.
SPELLED_OUT = """
name: reviews
input: {path: [data/reviews.jsonl, "more/*.csv.gz"], types: {stars: number}, delimiter: ";", encoding: utf-8}
id: review_id
prompt:
  system: You label product reviews.
  user: "Label as positive, negative or mixed: {{ text }} ${NOT_A_VARIABLE}"
overrides: {model: null, request: null}
request: {temperature: 0, max_tokens: 16}
endpoint: chat
concurrency: null
models:
  mini:
    provider: openai
    model: gpt-6-luna
    base_url: null
    api_key_env: OPENAI_API_KEY
    headers: {}
    request: {max_tokens: 100}
    body: {}
    limits: {rpm: 500, tpm: 200000, itpm: null, otpm: null, rpd: null, tpd: null, concurrency: 64, burst_seconds: 1}
    price: {input: 0.10, output: 0.50, cached_input: 0.01, cache_write: 0.125, batch_input: 0.05, batch_output: 0.25}
    batch: never
    simulator: null
  strong: {provider: openai-compatible, model: m, base_url: "http://localhost:8000/v1/", api_key_env: none, limits: none}
limit_groups:
  account: {models: [mini], rpm: 3000, tpm: 400000, itpm: null, usd_per_day: null, share: 1.0}
routes:
  - when: "tokens > 8000 or row.lang == 'fr'"
    use: strong
  - use: [mini, strong]
output: {schema: null, choices: null, check: null, on_invalid: null, on_length: ok, keep: [lang, product_id]}
samples: null
stream: false
retry: {max_attempts: 8, initial_seconds: 0.5, max_seconds: 60, timeout_seconds: 120, stall_seconds: 60, outage_seconds: 1800, on_outage: wait}
budget: {usd: 20, usd_per_day: null, tokens: null, tokens_per_day: null, tokens_per_month: null, alerts: [0.5, 0.8], when_used_up: stop, reserve: worst}
deadline: 07:00
prefer: order
context: {max_tokens: null, reserve: null, trim: error}
dedupe: auto
cache: false
prompt_cache: off
on_change: ask
max_failed: 0.5%
keep_bodies: all
durability: full
compress: false
store: reviews.db
results: reviews.results.jsonl
"""


def test_every_key_spelled_out_loads() -> None:
    job = loads(SPELLED_OUT, folder=Path("/jobs"))
    mini, strong = job.models["mini"], job.models["strong"]
    assert job.input is not None
    assert job.input.paths == ("data/reviews.jsonl", "more/*.csv.gz")
    assert job.input.types == {"stars": "number"}
    assert (job.input.delimiter, job.input.encoding) == (";", "utf-8")
    assert job.prompt is not None
    assert [(message.role, message.content) for message in job.prompt.messages] == [
        ("system", "You label product reviews."),
        ("user", "Label as positive, negative or mixed: {{ text }} ${NOT_A_VARIABLE}"),
    ]
    assert job.request == {"temperature": 0, "max_tokens": 16}
    assert (mini.limits.rpm, mini.limits.tpm, mini.limits.concurrency, mini.limits.declared, mini.limits.unlimited) == (500, 200000, 64, True, False)
    assert (strong.limits.declared, strong.limits.unlimited) == (False, True)
    assert mini.price is not None
    assert (mini.price.input, mini.price.cache_write) == (Decimal("0.1"), Decimal("0.125"))
    assert job.routes == (Route(when="tokens > 8000 or row.lang == 'fr'", use=("strong",)), Route(use=("mini", "strong")))
    assert job.limit_groups["account"].models == ("mini",)
    assert job.output.keep == ("lang", "product_id")
    assert job.budget.usd == Decimal(20)
    assert job.max_failed == MaxFailed(fraction=0.005)
    assert (job.deadline, job.prompt_cache, job.dedupe) == ("07:00", "off", "auto")
    assert isinstance(job.retry.max_seconds, float)


def test_the_least_spec_has_every_default() -> None:
    job = build({"models": {"s": {"provider": "simulated"}}})
    assert (job.name, job.input, job.prompt, job.endpoint, job.stream, job.samples) == ("job", None, None, "chat", False, None)
    assert job.models["s"].model == "sim-small"
    assert job.models["s"].limits.declared is False
    assert job.models["s"].price is None
    assert job.routes == (Route(use=("s",)),)
    assert (job.budget.usd, job.max_failed, job.deadline, job.on_change) == (None, None, None, "ask")
    assert (job.path, job.overrides_text, job.text) == (None, None, '{"models":{"s":{"provider":"simulated"}}}')
    assert (job.folder, job.store_path({})) == (Path.cwd(), Path.cwd() / "job.db")


def test_all_three_formats_say_the_same(tmp_path: Path) -> None:
    files = {
        "a.yaml": "prompt: hi\nmodels:\n  mini: {provider: openai, model: m, limits: {rpm: 1e3}}\nbudget: {usd: 0.3}\n",
        "a.json": '{"prompt":"hi","models":{"mini":{"provider":"openai","model":"m","limits":{"rpm":1000}}},\n\t"budget":{"usd":0.3}}',
        "a.toml": '\ufeffprompt = "hi"\n[models.mini]\nprovider = "openai"\nmodel = "m"\nlimits.rpm = 1000\n[budget]\nusd = 0.3\n',
    }
    loaded = []
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        loaded.append(load(tmp_path / name))
    assert loaded[0].name == "a"
    assert loaded[0].budget.usd == Decimal("0.3")
    assert loaded[0].path == tmp_path / "a.yaml"
    dumps = [job.model_dump() for job in loaded]
    assert dumps[0] == dumps[1] == dumps[2]


def test_yaml_is_1_2_and_json_text_survives() -> None:
    text = 'models: {4: {provider: simulated}}\nprompt: no\nid: 2026-01-01\nrequest: {x: 0x10, y: 010, z: "\\ud83d\\ude00", on: yes}\n'
    job = loads(text, folder=Path())
    assert list(job.models) == ["4"]
    assert job.prompt is not None
    assert job.prompt.messages[0].content == "no"
    assert job.id == "2026-01-01"
    assert job.request == {"x": 16, "y": 10, "z": "\U0001f600", "on": "yes"}


def test_anchors_and_merge_keys() -> None:
    job = loads(
        "models:\n  a: &base {provider: openai, model: m, limits: {rpm: 5}}\n  b: {<<: *base, model: n}\nroutes: [{use: [a, b]}]", folder=Path()
    )
    assert (job.models["b"].model, job.models["b"].limits.rpm) == ("n", 5)


def test_prompt_from_files(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_bytes(b"\xef\xbb\xbfSummarise:\r\n{{ text }}")
    forms: list[object] = [
        {"file": "p.md"},
        {"user": {"file": "p.md"}},
        {"messages": [{"role": "user", "content": {"file": str(tmp_path / "p.md")}}]},
    ]
    for prompt in forms:
        job = build({"models": MINI, "prompt": prompt}, folder=tmp_path)
        assert job.prompt is not None
        assert [(m.role, m.content) for m in job.prompt.messages] == [("user", "Summarise:\n{{ text }}")]
    parts = [{"type": "text", "text": "{{ a }}"}, {"type": "image_url", "image_url": {"url": "{{ b }}"}}]
    job = build({"models": MINI, "prompt": {"messages": [{"role": "user", "content": parts}]}})
    assert job.prompt is not None
    assert job.prompt.messages[0].content == parts


def test_paths_are_relative_to_the_spec(tmp_path: Path) -> None:
    folder = tmp_path / "a[b]"
    folder.mkdir()
    (folder / "j.yaml").write_text(
        "models: {s: {provider: simulated}}\ninput: ['${DIR}/x.jsonl', '*.csv', '/abs/$$x.csv', '-']\nresults: none\nstore: ${DIR}/s.db\n"
    )
    job = load(folder / "j.yaml")
    environ = {"DIR": "d$$"}
    assert job.input_patterns(environ) == (f"{folder}/d$$/x.jsonl", f"{tmp_path}/a[[]b]/*.csv", "/abs/$x.csv", "-")
    assert job.store_path(environ) == folder / "d$$" / "s.db"
    assert job.results_path(environ) is None
    assert job.with_changes(results=None).results_path({}) == folder / "j.results.jsonl"
    with pytest.raises(SpecError, match="store: the environment variable DIR is not set"):
        job.store_path({})


def test_changes_keep_the_text_and_say_what_changed() -> None:
    job = loads(SPELLED_OUT, folder=Path("/jobs"), set={"budget.usd": 5, "models.mini.limits": {"rpm": 7}, "routes.1.use": "strong"})
    assert (job.budget.usd, job.models["mini"].limits.rpm, job.models["mini"].limits.tpm) == (5, 7, None)
    assert job.routes[1].use == ("strong",)
    again = job.with_changes(**{"budget.usd": None, "input": "/x/y.jsonl", "models.strong.limits": {"rpm": 1}})
    assert (again.budget.usd, again.models["mini"].limits.rpm, again.input_patterns({})) == (None, 7, ("/x/y.jsonl",))
    assert again.text == SPELLED_OUT
    assert json.loads(again.overrides_text or "") == {
        "budget.usd": None,
        "models.mini.limits": {"rpm": 7},
        "routes.1.use": "strong",
        "input": "/x/y.jsonl",
        "models.strong.limits": {"rpm": 1},
    }
    assert job.budget.usd == 5
    assert loads(again.text, folder=again.folder, set=json.loads(again.overrides_text or "")) == again


def test_simulated_touches_no_network_and_no_other_store() -> None:
    job = loads(SPELLED_OUT.replace("headers: {}", "headers: {X-Key: '${KEY}'}"), folder=Path("/jobs")).simulated()
    assert {spec.provider for spec in job.models.values()} == {"simulated"}
    assert [(spec.model, spec.base_url, spec.key_envs(), spec.headers) for spec in job.models.values()] == [
        ("gpt-6-luna", None, (), {}),
        ("m", None, (), {}),
    ]
    assert (job.store_path({}), job.results_path({})) == (Path("/jobs/reviews.sim.db"), Path("/jobs/reviews.sim.results.jsonl"))


def test_a_pool_of_keys_has_so_many_times_the_limits() -> None:
    model = {"provider": "openai", "model": "x", "api_key_env": ["A", "B"], "limits": {"rpm": 600, "concurrency": 4, "burst_seconds": 2}}
    job = build({"models": {"m": model}})
    for limits in (job.models["m"].all_limits(), job.simulated().models["m"].limits):
        assert (limits.rpm, limits.tpm, limits.concurrency, limits.burst_seconds) == (1200, None, 8, 2)
    # `limits: none` stays what it is.
    assert build({"models": {"m": {**model, "limits": "none"}}}).models["m"].all_limits().unlimited


def test_specs_are_frozen() -> None:
    job = build({"models": MINI})
    with pytest.raises(ValueError, match="frozen"):
        job.name = "other"  # type: ignore[misc]  # that is the test
    with pytest.raises(ValueError, match="frozen"):
        job.retry.max_attempts = 1  # type: ignore[misc]  # that is the test


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("budget.usd=5", "budget.usd", 5),
        ("models.mini.limits={rpm: 5}", "models.mini.limits", {"rpm": 5}),
        ("deadline = 07:00", "deadline", "07:00"),
        ("budget.usd=null", "budget.usd", None),
        ("budget.usd=", "budget.usd", None),
        ("prompt=a=b", "prompt", "a=b"),
        ("stream=true", "stream", True),
    ],
)
def test_parse_set(text: str, key: str, value: object) -> None:
    assert parse_set(text) == (key, value)


def test_a_prompt_that_is_a_text_can_be_set_by_its_parts() -> None:
    job = loads(
        "prompt: 'Say {{ text }}'\nmodels: {m: {provider: simulated}}\n", folder=Path("/jobs"), set=dict([parse_set("prompt.system=Be kind.")])
    )
    assert job.prompt is not None
    assert [(message.role, message.content) for message in job.prompt.messages] == [("system", "Be kind."), ("user", "Say {{ text }}")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budget.usd", "--set: expected KEY=VALUE"),
        ("=5", "--set: expected KEY=VALUE"),
        ("prompt={{ x }}", "--set: prompt: a key must be text; put a text that begins with `{{`"),
        ("a=[1", "--set: a: can't be read as a YAML value"),
    ],
)
def test_parse_set_refuses(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_set(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("model", "variables", "base"),
    [
        ({}, ("OPENAI_API_KEY",), "https://api.openai.com/v1"),
        ({"base_url": "https://API.openai.com:443/v1/"}, ("OPENAI_API_KEY",), "https://API.openai.com:443/v1"),
        ({"api_key_env": "K"}, ("K",), "https://api.openai.com/v1"),
        ({"api_key_env": "none"}, (), "https://api.openai.com/v1"),
        ({"base_url": "https://${H}/v1", "api_key_env": "K"}, ("K",), "https://h.example/v1"),
        ({"provider": "openai-compatible", "base_url": "http://localhost:1/v1", "api_key_env": "none"}, (), "http://localhost:1/v1"),
        ({"api_key_env": ["K", "L"]}, ("K", "L"), "https://api.openai.com/v1"),
        ({"api_key_env": ["K"]}, ("K",), "https://api.openai.com/v1"),
        ({"provider": "simulated"}, (), ""),
    ],
)
def test_whose_key_goes_where(model: dict[str, object], variables: tuple[str, ...], base: str) -> None:
    spec = build({"models": {"m": {"provider": "openai", "model": "x", **model}}}).models["m"]
    assert spec.key_envs() == variables
    assert spec.api_base({"H": "h.example"}) == base


@pytest.mark.parametrize(
    "url",
    [
        "http://api.openai.com/v1",
        "https://api.openai.com.evil.example/v1",
        "https://api.openai.com:8443/v1",
        "https://${HOST}/v1",
        "https://api.openai.com${X}/v1",
        "https://${X}@api.openai.com/v1",
        "http://localhost:8000",
    ],
)
def test_the_usual_key_goes_to_its_own_host_only(url: str) -> None:
    with pytest.raises(SpecError, match="api_key_env"):
        build({"models": {"m": {"provider": "openai", "model": "x", "base_url": url}}})
    with pytest.raises(SpecError, match="this host may need a key"):
        build({"models": {"m": {"provider": "openai-compatible", "model": "x", "base_url": url}}})


def test_filled_in_values_never_show() -> None:
    model = {"provider": "openai", "model": "x", "base_url": "${B}", "api_key_env": "none", "headers": {"X-Key": "Bearer ${K}", "Y": None}}
    spec = build({"models": {"m": model}}).models["m"]
    headers = spec.header_values({"K": "sk-secret$$\n"})
    assert headers == {"X-Key": Secret("Bearer sk-secret$$")}
    assert "sk-secret" not in repr(headers)
    for environ in ({"B": "hunter2-not-a-url"}, {"B": "https://u:hunter2@h/v1"}):
        with pytest.raises(SpecError) as caught:
            spec.api_base(environ)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(SpecError) as caught:
        spec.header_values({"K": "hunter2\r\nX-Other: 1"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("a", "a"), ("$$", "$"), ("${A}b${A}", "xbx"), ("$$${A}", "$x"), ("$${A}", "${A}"), ("$A", "$A"), (literal("a$b${A}"), "a$b${A}")],
)
def test_expand(text: str, value: str) -> None:
    assert expand(text, {"A": "x"}) == value


def test_the_schema_agrees_with_the_loader() -> None:
    validators = pytest.importorskip("jsonschema_rs", reason="jsonschema-rs is not installed; it checks the schema from outside")
    validator = validators.validator_for(json_schema())
    good: list[dict[str, object]] = [
        {"models": MINI},
        {"models": {"s": {"provider": "simulated", "simulator": {"seed": 3}, "limits": "none"}}, "prompt": "x", "input": "a.jsonl", "max_failed": 3},
        {
            "models": {**MINI, "b": {"provider": "simulated"}},
            "routes": [{"use": "b"}],
            "max_failed": "0.5%",
            "budget": None,
            "request": {"odd": 1, "top_p": None},
        },
        {"models": MINI, "prompt": {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "output": {"keep": "a"}},
    ]
    bad: list[dict[str, object]] = [
        {},
        {"models": {}},
        {"models": MINI, "budgt": None},
        {"models": {"a.b": {"provider": "simulated"}}},
        {"models": {"a": {"provider": "openai"}}},
        {"models": {"a": {"provider": "openai-compatible", "model": "x"}}},
        {"models": {"a": {"provider": "openai", "model": "x", "simulator": {"seed": 1}}}},
        {"models": {**MINI, "b": {"provider": "simulated"}}},
        {"models": {"a": {"provider": "openai", "model": "x", "limits": {"rpm": 0}}}},
        {"models": MINI, "budget": {"usd": "5"}},
        {"models": MINI, "max_failed": "101%"},
        {"models": MINI, "retry": {"on_outage": "stop"}},
        {"models": MINI, "request": {"max_tokens": "many"}},
    ]
    for data in good:
        assert validator.is_valid(data), (data, [error.message for error in validator.iter_errors(data)])
        assert isinstance(build(data), JobSpec)
    for data in bad:
        assert not validator.is_valid(data), data
        with pytest.raises(SpecError):
            build(data)
    full = loads(SPELLED_OUT, folder=Path())._source.written.data
    assert [error.message for error in validator.iter_errors(full)] == []


def test_every_key_is_described_and_closed() -> None:
    schema = json_schema()
    for name, part in {"job": schema, **schema["$defs"]}.items():
        assert part["additionalProperties"] is False, name
        for key, value in part["properties"].items():
            # pydantic leaves out a description that only repeats the referred part's own.
            assert value.get("description") or "$ref" in json.dumps(value), (name, key)
    assert "only" in schema["$defs"]["ModelSpec"]["properties"]["batch"]["description"]


def test_schema_command(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-m", "batchllm", "schema"], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == json_schema()
    subprocess.run([sys.executable, "-m", "batchllm", "schema", "--to", str(tmp_path / "s.json")], check=True)
    assert json.loads((tmp_path / "s.json").read_text()) == json_schema()
