"""What to do about a row's error code, in plain words.

Some causes need no `retry`: a failed row whose request changed (another prompt, other parameters, a mended input line) is tried anew by the next run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from batchllm.core.nouns import Code

Next = Literal["retry", "run", "model"]
"""`retry`: put back to pending as it is. `run`: mended rows go by themselves. `model`: another model may take it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """The mend of one code."""

    words: str
    next: Next


_FIXES: dict[str, Fix] = {
    Code.BAD_ROW: Fix(words="The line can't be used; mend it in the input. Mended lines go with the next run.", next="run"),
    Code.DUPLICATE_ID: Fix(
        words="An earlier row has the same id. Give each row its own, or leave `id` out so that rows are numbered; then run again.", next="run"
    ),
    Code.TEMPLATE: Fix(words="The prompt can't be filled from this row. Mend the prompt or the row; both make it go with the next run.", next="run"),
    Code.NO_ROUTE: Fix(words="No route takes this row. Add a last route without `when`; the row then goes with the next run.", next="run"),
    Code.TOO_LONG: Fix(words="The prompt doesn't fit the model. Shorten it, or send these rows to a model with a larger window.", next="model"),
    Code.REJECTED: Fix(
        words="The provider refuses this request as it is; its message says why. Mend the parameter or the prompt: changed requests go with the next run.",
        next="retry",
    ),
    Code.REFUSED: Fix(
        words="A content filter or the model itself declined. The same request is likely to be declined again; reword it or try another model.",
        next="model",
    ),
    Code.TRUNCATED: Fix(words="The answer was cut by its cap. Raise `max_tokens`; the changed requests go with the next run.", next="run"),
    Code.INVALID_OUTPUT: Fix(words="The answer didn't pass `output`. Loosen the check or help the prompt, or try another model.", next="model"),
    Code.TOOL_TURNS: Fix(
        words="The model went on calling tools. Raise `turns` of the tools, say in the prompt when to stop, or try another model.", next="model"
    ),
    Code.RATE_LIMITED: Fix(
        words="The request is larger than the provider's limit, so it can never pass. Shorten it, ask for less output, or send it to a model with a higher limit.",
        next="model",
    ),
    Code.UNAVAILABLE: Fix(words="The provider or the network failed again and again. It often passes: try these rows again later.", next="retry"),
    Code.TIMEOUT: Fix(
        words="No complete answer in time. Try again; if it repeats, raise `retry.timeout_seconds` or ask for less output.", next="retry"
    ),
    Code.BAD_RESPONSE: Fix(
        words="The reply couldn't be understood (HTML, broken JSON, no answer in it). Check `base_url`; if that is right, try again.", next="retry"
    ),
}
_UNKNOWN = Fix(words="Read the message; then try these rows again.", next="retry")


def fix_of(code: str) -> Fix:
    """The fix of an error code; a general one for a code of a newer program."""
    return _FIXES.get(code, _UNKNOWN)
