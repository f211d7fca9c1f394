"""Routes: which models a row may use. Rules are compiled once and looked at once per row."""

from batchllm.route.router import Router

__all__ = ["Router"]
