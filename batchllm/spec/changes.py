"""`--set a.b=c`: one dotted key and its value, laid over the spec's data before anything is checked.

A step may be the index of a list (`routes.0.use`). Keys that are not there yet are made; whether they exist in a spec is validation's business.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from batchllm.core.errors import Problem, SpecError
from batchllm.spec.findings import Path, Written, shown
from batchllm.spec.reading import plain_data, read_value


class _Unreachable(Exception):  # noqa: N818 - never leaves this module
    """A dotted key that leads nowhere."""


def parse_set(text: str) -> tuple[str, Any]:
    """`budget.usd=5` -> `("budget.usd", 5)`; the value is read as YAML (`null`, `[a, b]`, `{rpm: 5}`), and `prompt.user=@v2.md` takes a text from a file.

    SpecError for anything else.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise SpecError(Problem(file="--set", message=f"expected KEY=VALUE, such as budget.usd=5, got {shown(text)}"))
    if value.strip().startswith("@") and key.split(".")[0] == "prompt":
        # As curl's: the text is in that file, relative to the spec.
        return key, {"file": value.strip()[1:]}
    return key, read_value(value.strip(), label="--set", path=key)


def apply(written: Written, changes: Mapping[str, Any], *, label: str | None) -> tuple[Written, list[Problem]]:
    """The written data with the changes in it, and the changes that can't be made: keys that lead through a value without keys."""
    values = plain_data(changes)
    problems = [Problem(file=label, path=problem.path, message=problem.message) for problem in values.problems]
    data = copy.deepcopy(dict(written.data))
    paths: list[Path] = []
    for key, value in values.data.items():
        try:
            path = _put(data, key, value)
        except _Unreachable as error:
            problems.append(Problem(file=label, path=key, message=str(error)))
        else:
            paths.append(path)
    changed = Written(data=data, places=written.places, file=written.file, set_paths=(*written.set_paths, *paths), set_label=label)
    return changed, problems


def _put(data: dict[str, Any], key: str, value: Any) -> Path:
    """Sets the value; returns the shortest path that exists by this change only."""
    steps = key.split(".")
    if not all(steps):
        raise _Unreachable("expected names separated by single dots")
    here: Any = data
    path: Path = ()
    made: Path | None = None
    for step, last in zip(steps, [False] * (len(steps) - 1) + [True], strict=True):
        place: Any = _index(here, step) if isinstance(here, list) else step
        path = (*path, place)
        if last:
            here[place] = value
            break
        inner = here[place] if isinstance(here, list) else here.get(place)
        if path == ("prompt",) and isinstance(inner, str):
            # A text is short for its user message.
            inner = here[place] = {"user": inner}
        if inner is None:
            inner = here[place] = {}
            made = made or path
        if not isinstance(inner, dict | list):
            raise _Unreachable(f"`{'.'.join(map(str, path))}` is {shown(inner)} and has no keys; set it as a whole")
        here = inner
    return made or path


def _index(items: list[Any], step: str) -> int:
    if not step.isdecimal() or int(step) >= len(items):
        raise _Unreachable(f"`{step}`: the list has {len(items)} items, counted from 0")
    return int(step)
