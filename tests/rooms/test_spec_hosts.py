"""The keys `host` and `hosts`: which server a model is at, with which key and which quirks."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchllm.core.errors import SpecError
from batchllm.spec import JobSpec, loads

BARE = "input: rows.jsonl\nprompt: hi\n"


def job(model: str, hosts: str = "", folder: Path = Path("/nowhere")) -> JobSpec:
    return loads(f"{BARE}{hosts}\nmodels: {{m: {{model: x, {model}}}}}\n", folder=folder)


@pytest.mark.parametrize(
    ("model", "base", "key"),
    [
        ("provider: openai-compatible, host: groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
        ("provider: openai-compatible, host: groq, api_key_env: MINE", "https://api.groq.com/openai/v1", "MINE"),
        ("provider: openai-compatible, host: groq, api_key_file: k.txt", "https://api.groq.com/openai/v1", None),
        # Only the host's own address gets its usual key.
        ("provider: openai-compatible, host: groq, base_url: 'https://proxy/v1', api_key_env: none", "https://proxy/v1", None),
        ("provider: openai-compatible, host: ollama", "http://127.0.0.1:11434/v1", None),
        ("provider: ollama", "http://127.0.0.1:11434", None),
        ("provider: ollama, base_url: 'http://gpu:11434'", "http://gpu:11434", None),
        ("provider: ollama, base_url: 'https://ollama.com', api_key_env: OLLAMA_API_KEY", "https://ollama.com", "OLLAMA_API_KEY"),
    ],
)
def test_where_a_model_is(model, base, key):
    made = job(model).models["m"]
    assert (made.api_base({}), made.key_envs()) == (base, (key,) if key else ())


def test_a_host_of_ones_own(tmp_path):
    keys = "{like: azure-classic, base_url: 'https://r.openai.azure.com', api_key_env: K, query: {api-version: '2025-01-01'}, output_cap: any, drop: [seed]}"
    (tmp_path / "hosts.yaml").write_text(f"mine: {keys}\n")
    for hosts in (f"hosts: {{mine: {keys}}}", "hosts: hosts.yaml"):
        made = job("provider: openai-compatible, host: mine", hosts, tmp_path).models["m"]
        quirks = made.quirks
        assert quirks is not None
        assert (made.api_base({}), made.key_envs(), quirks.name) == ("https://r.openai.azure.com", ("K",), "mine")
        assert (quirks.query, quirks.output_cap, quirks.drop) == ({"api-version": "2025-01-01"}, None, ("seed",))
        # What is left out is as `like` has it.
        assert (quirks.deployments, quirks.key_header, quirks.rules) == (True, "api-key", "openai")


@pytest.mark.parametrize(
    ("model", "hosts", "message"),
    [
        ("provider: openai-compatible, host: groqq", "", "models.m.host: no host is called 'groqq'; there are: vllm"),
        ("provider: openai-compatible, host: vllm", "", "models.m.host: vllm can be anywhere: give its `base_url`"),
        ("provider: openai, host: groq", "", "models.m.host: only with `provider: openai-compatible`"),
        ("provider: openai-compatible, base_url: 'https://api.groq.com/openai/v1'", "", "api_key_env: GROQ_API_KEY"),
        ("provider: ollama", "hosts: {mine: {like: azur}}", "hosts.mine.like: no host is called 'azur'"),
        ("provider: ollama", "hosts: {mine: {output_cap: tokens}}", "hosts.mine.output_cap: expected max_tokens"),
        ("provider: ollama", "hosts: {mine: {droop: [x]}}", "hosts.mine.droop: unknown key; did you mean `drop`?"),
        ("provider: ollama", "hosts: {mine: {key_header: 'a b'}}", "'a b' is no header name"),
        ("provider: ollama", "hosts: nothere.yaml", "no such file: nothere.yaml"),
        ("provider: ollama", "hosts: bad.yaml", "bad.yaml: mine.droop: unknown key"),
        ("provider: ollama", "hosts: [x]", "expected hosts by name"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(model, hosts, message, tmp_path):
    (tmp_path / "bad.yaml").write_text("mine: {droop: [x]}\n")
    with pytest.raises(SpecError) as caught:
        job(model, hosts, tmp_path)
    (problem,) = caught.value.problems
    assert message in str(problem)
    assert problem.line
