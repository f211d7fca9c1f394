"""Token counts and costs as "compatible" servers report them, in one form.

The trap: unknown is not zero. Missing, null, all-zero, negative and absurd counts give None (possibly billed), never `Usage(0, 0)`. Where the parts
disagree, the dearer reading is taken: tokens that only the total knows of (thinking that a server leaves out of its output count) are output.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from batchllm.core.nouns import Usage

ABSURD_TOKENS = 2 * 10**7
"""No request has more tokens (the largest windows are of ten million); a server that says so is not believed."""


_OPENAI_KEYS = frozenset({"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"})
"""A usage with these keys only (the usual one) isn't searched for other vendors' spellings."""


def _tokens(value: Any) -> int | None:
    """A token count; some servers send numbers as strings or floats. None for what is not said, -1 for what can't be."""
    if type(value) is int:
        return value if 0 <= value <= ABSURD_TOKENS else -1
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return -1
    if isinstance(value, float):
        return int(value) if 0 <= value <= ABSURD_TOKENS and value.is_integer() else -1
    return -1


def token_count(value: Any) -> int | None:
    """One count as any wire writes it: None for what is not said, -1 for what can't be."""
    return _tokens(value)


def _first(*values: Any) -> int:
    """The first count that is said, 0 when none is (or it can't be): details only split what the totals say."""
    for value in values:
        if value is not None:
            count = _tokens(value)
            return count if count is not None and count > 0 else 0
    return 0


def _sides(usage: Mapping[str, Any]) -> tuple[int, int] | None:
    """Input and output, where one that is missing follows from the total."""
    given, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(given) is int and type(made) is int and 0 <= given <= ABSURD_TOKENS and 0 <= made <= ABSURD_TOKENS:
        return given, made
    tokens_in = _tokens(usage.get("input_tokens") if given is None else given)
    tokens_out = _tokens(usage.get("output_tokens") if made is None else made)
    total = _tokens(usage.get("total_tokens"))
    if tokens_in == -1 or tokens_out == -1:
        return None
    if tokens_in is None or tokens_out is None:
        if total is None or total < 0 or tokens_in == tokens_out:
            return None
        tokens_in = total - (tokens_out or 0) if tokens_in is None else tokens_in
        tokens_out = total - tokens_in if tokens_out is None else tokens_out
    return (tokens_in, tokens_out) if tokens_in >= 0 and tokens_out >= 0 else None


def usage_of(usage: Any) -> Usage | None:
    """The `usage` object of a chat completion as `Usage`; None when it says nothing that can be believed.

    Sources: protocols A.3, E (DeepSeek's cache hits, SGLang's flat reasoning count) and C.6 (a missing output count).
    """
    if not isinstance(usage, dict):
        return None
    sides = _sides(usage)
    if sides is None or sides == (0, 0):
        return None
    tokens_in, tokens_out = sides
    cached, written, reasoning = _details(usage)
    total = _tokens(usage.get("total_tokens"))
    if total is not None and total > tokens_in + tokens_out:
        # The total knows of more: cached tokens that this server left out of its input, else thinking that it left out of its output.
        unsaid = total - tokens_in - tokens_out
        if unsaid == cached + written:
            tokens_in += unsaid
        else:
            tokens_out += unsaid
    if cached + written > tokens_in:
        # Parts larger than the whole: the whole is priced as fresh input.
        cached = written = 0
    if reasoning > tokens_out:
        if total is None:
            tokens_out += reasoning
        else:
            reasoning = tokens_out
    return Usage(input_tokens=tokens_in, output_tokens=tokens_out, cached_input_tokens=cached, cache_write_tokens=written, reasoning_tokens=reasoning)


def _details(usage: Mapping[str, Any]) -> tuple[int, int, int]:
    """Cached input, cache writes and reasoning, wherever the server puts them."""
    about_input, about_output = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    cached = written = reasoning = 0
    if isinstance(about_input, dict):
        cached = _first(about_input.get("cached_tokens"))
        written = _first(about_input.get("cache_write_tokens"))
    if isinstance(about_output, dict):
        reasoning = _first(about_output.get("reasoning_tokens"))
    if not _OPENAI_KEYS.issuperset(usage):
        cached = cached or _first(usage.get("prompt_cache_hit_tokens"), usage.get("cache_read_input_tokens"), usage.get("cached_tokens"))
        written = written or _first(usage.get("cache_creation_input_tokens"))
        reasoning = reasoning or _first(usage.get("reasoning_tokens"))
        # OpenAI's responses (protocols A.5).
        about_input, about_output = usage.get("input_tokens_details"), usage.get("output_tokens_details")
        if isinstance(about_input, dict):
            cached = cached or _first(about_input.get("cached_tokens"))
            written = written or _first(about_input.get("cache_write_tokens"))
        if isinstance(about_output, dict):
            reasoning = reasoning or _first(about_output.get("reasoning_tokens"))
    return cached, written, reasoning


def _usd(value: Any) -> float | None:
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        usd = float(value)
    except (ValueError, OverflowError):
        return None
    return usd if isfinite(usd) and usd >= 0 else None


def cost_of(usage: Any, headers: Mapping[str, str]) -> float | None:
    """What the provider itself says the answer cost, USD.

    OpenRouter: `usage.cost`, plus the upstream's bill when the key behind it is the user's own. LiteLLM: `x-litellm-response-cost`, where "None" and 0
    mean that it knows no price.
    """
    if isinstance(usage, dict) and "cost" in usage:
        cost = _usd(usage["cost"])
        details = usage.get("cost_details")
        if cost is not None and usage.get("is_byok") is True and isinstance(details, dict):
            cost += _usd(details.get("upstream_inference_cost")) or 0.0
        if cost is not None:
            return cost
    said = headers.get("x-litellm-response-cost")
    return (_usd(said) or None) if said else None
