"""`import batchllm` and `batchllm --help` stay light: measured in a fresh interpreter, by what is loaded afterwards."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_LOADED = """
import json, sys
files = {name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
print(json.dumps(sorted({name.partition(".")[0] for name, file in files.items() if "site-packages" in file or name.partition(".")[0] in WATCHED})))
"""
_WATCHED = {"asyncio", "sqlite3", "ssl", "multiprocessing", "email"}
"""Of the standard library: what is slow to load, or a sign that something heavy was."""


def loaded_after(code: str) -> set[str]:
    """Packages (not of the standard library, but for a few) that are loaded when the code has run."""
    script = f"WATCHED = {_WATCHED!r}\n{code}\n{_LOADED}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    # An editable install may bring a finder of its own.
    return {name for name in json.loads(done.stdout.splitlines()[-1]) if not name.startswith(("_", "batchllm"))}


def test_the_package_alone_loads_nothing_else() -> None:
    assert loaded_after("import batchllm") == set()


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["-h"]])
def test_help_loads_click_and_nothing_heavy(args: list[str]) -> None:
    code = f"""
from batchllm.cli import main
try:
    main({args!r})
except SystemExit as end:
    assert not end.code, end.code
"""
    assert loaded_after(code) <= {"click", "colorama", "email"}  # email: --version asks importlib.metadata


def test_the_package_reads_no_environment_and_starts_nothing() -> None:
    code = """
import os, sys, threading
reads = []
class Spy(type(os.environ)):
    def __getitem__(self, key):
        frame = sys._getframe(1)
        while frame is not None:
            if "batchllm" in frame.f_globals.get("__name__", ""):
                reads.append(key)
            frame = frame.f_back
        return super().__getitem__(key)
spy = Spy.__new__(Spy)
spy.__dict__.update(os.environ.__dict__)
os.environ = spy
before = threading.active_count()
import batchllm
assert not reads, reads
assert threading.active_count() == before
"""
    loaded_after(code)
