"""Virtual time for the engine: see `world`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from world import World


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., World]:
    """Makes the test's world in its own folder."""
    return partial(World, tmp_path)
