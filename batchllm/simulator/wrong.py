"""How a dialect's reader says no: the first mistake ends the reading, and its words become the 400."""

from __future__ import annotations


class WrongError(Exception):
    """What is wrong with a request, in the server's words. Raised and caught within a dialect's reader."""
