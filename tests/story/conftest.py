"""Fixtures of the story tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from story_world import SimulatorProcess, World, simulator


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An empty folder; processes started for it end with the test."""
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """One quick simulator for all tests of a file; look at what came in since, not at its totals."""
    world = World(tmp_path_factory.mktemp("provider"))
    yield simulator(world, latency_ms=10)
    world.close()
