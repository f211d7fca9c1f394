"""The pages in docs/ can't go stale: generated parts are as the program would write them, commands parse, marked blocks run, links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from blocks import Block, blocks_of, tour
from commands import commands_in, parse
from ruamel.yaml import YAML

FOLDER = Path(__file__).parents[2] / "docs"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
BLOCKS = [(page, block) for page, text in PAGES.items() for block in blocks_of(text)]
TOURS = sorted({page for page, block in BLOCKS if block.marker == "tour"})
UNRUN = [block.text for _, block in BLOCKS if block.marker is None] + [
    text for page in PAGES.values() for text in re.findall(r"`(batchllm [^`]*)`", page)
]
COMMANDS = [words for text in UNRUN for words in commands_in(text)]
"""Commands that no tour runs."""
SAID = {
    "spec": ["2 changed", "4 requests"],
    "providers": ["OPENAI_API_KEY", "Translate to French: hello"],
    "limits-and-money": ["exit code 3", '"state":"finished"', "1 seed"],
    "store": ["good night", "first|ok|yes"],
    "recipes": [
        "exit code 1",
        "2 labels.jsonl",
        "wrote replies.csv",
        "two examples: OpenAI wants ten",
        "2 rows are labelled",
        "mail -s reviews: rows failed root",
        "content filter",
    ],
    "frames": ["3 pandas rows", "2 polars rows", "2 joined rows"],
    "faq": ["exit code 1", "refused"],
}
"""What a reader sees, besides that nothing fails."""


def generator() -> ModuleType:
    """docs/generate.py as a module."""
    found = importlib.util.spec_from_file_location("generate", FOLDER / "generate.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_pages_are_found() -> None:
    assert set(PAGES) >= {"index", "spec", "providers", "limits-and-money", "store", "recipes", "frames", "faq"}
    assert set(TOURS) == set(PAGES) - {"index"}
    assert all(text.count("```") == 2 * len(blocks_of(text)) for text in PAGES.values())


@pytest.mark.parametrize("page", PAGES)
def test_generated_parts_are_current(page: str) -> None:
    assert generator().filled(PAGES[page]) == PAGES[page], "run `python docs/generate.py`"


def test_every_view_column_and_table_of_the_store_is_explained() -> None:
    assert [line for line in PAGES["store"].splitlines() if line.startswith("| `") and "|  |" in line] == []


def test_every_generated_part_is_on_a_page() -> None:
    assert set(re.findall(r"<!-- generated: (\w+) -->", "".join(PAGES.values()))) == set(generator().PARTS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_parse(words: list[str]) -> None:
    parse(words)


@pytest.mark.parametrize("block", [block for _, block in BLOCKS if block.language in {"bash", "python"}], ids=lambda block: block.text[:30])
def test_shell_and_python_run_in_a_tour(block: Block) -> None:
    assert block.marker == "tour", "no test runs this block"


@pytest.mark.parametrize("block", [block for _, block in BLOCKS if block.language == "yaml"], ids=lambda block: block.text[:30])
def test_yaml_can_be_read(block: Block) -> None:
    assert isinstance(YAML(typ="safe").load(block.text), dict)


@pytest.mark.parametrize("page", TOURS)
def test_the_page_runs_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    for library in ("pandas", "polars"):
        if f"import {library}" in PAGES[page]:
            pytest.importorskip(library)
    if "sqlite3 " in PAGES[page] and shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed")
    done = tour(blocks_of(PAGES[page]), tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Traceback" not in said
    mailbox = tmp_path / "reader" / "mailbox"
    said += mailbox.read_text(encoding="utf-8") if mailbox.exists() else ""
    assert [words for words in SAID[page] if words not in said] == [], said


def test_the_notebook_runs_and_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    cells = [
        "".join(cell["source"])
        for cell in json.loads((FOLDER / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]

    async def kernel() -> None:
        names: dict[str, object] = {}
        for cell in cells:
            waits = eval(compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)  # as a notebook does it
            if waits is not None:
                await waits

    for _ in range(2):
        asyncio.run(kernel())
    said = capsys.readouterr().out
    assert said.count("r2 ") == 2
    assert said.count("3 answers,") == 2


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", PAGES[page], re.MULTILINE)}
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if link.startswith("#"):
            assert link[1:] in anchors, link
        else:
            assert (FOLDER / link).exists(), link
