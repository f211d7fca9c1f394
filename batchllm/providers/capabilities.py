"""What a model can't take, as dated data: parameters are renamed, capped or left out before a codec writes them, each with one sentence for the user.

The trap runs both ways: a parameter that a model refuses fails every row of a night, and one that is left out without need changes every answer. So only what is
known of a model's own id at its own provider is here; an unknown model gets what was asked for, and the provider's own words if that is wrong.
Sources: protocols A.2, B.1, B.2, C.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchllm.core import json

AS_OF = "2026-11"
"""When the rows below were collected."""

_CLAUDE = re.compile(r"claude-([a-z]+)-(\d{1,2})(?:-(\d{1,2}))?(?!\d)")
_OLD_CLAUDE = re.compile(r"claude-(?:[12]|instant|3)")
_GEMINI = re.compile(r"gemini-(\d)(?:\.(\d))?-")
_SAMPLING = ("temperature", "top_p", "top_k")
_OPENAI_ONLY = (
    "logit_bias", "verbosity", "store", "prediction", "modalities", "audio", "web_search_options", "moderation",
    "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
)  # fmt: skip

_DEFAULTS: Mapping[str, Any] = {
    "temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "logprobs": False, "store": False,
    "parallel_tool_calls": True, "reasoning_effort": "none",
}  # fmt: skip
"""Values that say what holds anyway where a parameter isn't taken: left out without a word."""

CLAUDE_WITHOUT_SAMPLING = "2026-10-21"
"""From this `anthropic-version` on, sampling parameters are refused for every model, even at their default values."""
UNKNOWN_OUTPUT_CAP = 4096
_CLAUDE_OUTPUT_SINCE_4_5 = 64_000
"""No Claude since 4.5 has less; a cap above a model's own is refused, so those that aren't listed get this one."""
_CLAUDE_OUTPUT = (
    (
        re.compile(r"^claude-(?:fable-5-2|opus-5-5|sonnet-5-5|haiku-5-5|opus-4-8|sonnet-4-6)(?:-20\d{6})?$"),
        128_000,
    ),
)
"""Documented maxima (protocols H)."""


def _claude_version(model: str) -> tuple[int, int] | None:
    """(4, 8) of `claude-opus-4-8-20260501`; None for a name without a version in it."""
    found = _CLAUDE.search(model)
    if found is not None:
        return int(found[2]), int(found[3] or 0)
    return (3, 0) if _OLD_CLAUDE.search(model) else None


def _claude(at_least: tuple[int, int] = (0, 0), below: tuple[int, int] = (99, 0)) -> Callable[[str], bool]:
    def matches(model: str) -> bool:
        version = _claude_version(model)
        return version is not None and at_least <= version < below

    return matches


