"""When no budget has room for what is left: why the run stops, and what rows it set aside on the way.

The trap: the cheapest request that waits decides. A cap that is too small for one row may do for others, so such a row is set aside, and only the run's end tells.
"""

from __future__ import annotations

from batchllm.engine.budgets import amount_words, used_up_words
from batchllm.engine.context import Context
from batchllm.engine.lanes import Lanes
from batchllm.engine.stop import Stop


def used_up(context: Context, lanes: Lanes) -> Stop | None:
    """Nothing that waits has room, and nothing in flight will give any back."""
    blocked = [lane.queue for lane in lanes.by_key if lane.queue.blocked_by == "budget" and lane.queue.waiters]
    cap = next((queue.broke for queue in blocked if queue.broke is not None), None)
    if cap is None:
        return None
    needs = min(cap.amount(queue.waiters[0].pico, queue.waiters[0].tokens) for queue in blocked if queue.broke is cap)
    return _stop(used_up_words(cap, needs, now_utc=context.clock.utc()), context)


def rows_aside(context: Context) -> Stop | None:
    """All others are done; these are left."""
    if context.cheapest_aside is None:
        return None
    _, dear = context.cheapest_aside
    return _stop(used_up_words(dear.cap, dear.amount, now_utc=context.clock.utc()), context)


def _stop(words: str, context: Context) -> Stop:
    return Stop(exit_code=3, stopped_by="budget", message=words + _aside_words(context))


def _aside_words(context: Context) -> str:
    """Rows that were set aside because they would cost more than was left."""
    aside = context.cheapest_aside
    if aside is None:
        return ""
    position, dear = aside
    others = f" and {context.set_aside - 1:,} more" if context.set_aside > 1 else ""
    verb = "use" if dear.cap.of_tokens else "cost"
    return (
        f"; row {position} (which may {verb} {amount_words(dear.cap, dear.amount)}){others} had no room in it and stay{'' if others else 's'} pending"
    )
