"""What a model can take and give at most: dated data, for the bound of the output and for too long prompts.

The trap: an output bound that is too low breaks the hard cap. So only documented maxima are listed, a model is matched by its exact id or that
id with a date, never by family, and only at the provider that the figures are from; everything else is unknown and needs an output cap in the request.
"""

from __future__ import annotations

from dataclasses import dataclass

from batchllm.cost import accounts
from batchllm.cost.pricebook import context_window
from batchllm.cost.snapshot import same_or_snapshot

AS_OF = "2026-11"
"""When the figures were collected, from the providers' published pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Documented maxima in tokens; None is unknown, 0 is none (embeddings give no output)."""

    context_window: int | None = None
    """Input and output together, or input alone where the provider counts so."""
    max_output_tokens: int | None = None
    """The most that one answer is billed for, reasoning included."""


_KNOWN: dict[str, dict[str, tuple[int | None, int | None]]] = {
    "openai": {
        "gpt-6-astra": (1_050_000, 128_000),
        "gpt-6.1-sol": (1_050_000, 128_000),
        "gpt-6.1-terra": (1_050_000, 128_000),
        "gpt-6-luna": (1_050_000, 128_000),
        "gpt-5.6-luna": (1_050_000, 128_000),
        "gpt-5.5": (1_000_000, 128_000),
        "gpt-5.4-mini": (400_000, 128_000),
        "gpt-5-mini": (400_000, 128_000),
        "gpt-4.1": (1_047_576, 32_768),
        "gpt-4.1-mini": (1_047_576, 32_768),
        "gpt-4o": (128_000, 16_384),
        "gpt-4o-mini": (128_000, 16_384),
        "text-embedding-3-small": (8_191, 0),
        "text-embedding-3-large": (8_191, 0),
    },
    "anthropic": {
        "claude-fable-5-2": (1_000_000, 128_000),
        "claude-opus-5-5": (1_000_000, 128_000),
        "claude-sonnet-5-5": (1_000_000, 128_000),
        "claude-haiku-5-5": (1_000_000, 128_000),
        "claude-opus-4-8": (1_000_000, 128_000),
        "claude-sonnet-4-6": (1_000_000, 128_000),
        "claude-haiku-4-5": (200_000, 64_000),
    },
    "google": {
        "gemini-4-argon": (1_048_576, None),
        "gemini-3.8-flash": (1_048_576, 65_536),
        "gemini-3.1-pro-preview": (1_048_576, 65_536),
        "gemini-2.5-pro": (1_048_576, 65_535),
        "gemini-2.5-flash": (1_048_576, 65_535),
        "gemini-2.5-flash-lite": (1_048_576, 65_535),
    },
    "deepseek": {"deepseek-flash": (1_000_000, 393_216), "deepseek-v4-pro": (1_000_000, 393_216)},
    "mistral": {"mistral-large-2512": (262_144, 262_144), "mistral-small-2603": (262_144, 262_144)},
    "groq": {"openai/gpt-oss-120b": (131_072, 65_536)},
}
_BY_HOST = {"api.deepseek.com": "deepseek", "api.mistral.ai": "mistral", "api.groq.com": "groq"}

SIMULATED = ModelFacts(context_window=128_000, max_output_tokens=4_096)
"""A simulated model that no provider has."""


def limits(provider: str, model_id: str, *, base_url: str | None = None) -> ModelFacts:
    """The documented maxima of a model at its own provider (or host, by `base_url`); unknown ones are None.

    `simulated` takes a known id's figures and `SIMULATED` for what is not known. Called once per model, not per row: it may open the price book.
    """
    if provider == "simulated":
        return _simulated(model_id)
    account = accounts.of(provider, base_url)
    if account is None and base_url is not None:
        account = _BY_HOST.get(accounts.host_of(base_url))
    window, output = _known(account, model_id)
    if window is None:
        window = context_window(provider, model_id, base_url=base_url)
    return ModelFacts(context_window=window, max_output_tokens=output)


def documented(account: str, model_id: str) -> ModelFacts:
    """What is listed here of a model at the book's provider."""
    window, output = _known(account, model_id)
    return ModelFacts(context_window=window, max_output_tokens=output)


def known_models() -> list[tuple[str, str]]:
    """(provider in the book, model id) of every model that is listed here."""
    return [(account, model_id) for account, models in _KNOWN.items() for model_id in models]


def _simulated(model_id: str) -> ModelFacts:
    for account in ("openai", "anthropic", "google"):
        window, output = _known(account, model_id)
        if window is not None:
            return ModelFacts(context_window=window, max_output_tokens=SIMULATED.max_output_tokens if output is None else output)
    return SIMULATED


def _known(account: str | None, model_id: str) -> tuple[int | None, int | None]:
    models = _KNOWN.get(account or "", {})
    return next((figures for name, figures in models.items() if same_or_snapshot(name, model_id)), (None, None))
