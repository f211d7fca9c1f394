"""Whose price list a model is on: the book's name of the provider that sends the bill.

The trap: a host that is not known sends bills that are not known. A model id alone says nothing: a proxy, a reseller or a local server may use any name.
"""

from __future__ import annotations

from urllib.parse import urlsplit

_OWN = {
    "openai": ("openai", frozenset({"api.openai.com"})),
    "anthropic": ("anthropic", frozenset({"api.anthropic.com"})),
    "gemini": ("google", frozenset({"generativelanguage.googleapis.com"})),
}
"""Spec provider: its name in the book and its own hosts."""

_HOSTS = {host: book for book, hosts in _OWN.values() for host in hosts}

OWN_WORDS = frozenset({"azure", "databricks", "modal", "baseten", "google", "aws"})
"""Book providers that a URL alone does not settle: deployment names are the user's own words, or the price depends on the region."""


def of(provider: str, base_url: str | None) -> str | None:
    """The book's provider by the spec's provider and URL, without opening the book; None where only the book's URL patterns may tell (`pricebook`)."""
    if provider == "ollama":
        return None
    if base_url is None:
        return _OWN[provider][0] if provider in _OWN else None
    return _HOSTS.get(host_of(base_url))


def host_of(base_url: str) -> str:
    """Lower-case host of a URL; empty for what is no URL."""
    try:
        return (urlsplit(base_url).hostname or "").lower()
    except ValueError:
        return ""
