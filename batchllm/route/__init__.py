"""Routes: which models a row may use, and whether an answer passes its check. Rules are compiled once and looked at once per row."""

from batchllm.route.check import Check
from batchllm.route.filter import Filter
from batchllm.route.router import Choice, Router
from batchllm.route.vote import Vote

__all__ = ["Check", "Choice", "Filter", "Router", "Vote"]
