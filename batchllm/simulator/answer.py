"""What the simulated model says: a plausible text, JSON of the asked shape, or a tool call - from the seed and the request alone.

The length follows the output cap gently (few answers are cut), but the words do not: with a larger cap the same request gets the same text, longer. Tokens are
counted by `core.words`, so that a test can say the exact cost of a request before it is sent.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from batchllm.core import json
from batchllm.core.nouns import Usage
from batchllm.core.words import count_text
from batchllm.simulator import vectors
from batchllm.simulator.dialect import Answer, Ask, Choice, Tool, ToolCall
from batchllm.simulator.draw import Draw
from batchllm.simulator.shape import WORDS, sample

MEDIAN_TOKENS = 40
LONGEST_TOKENS = 4096
_SIGMA = 0.4
# One token each, so that a text of N tokens is N words; 256 of them, so that a byte picks one.
_ONE_TOKEN = [word for word in WORDS if len(word) <= 6]
_BY_BYTE = tuple(_ONE_TOKEN[number % len(_ONE_TOKEN)] for number in range(256))
_PICTURES = "\U0001f642\U0001f680\U0001f98a\U0001d54f\U00020bb7"  # outside of the basic plane: each is two UTF-16 units
_REFUSAL = "I'm sorry, but I can't help with that."


def content_key(seed: int, ask: Ask) -> bytes:
    """What every number of an answer is drawn from."""
    return b"content/%d/" % seed + ask.digest


def compose(ask: Ask, seed: int) -> Answer:
    """The answer, before anything goes wrong."""
    if ask.inputs is not None:
        embedded = vectors.embed(seed, ask.model, ask.inputs, ask.dimensions or vectors.size_of(ask.model))
        return Answer(choices=(), usage=Usage(input_tokens=ask.input_tokens, output_tokens=0), vectors=embedded)
    key = content_key(seed, ask)
    choices = tuple(_whole_choice(ask, key if index == 0 else key + b"/%d" % index) for index in range(ask.choices))
    return _billed(ask, choices)


def altered(ask: Ask, answer: Answer, fault: str) -> Answer:
    """The answer with what a content fault does to it; others leave it alone."""
    if ask.inputs is not None:
        return replace(answer, vectors=()) if fault == "finish_error" else answer
    first = answer.choices[0]
    text = first.text or ""
    match fault:
        case "length":
            changed = Choice(text=cut(text, ask.cap if ask.cap is not None and ask.cap < count_text(text) else min(5, ask.cap or 5)), finish="length")
        case "window_full" | "paused":
            changed = Choice(text=cut(text, max(count_text(text) // 2, 1)), finish="length")
        case "empty":
            changed = Choice(text="", finish="stop")
        case "empty_length":
            spent = ask.cap or MEDIAN_TOKENS
            usage = Usage(input_tokens=ask.input_tokens, output_tokens=spent, reasoning_tokens=spent)
            return Answer(choices=(Choice(text="", finish="length"), *answer.choices[1:]), usage=usage)
        case "bad_json":
            changed = _within(ask, '{"label": "positive", "reason": "it')
        case "schema_violation":
            changed = _within(ask, '{"unexpected": [1, 2, 3]}')
        case "bad_arguments":
            call = first.tool_call or ToolCall(id="call_simulated", name=ask.tool.name if ask.tool else "lookup", arguments="")
            changed = Choice(text=None, finish="tool", tool_call=replace(call, arguments='{"query": "unfinish'))
        case "refusal":
            changed = Choice(text=None, finish="stop", refusal=_REFUSAL if ask.cap is None else cut(_REFUSAL, ask.cap))
        case "content_filter":
            changed = Choice(text=None, finish="filter")
        case "prompt_blocked":
            blocked = Choice(text=None, finish="filter")
            return Answer(choices=(blocked, *answer.choices[1:]), usage=Usage(input_tokens=ask.input_tokens, output_tokens=0))
        case "finish_error":
            changed = Choice(text=cut(text, max(count_text(text) // 2, 1)), finish="error")
        case "finish_null":
            changed = replace(first, finish=None)
        case "usage_cached":
            return replace(answer, usage=replace(answer.usage, cached_input_tokens=ask.input_tokens // 2))
        case "usage_cache_write":
            return replace(answer, usage=replace(answer.usage, cache_write_tokens=ask.input_tokens // 2))
        case "usage_reasoning":
            usage = replace(answer.usage, reasoning_tokens=200, output_tokens=answer.usage.output_tokens + 200)
            return replace(answer, usage=usage)
        case _:
            return answer
    return _billed(ask, (changed, *answer.choices[1:]))


def _within(ask: Ask, text: str) -> Choice:
    """A text that ends by itself, unless the cap ends it."""
    if ask.cap is not None and count_text(text) > ask.cap:
        return Choice(text=cut(text, ask.cap), finish="length")
    return Choice(text=text, finish="stop")


def cut(text: str, tokens: int) -> str:
    """The longest start of a text with at most this many tokens."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if count_text(text[:middle]) <= tokens:
            low = middle
        else:
            high = middle - 1
    return text[:low]


