"""The names that `import batchllm` offers: contract 4, held here so that none goes or comes by accident; and the import stays light."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import batchllm

NAMES = [
    "BatchLLMError", "Job", "JobSpec", "Result", "Results", "Session", "SpecError", "Stopped", "StoreError", "Summary", "Tools", "__version__",
    "load", "map", "map_frame", "open", "results", "run", "run_async", "stream",
]  # fmt: skip


def test_the_list():
    assert batchllm.__all__ == NAMES
    assert set(NAMES) <= set(dir(batchllm))
    with pytest.raises(AttributeError, match="nothing"):
        batchllm.nothing  # noqa: B018 - looking it up is the test


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_each_name_is_there_and_documented(name):
    thing = getattr(batchllm, name)
    assert inspect.getdoc(thing)
    if not inspect.isclass(thing):
        assert f"batchllm.{name}(" in inspect.getdoc(thing), "its docstring shows an example"


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("load", ["path", "set"]),
        ("run", ["job", "rows", "flags"]),
        ("run_async", ["job", "rows", "flags"]),
        ("open", ["job", "rows", "flags"]),
        ("stream", ["rows", "job", "new_only", "flags"]),
        ("map", ["items", "model", "prompt", "schema", "budget_usd", "store", "request", "limits", "concurrency", "tools"]),
        ("results", ["job"]),
    ],
)
def test_signatures(name, start):
    assert list(inspect.signature(getattr(batchllm, name)).parameters) == start


def test_the_import_is_light_and_reads_nothing():
    code = (
        "import sys, os; before = set(sys.modules); import batchllm; batchllm.__version__; dir(batchllm); new = set(sys.modules) - before;"
        "print(sorted(name for name in new if not name.startswith(('batchllm', '__future__'))), sorted(name for name in new if name.startswith('batchllm.')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.split("] [")[1].strip() == "]", out
    assert not {"pydantic", "aiohttp", "rich", "sqlite3", "anyio", "asyncio", "ruamel", "minijinja"} & set(out.replace("'", " ").split()), out
