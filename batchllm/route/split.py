"""Weighted splits: which of several models a row goes to, always the same for the same id.

By rendezvous hashing: each model draws a number for the row, and the best draw by weight wins. So the order of the weights says nothing, and another weight
moves only the rows that it must (60 of 100 instead of 50 moves ten of them to that model and none elsewhere).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b

_MOST = 2.0**64


def pick(weights: Mapping[str, float], key: str, rule: int) -> str:
    """The model of a row by its id; `rule` is the index of the route, so that two rules split independently. Weights are 0 or more, one at least above 0."""
    best, winner = math.inf, ""
    for name, weight in weights.items():
        if weight > 0:
            number = int.from_bytes(blake2b(f"{rule}\0{name}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest())
            # An exponential draw with the weight as its rate: the chance to be the least is the weight's share.
            score = -math.log((number + 0.5) / _MOST) / weight
            if score < best or (score == best and name < winner):
                best, winner = score, name
    return winner
