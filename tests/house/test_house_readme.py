"""The README can't go stale: its commands parse, its tour runs from top to bottom, and its lists agree with the code."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from blocks import blocks_of, tour
from commands import commands_in, parse

from batchllm.cli import COMMANDS, NOT_YET
from batchllm.spec.unsupported import REFUSED, Refused

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks_of(README)
NAMED = [words for block in BLOCKS if block.language == "bash" for words in commands_in(block.text)]


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_blocks_are_found() -> None:
    assert README.count("```") == 2 * len(BLOCKS)
    assert len(NAMED) > 10
    assert {words[1] for words in NAMED} >= set(COMMANDS) - {"schema"}


@pytest.mark.parametrize("words", NAMED, ids=" ".join)
def test_commands_parse(words: list[str]) -> None:
    parse(words)


def test_prose_names_only_commands_that_exist() -> None:
    for words in commands_in("\n".join(re.findall(r"`(batchllm [^`]*)`", README))):
        parse(words)


def test_the_two_lines_are_one_command_each() -> None:
    marked = [(block.marker, block.text) for block in BLOCKS if block.marker in {"run", "test"}]
    assert [marker for marker, _ in marked] == ["run", "test"]
    for _, text in marked:
        assert text.count("\n") == 1
        assert text.startswith("python3 -m venv .venv && .venv/bin/pip install -q -e ")


def test_ci_takes_the_lines_from_here() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "for step in run test" in script
    # Not one of the commands is repeated there.
    assert not re.search(r"pip install|-m venv|pytest|ruff|mypy|lint-imports|batchllm run", script)


def test_the_tour_runs_from_top_to_bottom(tmp_path: Path) -> None:
    done = tour(BLOCKS, tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Traceback" not in said
    assert "exit code 1" in said
    assert "3 answers for" in said
    lines = (tmp_path / "reader" / "tour" / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in lines] == ["custom_id", "r1", "r2", "r3", "r4"]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.path)
def test_what_is_refused_is_listed_under_not_yet(refused: Refused) -> None:
    said = {word for code in re.findall(r"`([^`]+)`", section("Not yet")) for word in re.findall(r"\w+", code)}
    parts = refused.path.replace("*.", "").removesuffix(".*").split(".")
    assert said & {str(refused.name), *refused.values, *parts}, f"not in the README: {refused.path}"


def test_commands_are_shown_and_missing_ones_are_listed() -> None:
    for name in COMMANDS:
        assert re.search(rf"`{name}`|batchllm {name}\b", README), name
    for name in NOT_YET:
        assert f"`{name}`" in section("Not yet")


def test_links_lead_somewhere() -> None:
    headings = {"#" + heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert link in headings if link.startswith("#") else (ROOT / link).exists(), link
