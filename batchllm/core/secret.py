"""Secrets: a string that never shows itself, and a scrubber for texts that other people wrote.

A provider may echo a key in an error body; whatever goes to the store, a log, a result or a screen passes `Scrubber` first.
"""

from __future__ import annotations

from collections.abc import Iterable

from batchllm.core.json import dumps

MASK = "[secret]"


class Secret:
    """A key or header value. `reveal()` is the only way to its text; repr, str and format show a mask."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the wire only."""
        return self._text

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        raise TypeError("a Secret is not pickled")


class Scrubber:
    """Replaces every known secret in a text by a mask.

    Secrets shorter than 6 characters are not looked for in texts: they would mask ordinary words, and no provider's key is that short. In answers, where a
    masked word is a wrong result, only those of 12 and more are: placeholders such as `ollama` or `not-needed` are no secrets. For the same reason
    `mentions` (host names that a variable filled in) are masked in messages only, never in answers.
    """

    def __init__(self, secrets: Iterable[Secret | str] = (), *, mentions: Iterable[str] = ()) -> None:
        known = {secret.reveal() if isinstance(secret, Secret) else secret for secret in secrets}
        # Longest first, so that a secret that contains another one goes whole.
        texts = sorted((text for text in known if len(text) >= 6), key=len, reverse=True)
        self._texts = sorted((text for text in {*known, *mentions} if len(text) >= 6), key=len, reverse=True)
        # As they are, and as JSON writers write them: escaped, some of them slashes too.
        forms = [
            (len(text), form.encode())
            for text in texts
            for quoted in dict.fromkeys((text, dumps(text).decode()[1:-1]))
            for form in dict.fromkeys((quoted, quoted.replace("/", "\\/")))
        ]
        self._bytes = [form for _, form in forms]
        self._long_bytes = [form for length, form in forms if length >= 12]

    def text(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._texts:
            if secret in text:
                text = text.replace(secret, MASK)
        return text

    def reply(self, data: bytes) -> bytes:
        """A provider's reply without secrets, the same object when there was none."""
        return _masked(data, self._long_bytes)

    def bytes(self, data: bytes) -> bytes:
        """The bytes without secrets."""
        return _masked(data, self._bytes)


def _masked(data: bytes, secrets: Iterable[bytes]) -> bytes:
    for secret in secrets:
        if secret in data:
            data = data.replace(secret, MASK.encode())
    return data
