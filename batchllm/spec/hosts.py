"""Servers that speak OpenAI's wire with an accent: what each one calls things, leaves out and can't take, as dated rows of data.

A model finds its row by the name under `host`, else by the host name of its `base_url`; any other server is taken for a plain one. The trap: a row may only
say what is known of a server, since a parameter that is renamed or left out without need changes answers. Sources: protocols C.6, D.4 and E.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

AS_OF = "2026-11"
"""When the rows below were collected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatibleHost:
    """How one kind of server bends OpenAI's wire."""

    name: str
    base_url: str | None = None
    """Where it is, if it is in one place."""
    key_env: str | None = None
    """The variable that usually holds its key."""
    at: tuple[str, ...] = ()
    """Host names that tell it; one that begins with a dot stands for all below it, one with a port for that port only."""
    output_cap: Literal["max_tokens", "max_completion_tokens"] | None = "max_tokens"
    """The only spelling of a chat's output cap that it reads; None: both, so the cap is sent as the request spells it."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Parameters that it has under another name."""
    drop: tuple[str, ...] = ()
    """Parameters that it refuses: left out, with a warning."""
    key_header: str = "Authorization"
    """The header that carries the key; `Authorization` gets it as a Bearer token, any other as it is."""
    deployments: bool = False
    """Whether the model is named in the path: Azure's classic `/openai/deployments/MODEL/...`."""
    query: Mapping[str, str] = field(default_factory=dict)
    """What follows `?` in every URL."""
    stream_usage: bool = True
    """Whether it takes `stream_options: {include_usage: true}`; without it the usage of a stream comes by itself or not at all."""
    json_schema: bool = True
    """Whether `response_format` may be a JSON Schema; else `json_object` is asked for, and the schema is only checked afterwards."""
    requests_per: Literal["minute", "day"] | None = None
    """What the request limit in its headers is counted over, where that is known."""
    accounting: Literal["openai", "azure", "groq", "gemini"] = "openai"
    """Whose way of charging requests against their rate limits it has."""
    rules: str | None = None
    """Whose table of what a model can't take holds for its models: a provider's name, such as `openai`."""


PLAIN = CompatibleHost(name="plain")
"""A server of which nothing is known. What is merely compatible often knows only the old name of the output cap."""

HOSTS: tuple[CompatibleHost, ...] = (
    CompatibleHost(name="vllm"),
    CompatibleHost(name="sglang"),
    CompatibleHost(name="llamacpp"),
    CompatibleHost(name="litellm"),
    # Reads `max_tokens` only, and has no parameter for the size of its window.
    CompatibleHost(name="ollama", base_url="http://127.0.0.1:11434/v1", at=("localhost:11434", "127.0.0.1:11434")),
    CompatibleHost(name="openrouter", base_url="https://openrouter.ai/api/v1", key_env="OPENROUTER_API_KEY", at=("openrouter.ai",)),
    CompatibleHost(
        name="azure",
        key_env="AZURE_OPENAI_API_KEY",
        at=(".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"),
        output_cap="max_completion_tokens",
        key_header="api-key",
        accounting="azure",
        rules="openai",
    ),
    CompatibleHost(
        name="azure-classic",
        key_env="AZURE_OPENAI_API_KEY",
        output_cap=None,
        key_header="api-key",
        deployments=True,
        query={"api-version": "2024-10-21"},
        accounting="azure",
        rules="openai",
    ),
    CompatibleHost(
        name="groq",
        base_url="https://api.groq.com/openai/v1",
        key_env="GROQ_API_KEY",
        at=("api.groq.com",),
        output_cap="max_completion_tokens",
        drop=("logprobs", "top_logprobs", "logit_bias"),
        requests_per="day",
        accounting="groq",
    ),
    CompatibleHost(name="together", base_url="https://api.together.xyz/v1", key_env="TOGETHER_API_KEY", at=("api.together.xyz", "api.together.ai")),
    CompatibleHost(
        name="mistral",
        base_url="https://api.mistral.ai/v1",
        key_env="MISTRAL_API_KEY",
        at=("api.mistral.ai",),
        rename={"seed": "random_seed"},
        drop=("logprobs", "top_logprobs", "logit_bias", "user", "store"),
        stream_usage=False,
        requests_per="minute",
    ),
    CompatibleHost(
        name="deepseek",
        base_url="https://api.deepseek.com",
        key_env="DEEPSEEK_API_KEY",
        at=("api.deepseek.com",),
        json_schema=False,
    ),
    CompatibleHost(
        name="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_env="GEMINI_API_KEY",
        at=("generativelanguage.googleapis.com",),
        accounting="gemini",
        # Unknown fields are a 400 there.
        drop=("logit_bias", "store", "metadata", "user", "prompt_cache_key", "safety_identifier"),
    ),
)
BY_NAME: Mapping[str, CompatibleHost] = {host.name: host for host in HOSTS}


def host_at(base_url: str) -> CompatibleHost | None:
    """The row of the server that this URL belongs to; None for one that isn't known. Azure's path tells its two ways apart."""
    try:
        parts = urlsplit(base_url.strip())
        name, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return None
    for host in HOSTS:
        if any(name.endswith(at) if at.startswith(".") else at in (name, f"{name}:{port}") for at in host.at):
            classic = host.name == "azure" and not parts.path.rstrip("/").endswith("/openai/v1")
            return BY_NAME["azure-classic"] if classic else host
    return None