def _named(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda model: compiled.search(model) is not None


def _every(_model: str) -> bool:
    return True


def _always(_params: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that some models can't take. Rules are applied in their order."""

    provider: str
    models: Callable[[str], bool] = _every
    names: tuple[str, ...]
    """The parameters that it is about; without `rename`, `at_most`, `words` and `instead` they are left out."""
    when: Callable[[Mapping[str, Any]], bool] = _always
    rename: str | None = None
    """The name that the model reads instead. Not worth a warning: nothing is lost."""
    at_most: float | None = None
    words: Mapping[str, str | None] = field(default_factory=dict)
    """Values and what is sent for them; None: the parameter is left out."""
    instead: Any = None
    """What is sent for whatever was asked; None: the parameter is left out."""
    called: str | None = None
    """What the model doesn't take, in words; default: the names."""


def _forces_a_tool(params: Mapping[str, Any]) -> bool:
    choice = params.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    return kind in ("required", "any", "function", "tool")


def _thinks(kind: str) -> Callable[[Mapping[str, Any]], bool]:
    def asked(params: Mapping[str, Any]) -> bool:
        thinking = params.get("thinking")
        return isinstance(thinking, Mapping) and thinking.get("type") == kind

    return asked


# o1, o3, o4-mini, gpt-5, gpt-5-mini, gpt-6.1-sol...; not gpt-5-chat-latest, which doesn't reason.
_REASONING = _named(r"^(o\d|gpt-[5-9])(?!.*chat)(?!.*search)")
_ALWAYS_REASONING = _named(r"^(o\d(-|$)|gpt-5(-mini|-nano|-pro|-codex)?(-20\d\d|$))")

RULES: tuple[Rule, ...] = (
    Rule(provider="openai", models=_REASONING, names=("max_tokens",), rename="max_completion_tokens"),
    Rule(
        provider="openai",
        models=_REASONING,
        names=("temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias"),
        # From gpt-5.1 on reasoning can be switched off, and then they are taken.
        when=lambda params: params.get("reasoning_effort") != "none",
    ),
    Rule(
        provider="openai",
        models=_ALWAYS_REASONING,
        names=("temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias"),
    ),
    Rule(provider="anthropic", names=("max_completion_tokens",), rename="max_tokens"),
    Rule(provider="anthropic", names=(*_OPENAI_ONLY, "seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs")),
    Rule(provider="anthropic", models=_claude(at_least=(4, 7)), names=_SAMPLING),
    Rule(provider="anthropic", names=_SAMPLING, when=lambda params: params.get(_VERSION, "") >= CLAUDE_WITHOUT_SAMPLING),
    Rule(provider="anthropic", names=("temperature",), at_most=1.0),
    Rule(provider="anthropic", models=_claude(at_least=(4, 1), below=(4, 7)), names=("top_p",), when=lambda params: "temperature" in params),
    Rule(
        provider="anthropic",
        # Effort came with Opus 4.5, and to the other families with 4.6.
        models=lambda model: _claude(below=(4, 6))(model) and "opus-4-5" not in model,
        names=("reasoning_effort",),
    ),
    Rule(provider="anthropic", models=_claude(at_least=(5, 0)), names=("reasoning_effort",), words={"none": "low"}),
    Rule(
        provider="anthropic",
        models=_claude(at_least=(4, 7)),
        names=("thinking",),
        when=_thinks("enabled"),
        instead={"type": "adaptive"},
        called="`thinking` with a budget",
    ),
    Rule(
        provider="anthropic", models=_claude(at_least=(5, 0)), names=("thinking",), when=_thinks("disabled"), called="`thinking` of type `disabled`"
    ),
    Rule(provider="anthropic", models=_claude(at_least=(5, 0)), names=("tool_choice",), when=_forces_a_tool, called="forced `tool_choice`"),
    Rule(provider="anthropic", names=("reasoning_effort",), words={"minimal": "low"}),
    Rule(provider="anthropic", models=_claude(below=(4, 7)), names=("reasoning_effort",), words={"xhigh": "high"}),
    Rule(provider="anthropic", models=_claude(below=(4, 6)), names=("reasoning_effort",), words={"max": "high"}),
    Rule(provider="anthropic", names=("service_tier",), words={"flex": None, "scale": None, "fast": None, "priority": "auto"}),
    Rule(provider="gemini", names=("max_completion_tokens",), rename="max_tokens"),
    Rule(provider="gemini", names=(*_OPENAI_ONLY, "user", "safety_identifier", "metadata")),
    Rule(provider="gemini", names=("parallel_tool_calls",)),
    Rule(provider="gemini", models=_named(r"gemini-(1|2\.0)"), names=("reasoning_effort",)),
    Rule(provider="gemini", models=_named(r"gemini-2\.5-pro"), names=("reasoning_effort",), words={"none": "minimal"}),
    Rule(provider="gemini", models=_named(r"gemini-[3-9].*pro"), names=("reasoning_effort",), words={"none": "low", "minimal": "low"}),
    Rule(provider="gemini", models=_named(r"gemini-[3-9]"), names=("reasoning_effort",), words={"none": "minimal"}),
    Rule(provider="gemini", names=("reasoning_effort",), words={"max": "xhigh"}),
    Rule(provider="gemini", names=("service_tier",), words={"scale": None, "fast": None}),
)

_VERSION = "\0anthropic-version"
"""Where the wire's version is put while the rules look at the parameters: no parameter has such a name."""


def adapt(provider: str, model: str, params: Mapping[str, Any], *, version: str | None = None) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The parameters as this model takes them, in the same vocabulary, and what was changed, in sentences for the user.

    Pure, and the very same mapping when nothing changes. Called once per distinct set of parameters. `version`: the `anthropic-version` that is sent.
    """
    made: dict[str, Any] = dict(params)
    if version is not None:
        made[_VERSION] = version
    warnings: list[str] = []
    for rule in RULES:
        if rule.provider == provider and any(name in made for name in rule.names) and rule.models(model) and rule.when(made):
            warnings += _applied(rule, model, made)
    made.pop(_VERSION, None)
    return (params if made == params else made), tuple(warnings)


def _applied(rule: Rule, model: str, made: dict[str, Any]) -> Iterator[str]:
    if rule.rename is not None:
        _rename(made, rule.names[0], rule.rename)
        return
    left_out: list[str] = []
    for name in rule.names:
        if name not in made:
            continue
        value = made[name]
        if rule.at_most is not None:
            if isinstance(value, int | float) and value > rule.at_most:
                made[name] = rule.at_most
                yield f"{model} takes a `{name}` of at most {rule.at_most:g}: that is sent for {value:g}"
        elif rule.words:
            if isinstance(value, str) and value in rule.words:
                other = rule.words[value]
                if other is None:
                    del made[name]
                    yield f"{model} has no `{name}: {value}`: it is left out"
                else:
                    made[name] = other
                    yield f"{model} has no `{name}: {value}`: `{other}` is sent"
        elif rule.instead is not None:
            made[name] = rule.instead
            yield f"{model} takes no {rule.called}: {json.text(rule.instead)} is sent"
        elif rule.called is not None:
            del made[name]
            yield f"{model} takes no {rule.called}: it is left out"
        else:
            del made[name]
            if not (name in _DEFAULTS and value == _DEFAULTS[name]):
                left_out.append(f"`{name}`")
    if left_out:
        both = " with a `temperature`" if rule.names == ("top_p",) else ""
        yield f"{model} takes no {' and no '.join(left_out)}{both}: {'it is' if len(left_out) == 1 else 'they are'} left out"


def _rename(made: dict[str, Any], name: str, other: str) -> None:
    """One spelling; when both are there, the smaller cap, as money was reserved for one of them."""
    if name not in made:
        return
    value = made.pop(name)
    there = made.get(other)
    made[other] = min(value, there) if isinstance(value, int) and isinstance(there, int) else value if there is None else there


def output_cap_default(model: str) -> int:
    """The `max_tokens` that Anthropic's wire is sent when a request names none (it must have one): the model's documented maximum, else 4,096.

    Money is reserved for the same number, so whoever reserves asks here too.
    """
    for pattern, cap in _CLAUDE_OUTPUT:
        if pattern.search(model):
            return cap
    return _CLAUDE_OUTPUT_SINCE_4_5 if _claude(at_least=(4, 5))(model) else UNKNOWN_OUTPUT_CAP


def gemini_thinks_by_budget(model: str) -> bool:
    """Gemini 2.5 counts thinking in tokens (`thinkingBudget`), later ones in levels (`thinkingLevel`)."""
    found = _GEMINI.search(model)
    return found is not None and (int(found[1]), int(found[2] or 0)) < (3, 0)
