"""A newer copy of the price book, fetched on request and kept in our cache; without one the installed package's own data counts.

The trap: a copy must not outlive its reason. It is used only with the version of the package that it was fetched for, so that an upgrade never goes back
to older prices, and a copy that can't be read is as good as none.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchllm.core import json

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot

_FEWEST_PROVIDERS = 10
"""A book with fewer is a fragment or something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """The price data in use."""

    snapshot: DataSnapshot
    version: str
    """Booked with every cost: `genai-prices 0.2.3`, or `genai-prices 0.2.3, fetched 2026-11-21`."""
    fetched: str | None
    """Day of the fetch; None: the package's own data."""


def cache_file() -> Path:
    """Where a fetched copy is kept: `BATCHLLM_CACHE`, else `~/.cache/batchllm`."""
    folder = os.environ.get("BATCHLLM_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "batchllm")  # noqa: PTH111, PTH118 - Path.expanduser raises without a home
    return Path(folder) / "prices.json"


def url() -> str:
    """Where the package publishes its data."""
    from genai_prices.update_prices import DEFAULT_UPDATE_URL

    return DEFAULT_UPDATE_URL


@lru_cache(maxsize=1)
def current() -> Book:
    """The book in use, read once a process."""
    from genai_prices import __version__
    from genai_prices.data_snapshot import DataSnapshot, get_snapshot

    package = f"genai-prices {__version__}"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(cache_file().read_bytes())
        if kept["version"] == __version__:
            fetched = datetime.fromisoformat(kept["fetched"]).date().isoformat()
            snapshot = DataSnapshot(_providers(kept["providers"]), from_auto_update=True)
            return Book(snapshot=snapshot, version=f"{package}, fetched {fetched}", fetched=fetched)
    return Book(snapshot=get_snapshot(), version=package, fetched=None)


def keep(data: bytes, *, now: datetime) -> int:
    """Checks and keeps a fetched copy; the number of its models. ValueError for what is no price book, OSError where it can't be written."""
    from genai_prices import __version__

    try:
        raw = json.loads(data)
        providers = _providers(raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"what came is no price book ({type(error).__name__})") from None
    if len(providers) < _FEWEST_PROVIDERS:
        raise ValueError(f"what came is no whole price book: {len(providers)} providers only")
    path = cache_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(json.dumps({"version": __version__, "fetched": now.isoformat(), "providers": raw}))
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    current.cache_clear()
    return sum(len(provider.models) for provider in providers)


def _providers(raw: Any) -> list[Any]:
    """The package's own reader of its published data (there is no public one for data that is already here)."""
    from genai_prices.types import _providers_from_raw

    if not isinstance(raw, list):
        raise TypeError("not a list of providers")
    return list(_providers_from_raw(raw))
