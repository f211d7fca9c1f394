"""Which way of counting a model gets, and the promise that all of them give: an estimate to pace by and a bound to reserve money by.

The trap: a tokenizer that is close to the model's own is good enough to pace by and worthless as a bound. Only the tokenizer that is documented for
exactly this model, at its own provider, bounds by tokens; for every other model a token is at least one UTF-8 byte long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from batchllm.core import words
from batchllm.tokens import vocabulary
from batchllm.tokens.classes import estimate_text
from batchllm.tokens.walk import FOREIGN, OPENAI, Walker


class Counter(Protocol):
    """Counts the input tokens of requests to one model. Synchronous: some microseconds a short prompt, 5 ms for 100 KB (a text of over 200 KB is
    better counted in a thread).

    `params` are all parameters of the wire body; raw parts of the body that reach the model belong into them too.
    """

    @property
    def name(self) -> str:
        """`o200k_base`, `cl100k_base`, `simulator` or `estimate`."""

    @property
    def exact(self) -> bool:
        """Whether this is the model's own tokenizer."""

    def text(self, text: str) -> int:
        """Tokens of a text alone, without any frame around it."""

    def estimate(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> int:
        """Best guess of the input tokens, frame, tools and schema included."""

    def bound(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> int | None:
        """The most input tokens that can be billed; None when no such number is known (audio, files, searches, images of an unknown family)."""

    def both(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> tuple[int, int | None]:
        """(estimate, bound) at the price of one."""


class _Simulator:
    """The simulated provider's own count; it bills the messages and nothing else."""

    name = "simulator"
    exact = True

    def text(self, text: str) -> int:
        return words.count_text(text)

    def estimate(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> int:
        del params
        return words.count_messages(messages)

    def bound(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> int | None:
        return self.estimate(messages, params)

    def both(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> tuple[int, int | None]:
        tokens = self.estimate(messages, params)
        return tokens, tokens


def counter(provider: str, model_id: str, *, base_url: str | None = None, search: Sequence[Path] | None = None) -> Counter:
    """The counter of a model; made once per model, since a vocabulary takes up to 0.3 s and 70 MiB the first time.

    `base_url`: another host than OpenAI's own may serve anything under a model's name, so it is bounded by bytes. `search`: folders to look for
    vocabulary files in, instead of the usual ones (`vocabulary.load`). Without a file, texts are estimated; nothing is ever downloaded.
    """
    if provider == "simulated":
        return _Simulator()
    own = provider == "openai" and (base_url is None or _host(base_url) == "api.openai.com")
    encoding_name, documented = _encoding_name(model_id) if provider in ("openai", "openai-compatible") else (None, False)
    encoding = vocabulary.load(encoding_name, search=search) if encoding_name else None
    frame = OPENAI if own else FOREIGN
    if encoding is None:
        return Walker(name="estimate", exact=False, text_tokens=estimate_text, frame=frame, model_id=model_id, own_host=own)
    encode = encoding.encode_ordinary
    # encode() would raise on `<|endoftext|>` in a prompt; to the provider it is text as any other.
    return Walker(
        name=encoding.name, exact=own and documented, text_tokens=lambda text: len(encode(text)), frame=frame, model_id=model_id, own_host=own
    )


def _encoding_name(model_id: str) -> tuple[str | None, bool]:
    """The encoding of a model id, and whether it is documented to be its own; None for no idea."""
    from tiktoken.model import encoding_name_for_model

    try:
        return encoding_name_for_model(model_id), True
    except KeyError:
        # Newer than the tokenizers that are published: the latest one is the best guess, and only that.
        return ("o200k_base", False) if model_id.startswith("gpt-") else (None, False)


def _host(base_url: str) -> str:
    try:
        return (urlsplit(base_url).hostname or "").lower()
    except ValueError:
        return ""
