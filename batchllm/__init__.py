"""batchllm: ten thousand to ten million prompts overnight."""

from __future__ import annotations

__version__ = "0.1.0"