def _billed(ask: Ask, choices: tuple[Choice, ...]) -> Answer:
    output = thought = 0
    for choice in choices:
        if choice.thought is not None:
            thought += count_text(choice.thought)
        output += count_text(choice.text or choice.refusal or "") if choice.tokens is None else choice.tokens
        if choice.tool_call is not None:
            output += count_text(choice.tool_call.name) + count_text(choice.tool_call.arguments)
    # Even an empty answer has its end token, unless there was to be none.
    output = 0 if ask.cap == 0 else max(output, 1)
    return Answer(choices=choices, usage=Usage(input_tokens=ask.input_tokens, output_tokens=output + thought, reasoning_tokens=thought))


def _whole_choice(ask: Ask, key: bytes) -> Choice:
    """Thought, words, and where they stop. What is thought counts towards the cap."""
    if ask.think and ask.cap != 0:
        draw = Draw(key + b"/thought")
        tokens = 8 + draw.below(25)
        tokens = tokens if ask.cap is None else min(tokens, ask.cap // 2)
        spared = None if ask.cap is None else ask.cap - tokens
        choice = _stopped(ask, _choice(replace(ask, cap=spared), key))
        return replace(choice, thought=" ".join(_words(ask, draw, tokens))) if tokens else choice
    return _stopped(ask, _choice(ask, key))


def _stopped(ask: Ask, choice: Choice) -> Choice:
    """Cut before the first of the stop texts."""
    if not ask.stop or choice.text is None:
        return choice
    found = [(place, -len(stop), stop) for stop in ask.stop if stop and (place := choice.text.find(stop)) >= 0]
    if not found:
        return choice
    place, _, stop = min(found)
    return Choice(text=choice.text[:place], finish="stop", stopped_by=stop)


def _choice(ask: Ask, key: bytes) -> Choice:
    draw = Draw(key)
    if ask.tool is not None:
        return _call(ask.tool, key, draw)
    if ask.format == "text":
        return _prose(ask, draw)
    value = sample(ask.schema, draw) if ask.format == "schema" else {"answer": " ".join(_words(ask, draw, 6)), "score": draw.below(101)}
    return _within(ask, json.text(value))


def _call(tool: Tool, key: bytes, draw: Draw) -> Choice:
    arguments = json.text(sample(tool.parameters, draw) or {})
    # A tool call is never cut here: `bad_arguments` is the fault for that.
    return Choice(text=None, finish="tool", tool_call=ToolCall(id="call_" + sha256(key).hexdigest()[:24], name=tool.name, arguments=arguments))


def _prose(ask: Ask, draw: Draw) -> Choice:
    cap = ask.cap
    median = MEDIAN_TOKENS if cap is None else min(MEDIAN_TOKENS, 0.4 * cap)
    wanted = min(max(1, round(draw.log_normal(median, _SIGMA))), LONGEST_TOKENS)
    picture = _PICTURES[draw.below(len(_PICTURES))] if draw.below(8) == 0 else None
    text = " ".join(_words(ask, draw, wanted - (picture is not None)))
    text = text[:1].upper() + text[1:]
    if picture is not None:
        text = f"{text} {picture}" if text else picture
    if cap is not None and wanted > cap:
        return Choice(text=cut(text, cap).rstrip(), finish="length", tokens=cap)
    return Choice(text=text, finish="stop", tokens=wanted)


def _words(ask: Ask, draw: Draw, tokens: int) -> list[str]:
    """Words of one token each, every fourth from the start of the prompt."""
    numbers = draw.take(tokens)
    words = [_BY_BYTE[number] for number in numbers]
    own = [word for word in ask.last_text[:160].split() if 3 <= len(word) <= 6 and word.isalpha() and word.isascii()]
    if own:
        for place in range(3, tokens, 4):
            words[place] = own[numbers[place] % len(own)]
    return words
