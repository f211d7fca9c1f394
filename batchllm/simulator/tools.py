"""Which tool the simulated model calls: the forced one, or - left to itself - the one that the user's last message names, as a sensible model would.

After a tool's result it answers in words, so that a loop of calls comes to an end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from batchllm.simulator.dialect import Tool


def read(declared: Any) -> list[Tool]:
    """Function tools as OpenAI writes them: nested under `function` (chat, Ollama) or flat (responses). Others are passed over."""
    tools: list[Tool] = []
    for entry in declared if isinstance(declared, list) else ():
        if not isinstance(entry, dict):
            continue
        function = entry.get("function", entry)
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            tools.append(Tool(name=function["name"], parameters=parameters if isinstance(parameters, dict) else {"type": "object"}))
    return tools


def own_choice(tools: Sequence[Tool], messages: Sequence[Mapping[str, Any]], last_text: str) -> Tool | None:
    """What the model does when nobody tells it: calls the tool that the last message names, if that is the user's."""
    if not tools or not messages or messages[-1].get("role") != "user":
        return None
    words = {word.strip(".-") for word in re.findall(r"[\w.-]+", last_text.lower())}
    return next((tool for tool in tools if tool.name.lower() in words), None)
