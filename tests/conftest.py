"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def real_data() -> Path:
    """The folder of real prompts beside the checkout; tests that need it skip without it."""
    if not (DATA / "gsm8k_test.jsonl").exists():
        pytest.skip("the folder with real prompts (../shared/data) is not beside this checkout")
    return DATA
