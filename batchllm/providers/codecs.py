"""Which codec speaks to a model: by provider, endpoint and host. Made once per model and run.

The trap: a combination that no wire has must be refused before anything is sent, with words that name what would work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from batchllm.core.nouns import Endpoint
from batchllm.core.secret import Secret
from batchllm.providers.codec import Codec
from batchllm.providers.openai_wire import OPENAI, SIMULATED
from batchllm.spec.hosts import PLAIN, CompatibleHost, host_at


class Unserved(ValueError):  # noqa: N818 - its text is what matters, to a user
    """No wire has this combination of provider and endpoint; the text says what to do."""


def codec_for(
    *,
    provider: str,
    endpoint: Endpoint,
    base_url: str,
    model: str,
    api_key: Secret | None,
    headers: Mapping[str, Secret | str],
    host: CompatibleHost | None = None,
) -> Codec:
    """The codec of a model. `host`: the quirks of an openai-compatible server; default: those of the known server at `base_url`. Raises `Unserved`."""
    if provider in _OWN_WIRES:
        own = _own_wire(provider, endpoint)
        if own is None:
            raise Unserved(f"{provider} has no endpoint {endpoint}: {_MENDS.get((provider, endpoint), _MENDS[provider, ''])}")
        return own(base_url=base_url, model=model, api_key=api_key, headers=headers)
    if provider not in _OPENAI_WIRES:
        raise Unserved(f"no wire is known for the provider {provider!r}")
    quirks = host or _host(provider, base_url)
    if quirks.deployments and endpoint == "responses":
        raise Unserved("Azure's responses are not under /openai/deployments: give a base_url that ends in /openai/v1")
    return _openai_wire(endpoint)(base_url=base_url, model=model, api_key=api_key, headers=headers, host=quirks)


_OPENAI_WIRES = frozenset({"openai", "openai-compatible", "simulated"})
_OWN_WIRES = frozenset({"anthropic", "gemini", "ollama"})
_MENDS: Mapping[tuple[str, str], str] = {
    ("anthropic", ""): "its messages are `endpoint: chat`",
    ("anthropic", "embeddings"): "it has no embedding models; use another provider for them",
    ("gemini", ""): "it has `chat` and `embeddings`",
    ("ollama", ""): "it has `chat`, `completions` and `embeddings`",
    ("ollama", "responses"): "use `chat`, or `provider: openai-compatible` with base_url http://127.0.0.1:11434/v1",
}


class _MakesCodec(Protocol):
    def __call__(self, *, base_url: str, model: str, api_key: Secret | None, headers: Mapping[str, Secret | str]) -> Codec: ...


def _own_wire(provider: str, endpoint: Endpoint) -> _MakesCodec | None:
    """The class for a wire that isn't OpenAI's; only what a run uses is imported."""
    match provider, endpoint:
        case "anthropic", "chat":
            from batchllm.providers.anthropic import AnthropicMessages

            return AnthropicMessages
        case "gemini", "chat":
            from batchllm.providers.gemini import GeminiGenerate

            return GeminiGenerate
        case "gemini", "embeddings":
            from batchllm.providers.gemini_embed import GeminiEmbed

            return GeminiEmbed
        case "ollama", "chat":
            from batchllm.providers.ollama import OllamaChat

            return OllamaChat
        case "ollama", "completions":
            from batchllm.providers.ollama import OllamaGenerate

            return OllamaGenerate
        case "ollama", "embeddings":
            from batchllm.providers.ollama import OllamaEmbed

            return OllamaEmbed
    return None


class _MakesOpenAICodec(Protocol):
    def __call__(self, *, base_url: str, model: str, api_key: Secret | None, headers: Mapping[str, Secret | str], host: CompatibleHost) -> Codec: ...


def _openai_wire(endpoint: Endpoint) -> _MakesOpenAICodec:
    match endpoint:
        case "chat":
            from batchllm.providers.openai import OpenAIChat

            return OpenAIChat
        case "responses":
            from batchllm.providers.openai_responses import OpenAIResponses

            return OpenAIResponses
        case "completions":
            from batchllm.providers.openai_completions import OpenAICompletions

            return OpenAICompletions
        case "embeddings":
            from batchllm.providers.openai_embeddings import OpenAIEmbeddings

            return OpenAIEmbeddings


def _host(provider: str, base_url: str) -> CompatibleHost:
    if provider == "openai":
        return OPENAI
    return SIMULATED if provider == "simulated" else host_at(base_url) or PLAIN
