"""Answers as examples to train a model on: one JSON object a line, in the form of the provider that trains, and that provider's rules about the whole file.

The trap: a training service rejects a file, or quietly cuts its examples, only after it was uploaded. So what a provider can't take is left out here, one example at a
time and counted by reason, and what its rules say about size and number is said before anything is uploaded. Facts as of 2026-11, from the providers' pages on
supervised fine-tuning: OpenAI "Supervised fine-tuning", Amazon Bedrock "Prepare data for fine-tuning" (where Anthropic's Claude 3 Haiku is trained), Google "Prepare
supervised fine-tuning data for Gemini models".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from batchllm.core import json

Trainer = Literal["openai", "anthropic", "gemini"]


class Unfit(ValueError):  # noqa: N818 - a state of an example, not a fault
    """This provider can't be shown such an example; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a provider says about its files."""

    form: Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
    name: str
    least: int
    """Examples to train on."""
    least_words: str
    """What happens below."""
    most: int | None
    most_validation: int | None
    most_tokens: int
    """Of one example; longer ones are cut or refused."""
    most_bytes: int
    """Of a file."""


def example(trainer: Trainer, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """One line of a training file: the filled messages, the parameters that a model is trained with (tools), and the answer as an assistant's message. Unfit where the
    provider's form can't say it.
    """
    if not answer.get("content") and not answer.get("tool_calls"):
        raise Unfit("the answer is empty")
    if not any(message.get("role") == "user" for message in messages):
        raise Unfit("no message is the user's")
    return RULES[trainer].form(messages, params, answer)


def _openai(messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in {"text", "image_url"} or (kind == "image_url" and message.get("role") != "user"):
                raise Unfit(f"OpenAI trains on texts and a user's pictures, not on a part of type {kind!r}")
    line: dict[str, Any] = {"messages": [*messages, answer]}
    for key in ("tools", "parallel_tool_calls"):
        if params.get(key) is not None:
            line[key] = params[key]
    return line


def _anthropic(messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    system, turns = _turns(messages, params, answer, "Anthropic's form")
    if turns[0][0] != "user":
        raise Unfit("the first message after the system's must be the user's")
    line: dict[str, Any] = {"messages": [{"role": role, "content": text} for role, text in turns]}
    return {"system": system, **line} if system else line


def _gemini(messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    system, turns = _turns(messages, params, answer, "Gemini's form here")
    names = {"user": "user", "assistant": "model"}
    line: dict[str, Any] = {"contents": [{"role": names[role], "parts": [{"text": text}]} for role, text in turns]}
    return {"systemInstruction": {"parts": [{"text": system}]}, **line} if system else line


def _turns(
    messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any], answer: Mapping[str, Any], whose: str
) -> tuple[str, list[tuple[str, str]]]:
    """(system text, turns of user and assistant in alternation)."""
    if params.get("tools") or answer.get("tool_calls"):
        raise Unfit(f"{whose} has no tools")
    system: list[str] = []
    turns: list[tuple[str, str]] = []
    for message in [*messages, answer]:
        role, text = message.get("role"), _text(message, whose)
        if role in {"system", "developer"}:
            system.append(text)
        elif role not in {"user", "assistant"}:
            raise Unfit(f"{whose} has no role {role!r}")
        elif turns and turns[-1][0] == role:
            turns[-1] = (role, f"{turns[-1][1]}\n\n{text}")
        else:
            turns.append((role, text))
    return "\n\n".join(system), turns


def _text(message: Mapping[str, Any], whose: str) -> str:
    content = message.get("content")
    if isinstance(content, list):
        kinds = {part.get("type") if isinstance(part, dict) else None for part in content} - {"text"}
        if kinds:
            raise Unfit(f"{whose} takes texts, not a part of type {next(iter(kinds))!r}")
        content = "\n\n".join(part["text"] for part in content)
    if not isinstance(content, str) or not content.strip() or message.get("tool_calls"):
        raise Unfit(f"{whose} needs a text in every message")
    return content


_GIB = 1 << 30
RULES: Mapping[Trainer, Rules] = {
    "openai": Rules(
        form=_openai,
        name="OpenAI",
        least=10,
        least_words="takes no file",
        most=None,
        most_validation=None,
        most_tokens=65_536,
        most_bytes=512 << 20,
    ),
    "anthropic": Rules(
        form=_anthropic,
        name="Amazon Bedrock (Claude 3 Haiku)",
        least=32,
        least_words="takes no file",
        most=10_000,
        most_validation=1_000,
        most_tokens=32_000,
        most_bytes=10 * _GIB,
    ),
    "gemini": Rules(
        form=_gemini,
        name="Google",
        least=100,
        least_words="recommends no file",
        most=None,
        most_validation=5_000,
        most_tokens=131_072,
        most_bytes=_GIB,
    ),
}


@dataclass(slots=True, kw_only=True)
class Count:
    """What went into one file."""

    examples: int = 0
    tokens: int = 0
    size: int = 0
    """Bytes."""
    long: int = 0
    """Examples above the provider's length."""
    repeats: int = 0
    """Examples that are equal to an earlier one."""
    _seen: set[bytes] = field(default_factory=set)

    def add(self, line: bytes, tokens: int, *, most_tokens: int) -> None:
        """Counts a line."""
        self.examples += 1
        self.tokens += tokens
        self.size += len(line)
        self.long += tokens > most_tokens
        mark = blake2b(line, digest_size=8).digest()
        self.repeats += mark in self._seen
        self._seen.add(mark)


def broken_rules(trainer: Trainer, training: Count, validation: Count | None) -> list[str]:
    """What the provider's rules have against these files, in words."""
    rules = RULES[trainer]
    words = []
    if training.examples < rules.least:
        words.append(f"{training.examples} examples to train on: {rules.name} {rules.least_words} with fewer than {rules.least}")
    if rules.most is not None and training.examples > rules.most:
        words.append(f"{training.examples:,} examples to train on: {rules.name} takes at most {rules.most:,}")
    if validation is not None and rules.most_validation is not None and validation.examples > rules.most_validation:
        words.append(f"{validation.examples:,} examples for validation: {rules.name} takes at most {rules.most_validation:,}")
    for count, what in ((training, "training"), (validation, "validation")):
        if count is None:
            continue
        if count.long:
            words.append(f"{count.long:,} {what} examples have more than {rules.most_tokens:,} tokens; {rules.name} cuts or refuses them")
        if count.size > rules.most_bytes:
            words.append(f"the {what} file has {count.size / 2**20:,.0f} MiB; {rules.name} takes {rules.most_bytes >> 20:,} MiB")
    return words


def line_of(value: Mapping[str, Any]) -> bytes:
    """A line of the file."""
    return json.dumps(value) + b"\n"
