"""What a night depends on, looked at before it begins, without a call: this machine, the disk, the job's input, its prices and its store. (`reach` asks the servers.)

The trap: a check that says "fail" where a run would work is worse than none. So only what stops a run is a failure, and what may cost time or money is a warning.
"""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from batchllm import tokens
from batchllm.core.errors import SpecError, StoreError
from batchllm.cost.listing import Listed, find
from batchllm.cost.updates import current
from batchllm.engine.access import Access, reachable
from batchllm.engine.deps import RunOptions
from batchllm.engine.facts import check_money, documented_output, price_finder
from batchllm.engine.source import Source
from batchllm.spec import JobSpec, ModelSpec
from batchllm.spec.dotenv import NAME as DOTENV
from batchllm.store.health import health
from batchllm.tokens import vocabulary

Level = Literal["ok", "warn", "fail"]
_LITTLE_BYTES = 2**30
_TOO_LITTLE_BYTES = 100 * 2**20
_OLDEST_SQLITE = (3, 37, 0)
_ENCODINGS = ("o200k_base", "cl100k_base")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    level: Level
    about: str
    words: str
    mend: str | None = None
    """What to do about it."""


def ok(about: str, words: str) -> Check:
    """All is well there."""
    return Check(level="ok", about=about, words=words)


def warn(about: str, words: str, mend: str | None = None) -> Check:
    """It may cost time or money."""
    return Check(level="warn", about=about, words=words, mend=mend)


def fail(about: str, words: str, mend: str | None = None) -> Check:
    """It would stop a run."""
    return Check(level="fail", about=about, words=words, mend=mend)


def machine(folder: Path) -> Iterator[Check]:
    """This computer and this installation; `folder`: where the store will be."""
    yield ok("python", f"{platform.python_version()}, {sys.platform}")
    version = sqlite3_version()
    if tuple(map(int, version.split("."))) < _OLDEST_SQLITE:
        yield fail("sqlite", f"{version} is too old", "install a Python that comes with SQLite 3.37 or newer")
    else:
        yield ok("sqlite", version)
    yield from _disk(folder)
    missing = [name for name in _ENCODINGS if vocabulary.load(name) is None]
    if missing:
        yield warn(
            "vocabulary", f"{', '.join(missing)} not here: tokens of OpenAI's models are estimated, and bounded by bytes", "batchllm tokens fetch"
        )
    else:
        yield ok("vocabulary", f"{', '.join(_ENCODINGS)} in {vocabulary.own_cache()}")
    yield ok("prices", current().version)


def sqlite3_version() -> str:
    """Of the library that Python uses."""
    return sqlite3.sqlite_version


def _disk(folder: Path) -> Iterator[Check]:
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        yield fail("disk", f"{folder}: {error.strerror or error}")
        return
    words = f"{_size(free)} free at {folder}"
    if not os.access(there, os.W_OK):
        yield fail("disk", f"{there} can't be written to", "choose another place for the store: --store PATH")
    elif free < _TOO_LITTLE_BYTES:
        yield fail("disk", words, "a run stops when its store can't grow: free some space, or choose another place with --store")
    elif free < _LITTLE_BYTES:
        yield warn("disk", words, "a store takes about 2 KB a row: `keep_bodies: none` makes it smaller")
    else:
        yield ok("disk", words)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def dotenv(folder: Path, added: list[str]) -> Iterator[Check]:
    """The `.env` beside the job; `added`: the names that come from it."""
    path = folder / DOTENV
    if not path.is_file():
        return
    names = ", ".join(added) if added else "nothing new"
    if path.stat().st_mode & 0o077:
        yield warn(DOTENV, f"gives {names}; other users of this machine can read it", f"chmod 600 {path}")
    else:
        yield ok(DOTENV, f"gives {names}")


def job(spec: JobSpec, environ: Mapping[str, str]) -> Iterator[Check]:
    """The job itself: input, prices, bounds, store. Nothing is sent."""
    try:
        source = Source(spec, RunOptions(), environ)
        source.check()
        names = ", ".join(source.names[:3])
        yield ok("input", names + (f" and {len(source.names) - 3} more" if len(source.names) > 3 else ""))
    except SpecError as error:
        yield from (fail("input", str(spec.placed(problem))) for problem in error.problems)
    now = datetime.now(UTC)
    for name in reachable(spec):
        yield from _money(spec, name, now, environ)
    yield from _store(spec, environ)


def _money(spec: JobSpec, name: str, now: datetime, environ: Mapping[str, str]) -> Iterator[Check]:
    model = spec.models[name]
    about = f"model {name}"
    try:
        base = model.api_base(environ)
    except SpecError:
        return  # told with its key
    prices = price_finder(model, base)(model.model, now.timestamp(), None)
    try:
        check_money(spec, {name: Access(base_url=base, key=None, headers={})}, now.timestamp())
    except SpecError as error:
        yield from (fail(about, problem.message) for problem in error.problems)
        return
    if prices is None:
        yield warn(about, f"the price of {model.model!r} is not known: its cost will not be", "give the model a `price`")
    else:
        base_rates = prices.tiers[0]
        words = (
            f"{model.provider} {model.model}: ${base_rates.input / 1e6:g} in, ${base_rates.output / 1e6:g} out per million tokens ({prices.version})"
        )
        yield ok(about, words)
    if (
        tokens.output_cap({**spec.request, **model.request, **model.body}) is None
        and documented_output(model, base) is None
        and spec.endpoint != "embeddings"
    ):
        yield warn(about, "no cap on the length of its answers is known", "request: {max_tokens: 1000}")
    yield from _last_day(about, model, now)


def _last_day(about: str, model: ModelSpec, now: datetime) -> Iterator[Check]:
    account = {"gemini": "google"}.get(model.provider, model.provider)
    if account not in ("openai", "anthropic", "google"):
        return
    listed: Listed | None = next(iter(find(model.model, provider=account, utc=now.timestamp())), None)
    day = listed.last_day if listed is not None else None
    if day is None:
        return
    days = (day - now.date()).days
    if days < 0:
        yield warn(about, f"{model.model} was to be shut down on {day}", "take its successor")
    elif days < 60:
        yield warn(about, f"{model.model} will be shut down on {day}, in {days} days")


def _store(spec: JobSpec, environ: Mapping[str, str]) -> Iterator[Check]:
    try:
        path = spec.store_path(environ)
    except SpecError as error:
        yield from (fail("store", problem.message) for problem in error.problems)
        return
    if not path.exists():
        yield ok("store", f"{path}: not there yet, the first run makes it")
        return
    try:
        found = health(path)
    except StoreError as error:
        yield fail("store", str(error))
        return
    if found.damage:
        yield fail("store", f"{path}: damaged: {found.damage[0]}", "copy it aside, then `sqlite3 STORE .recover` into a new file")
    elif found.job != spec.name:
        yield fail("store", f"{path}: belongs to the job {found.job!r}, not to {spec.name!r}", "give one of them another `name` or `store`")
    elif found.locked_by is not None:
        yield ok("store", f"{path}: a run is working in it (process {found.locked_by or 'unknown'})")
    else:
        words = f"{path}: {_size(found.size_bytes)}, schema {found.version}" + ("" if found.checked else "; too large to look through")
        older = f"; the next run migrates it to {found.newest}" if found.version < found.newest else ", sound" if found.checked else ""
        yield ok("store", words + older)
