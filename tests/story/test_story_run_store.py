"""JOB may be a store: it keeps its spec, so that the very file that other commands name can also be run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SPEC = """
input: rows.jsonl
prompt: "{{ text }}"
models: {m: {provider: simulated, simulator: {latency_ms: 1}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(SPEC)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"custom_id": f"r{n}", "text": f"row {n}"}) + "\n" for n in range(5)))
    return tmp_path


def run(*words: str, cwd: Path, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "batchllm", "run", *words, "--json"], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"said": done.stderr}
    return summary


@pytest.mark.parametrize(
    ("flags", "stem"), [([], "job"), (["--simulate"], "job.sim"), (["--name", "other"], "other"), (["--name", "other", "--simulate"], "other.sim")]
)
def test_a_store_goes_on_from_anywhere(folder: Path, tmp_path_factory: pytest.TempPathFactory, flags: list[str], stem: str) -> None:
    store = folder / f"{stem}.db"
    first = run("job.yaml", *flags, "--limit", "2", cwd=folder)
    assert first["store"] == str(store)
    (folder / "job.yaml").unlink()
    rest = run(str(store), cwd=tmp_path_factory.mktemp("elsewhere"))
    assert rest["rows"] == {"total": 5, "ok": 5, "failed": 0, "pending": 0}
    assert rest["attempts"] == 5
    assert (rest["store"], rest["results"], rest["job"]) == (str(store), str(folder / f"{stem}.results.jsonl"), first["job"])


def test_a_store_under_another_path_keeps_to_it(folder: Path) -> None:
    run("job.yaml", "--store", "elsewhere.db", "--limit", "2", cwd=folder)
    rest = run("elsewhere.db", "--results", "here.jsonl", cwd=folder)
    assert rest["attempts"] == 5
    assert rest["results"] == str(folder / "here.jsonl")
    assert not (folder / "job.db").exists()


def test_simulating_a_real_store_leaves_it_alone(folder: Path) -> None:
    run("job.yaml", "--limit", "2", cwd=folder)
    simulated = run("job.db", "--simulate", cwd=folder)
    assert (simulated["store"], simulated["attempts"]) == (str(folder / "job.sim.db"), 5)


def test_a_store_that_is_none(folder: Path) -> None:
    (folder / "none.db").write_bytes(b"SQLite format 3\0" + b"x" * 4096)
    said = run("none.db", cwd=folder, code=5)["said"]
    assert "none.db" in said
    assert "Traceback" not in said
