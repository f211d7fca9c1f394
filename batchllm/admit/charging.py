"""What a request is charged against each limit: as the provider does it at its own door, and what it is settled to when the usage is known (protocols G).

The trap is the output. OpenAI and Azure charge the whole output cap at admission; Anthropic counts what is really produced, so reserving `max_tokens` there
leaves most of a quota unused; Gemini counts no output at all. Where the provider charges no cap, a high quantile of this job's own answers is reserved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from batchllm.core.nouns import Usage

MINUTE = ("rpm", "tpm", "itpm", "otpm")
DAY = ("rpd", "tpd")
DIMENSIONS = (*MINUTE, *DAY)
"""All rate limits; a request is charged in those that are there."""
NOTHING = dict.fromkeys(DIMENSIONS, 0.0)
"""What a request is charged that never left, or that the provider doesn't count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charging:
    """One provider's accounting."""

    output: Literal["cap", "expected", "none"] = "cap"
    """What counts as output against `tpm` and `tpd` at admission: the request's cap (where it has none, what is expected), what is expected, or nothing."""
    settled: bool = True
    """Whether `tpm` is settled to the real usage."""
    cached_free: bool = False
    """Whether input that is read from the provider's cache doesn't count."""
    day: Literal["rolling", "california"] = "rolling"
    """How limits per day come back: all day long, or at midnight in California."""

    def amounts(self, input_tokens: float, *, cap: int | None, expected: float, cached_share: float) -> dict[str, float]:
        """What a request is charged when it is let through. `expected`: output tokens that answers stay within, by experience."""
        likely = expected if cap is None or expected < cap else float(cap)
        counted = input_tokens * (1.0 - cached_share) if self.cached_free else input_tokens
        if self.output == "none":
            total = counted
        elif self.output == "cap" and cap is not None:
            total = counted + cap
        else:
            total = counted + likely
        return {"rpm": 1.0, "tpm": total, "itpm": counted, "otpm": likely, "rpd": 1.0, "tpd": total}

    def used(self, usage: Usage) -> dict[str, float]:
        """What it was really charged, by its usage; a limit that isn't named stays charged as reserved."""
        counted = float(max(0, usage.input_tokens - usage.cached_input_tokens) if self.cached_free else usage.input_tokens)
        total = counted if self.output == "none" else counted + usage.output_tokens
        used = {"itpm": counted, "otpm": float(usage.output_tokens), "tpd": total}
        if self.settled:
            used["tpm"] = total
        return used

    @staticmethod
    def refused() -> dict[str, float]:
        """What a refused request was charged: it counts as a request, but no tokens were worked on."""
        return {"tpm": 0.0, "itpm": 0.0, "otpm": 0.0, "tpd": 0.0}


_OPENAI = Charging()
_ANTHROPIC = Charging(output="expected", cached_free=True)
_GEMINI = Charging(output="none", day="california")
_GROQ = Charging(cached_free=True)
_AZURE = Charging(settled=False)
_BY_HOST = {"api.groq.com": _GROQ, "api.anthropic.com": _ANTHROPIC, "generativelanguage.googleapis.com": _GEMINI}
_AZURE_HOSTS = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
_BY_NAME = {"openai": _OPENAI, "anthropic": _ANTHROPIC, "gemini": _GEMINI, "azure": _AZURE, "groq": _GROQ}


def charging(provider: str, host: str) -> Charging:
    """The accounting of a provider at a host (lower case; empty: the provider's own). A host says more than a provider's word: OpenAI's wire is spoken everywhere.
    `provider` may be the name of an accounting as well (`azure`, `groq`).
    """
    if host.endswith(_AZURE_HOSTS):
        return _AZURE
    return _BY_HOST.get(host) or _BY_NAME.get(provider, _OPENAI)
