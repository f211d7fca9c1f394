"""Who pays and whose limits they are: provider, base URL and key. Other runs learn a digest of these, never the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from batchllm.core.secret import Secret

_TELLING = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key", "openai-organization", "openai-project", "anthropic-workspace-id"})
"""Headers that pick an account; others (tracing, user agents) differ from job to job without meaning anything."""
_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account at one provider, as other processes may know it."""

    provider: str
    host: str
    digest: str
    """Of provider, base URL, key and the headers that pick an account; 16 hex digits."""

    def as_dict(self) -> dict[str, str]:
        """For the run's file and `batchllm jobs`."""
        return {"provider": self.provider, "host": self.host, "digest": self.digest}


def account_of(provider: str, base_url: str, key: Secret | None, headers: Mapping[str, Secret]) -> Account:
    """The account that a model's requests are charged to."""
    secrets = sorted((name.lower(), value.reveal()) for name, value in headers.items() if name.lower() in _TELLING)
    parts = [provider, base_url.rstrip("/").lower(), "" if key is None else key.reveal(), *(text for pair in secrets for text in pair)]
    # Each part with its length: no two lists of parts look alike when joined.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    split = urlsplit(base_url)
    # Not `netloc`: a base URL may carry a user and password.
    host = split.hostname or ""
    try:
        port = split.port
    except ValueError:
        port = None
    return Account(provider=provider, host=f"{host}:{port}" if port else host, digest=sha256(text.encode()).hexdigest()[:_DIGITS])
