"""The example jobs run without a key and without a network, as they are written down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from batchllm.spec import load

JOBS = Path(__file__).parents[2] / "jobs"
EXAMPLES = sorted(JOBS.glob("*.yaml"))
# Found on PYTHONPATH, this closes the network when Python starts; and asyncio is taken, because what uvloop does in C is not seen.
CLOSED = """
import sys
def close(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo"}:
        raise RuntimeError("the network is closed: " + repr(arguments[1:]))
sys.addaudithook(close)
"""


def run(job: Path, *flags: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`batchllm run` in a process of its own, in a copy of jobs/, without keys and network."""
    copy = folder / "jobs"
    if not copy.exists():
        (folder / "guard").mkdir()
        (folder / "guard" / "sitecustomize.py").write_text(CLOSED)
        (folder / "guard" / "uvloop.py").write_text("raise ImportError")
        shutil.copytree(JOBS, copy, ignore=shutil.ignore_patterns("*.db*", "*.results.*"))
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment["PYTHONPATH"] = str(folder / "guard")
    command = [sys.executable, "-m", "batchllm", "run", str(copy / job.name), "--json", *flags]
    if job.suffix == ".py":
        command = [sys.executable, str(copy / job.name), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, stdin=subprocess.DEVNULL, check=False)


KEYED = [path for path in EXAMPLES if any(model.provider != "simulated" for model in load(path).models.values())]


def test_they_are_found() -> None:
    assert {path.stem for path in EXAMPLES} >= {"answer-questions", "classify-ab", "extract-fields", "extract-schema", "label-reviews", "quickstart"}
    assert {path.stem for path in KEYED} >= {"answer-questions", "extract-fields", "label-reviews"}


@pytest.mark.parametrize("job", [path for path in EXAMPLES if path not in KEYED], ids=lambda path: path.stem)
def test_without_a_key_they_run_as_they_stand(job: Path, tmp_path: Path) -> None:
    done = run(job, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_functions_of_the_tool_example_are_called(tmp_path: Path) -> None:
    done = run(JOBS / "tool_loop.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 20
    assert "20 answers with 40 requests" in done.stderr
    assert "ValueError: there is no place for a cot in a single room" in done.stderr
    refused = run(JOBS / "tool_loop.py", "openai:gpt-6-luna", folder=tmp_path)
    assert refused.returncode == 1
    assert "OPENAI_API_KEY" in refused.stderr


def test_the_schema_example_repairs_and_escalates(tmp_path: Path) -> None:
    done = run(JOBS / "extract-schema.yaml", folder=tmp_path)
    summary = json.loads(done.stdout)
    results = [json.loads(line) for line in Path(summary["results"]).read_text(encoding="utf-8").splitlines()]
    assert {result["model"] for result in results} == {"cheap", "strong"}
    assert all((result["parsed"]["guests"] or 0) <= 3 for result in results)
    assert summary["attempts"] > len(results)


@pytest.mark.parametrize("job", EXAMPLES, ids=lambda path: path.stem)
def test_simulated(job: Path, tmp_path: Path) -> None:
    done = run(job, "--simulate", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    results = [json.loads(line) for line in Path(summary["results"]).read_text(encoding="utf-8").splitlines()]
    assert summary["rows"]["ok"] == len(results) >= (3 if job.stem == "describe-images" else 20)
    assert [result["row"] for result in results] == list(range(len(results)))
    assert all(result["cost_usd"] > 0 for result in results)
    assert summary["results"].endswith(f"{job.stem}.sim.results.jsonl")


def test_the_quickstart_as_it_stands_and_again(tmp_path: Path) -> None:
    first = run(JOBS / "quickstart.yaml", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    again = run(JOBS / "quickstart.yaml", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    one, two = json.loads(first.stdout), json.loads(again.stdout)
    assert one["attempts"] == two["attempts"] == one["rows"]["ok"] == 20


def test_routes_and_kept_columns_do_what_the_comments_say(tmp_path: Path) -> None:
    done = run(JOBS / "answer-questions.yaml", "--simulate", folder=tmp_path)
    results = [json.loads(line) for line in Path(json.loads(done.stdout)["results"]).read_text(encoding="utf-8").splitlines()]
    assert {(result["model"], result["input"].get("level")) for result in results} == {("large", "hard"), ("small", None)}


@pytest.mark.parametrize("job", KEYED, ids=lambda path: path.stem)
def test_for_real_they_ask_for_the_key_and_leave_nothing_behind(job: Path, tmp_path: Path) -> None:
    done = run(job, folder=tmp_path)
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "jobs").glob("*.db"))


@pytest.mark.parametrize("job", EXAMPLES, ids=lambda path: path.stem)
def test_they_load_and_say_how_to_run_them(job: Path) -> None:
    load(job)
    text = job.read_text(encoding="utf-8")
    assert f"batchllm run jobs/{job.name}" in text
