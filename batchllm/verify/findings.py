"""What was found broken: the first few findings of a seed, each a sentence that names what, where and when."""

from __future__ import annotations

_ENOUGH = 8


class Findings:
    """Collects sentences. One broken promise breaks others, so only the first few are kept."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        """Notes a broken promise."""
        if len(self.texts) < _ENOUGH:
            self.texts.append(text)

    def check(self, holds: bool, text: str) -> None:
        """Notes it unless it holds. For texts that cost something to make, ask first."""
        if not holds:
            self.add(text)

    def __bool__(self) -> bool:
        return bool(self.texts)
