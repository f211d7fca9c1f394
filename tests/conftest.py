"""What all tests share: a closed network, the same examples on every run, and the folder of real prompts."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

DATA = Path(os.environ.get("BATCHLLM_REAL_DATA") or Path(__file__).parents[2] / "shared" / "data")
_NEAR = ("127.", "::1", "localhost", "0.0.0.0")

# The same examples every time, and no limit of milliseconds that a busy machine would break.
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")


def _close_network(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if isinstance(host, str) and not host.startswith(_NEAR):
        raise RuntimeError(f"the network is closed in tests: {host}")


def pytest_configure() -> None:
    """Closes the network but for loopback. (What uvloop does in C is not seen; its connections go where the tests say.)"""
    sys.addaudithook(_close_network)


@pytest.fixture(scope="session", autouse=True)
def _own_state() -> Iterator[None]:
    """Runs in this process meet each other in a folder of the tests' own, not in the user's."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BATCHLLM_STATE", folder)
        yield


@pytest.fixture
def real_data() -> Path:
    """The folder of real prompts beside the checkout; tests that need it skip without it."""
    if not (DATA / "gsm8k_test.jsonl").exists():
        pytest.skip("the folder with real prompts (../shared/data) is not beside this checkout")
    return DATA
