"""Code blocks of Markdown pages, and a shell in which those that are marked run from top to bottom, as a reader would type them.

A block is marked by the line above it, `<!-- tour -->`. The trap is the reader's machine: no key of it may be seen, and programs that a page calls but a test
must not (`mail`, workflow servers) are stood in for by ones that only keep the call's form.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

_BLOCK = re.compile(r"^(?:<!-- (\w+) -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MAIL = '#!/bin/sh\n{ echo "mail $*"; cat; } >> "$MAILBOX"\n'
# `@task`, `@task(retries=3)`, `@flow`, `@dag(schedule=...)`: the function itself.
_DECORATORS = """
def task(function=None, **options):
    return function if function is not None else task
flow = dag = task
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One code block."""

    marker: str | None
    language: str
    text: str

    @property
    def script(self) -> str:
        """What a shell runs."""
        return self.text if self.language == "bash" else f"python - <<'PYTHON'\n{self.text}PYTHON\n"


def blocks_of(page: str) -> list[Block]:
    """All code blocks of a page, in order."""
    return [Block(marker=match[1], language=match[2], text=match[3]) for match in _BLOCK.finditer(page)]


def tour(blocks: list[Block], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a page's marked blocks in one shell, in an empty folder; the first command that fails ends it."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    programs, modules, place = folder / ".bin", folder / ".modules", folder / "reader"
    for path in (programs, modules / "prefect", modules / "airflow" / "sdk", place):
        path.mkdir(parents=True)
    (programs / "batchllm").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchllm "$@"\n')
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "mail").write_text(_MAIL)
    for program in programs.iterdir():
        program.chmod(0o755)
    for module in ("prefect", "airflow/sdk"):
        (modules / module / "__init__.py").write_text(_DECORATORS)
    script = "\n".join(block.script for block in blocks if block.marker == "tour")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment |= {"PATH": f"{programs}{os.pathsep}{environment['PATH']}", "PYTHONPATH": str(modules), "MAILBOX": str(place / "mailbox")}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
