"""Content parts that are no text - images, audio, files - read once for every wire.

OpenAI's forms are understood: `image_url` (an object or a bare URL), `input_audio`, `file`, and `video_url` as some gateways write it. What is wrong with a part
is a ValueError with words, which fails that row alone.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

_AUDIO = {"mp3": "audio/mp3", "wav": "audio/wav"}
_BY_ENDING = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "heic": "image/heic",
    "pdf": "application/pdf", "txt": "text/plain", "mp3": "audio/mp3", "wav": "audio/wav", "mp4": "video/mp4",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """One image, sound or file; it holds exactly one of `data`, `url` and `file_id`."""

    mime: str | None
    """Lower case, without parameters; None when nothing tells it."""
    data: str | None = None
    """Base64."""
    url: str | None = None
    file_id: str | None = None
    """A file that was uploaded to the provider before."""
    name: str | None = None


def media_of(part: Mapping[str, Any]) -> Media | None:
    """The part as media; None for a part of another kind. ValueError for one that says nothing usable."""
    kind = part.get("type")
    if kind in ("image_url", "video_url"):
        value = part.get(kind)
        url = value.get("url") if isinstance(value, Mapping) else value
        if not isinstance(url, str) or not url:
            raise ValueError(f"a content part of type {kind} has no url")
        return _by_url(url, name=None)
    if kind == "input_audio":
        value = part.get("input_audio")
        if not isinstance(value, Mapping) or not isinstance(value.get("data"), str) or not isinstance(value.get("format"), str):
            raise ValueError("a content part of type input_audio needs `data` (base64) and `format`")
        return Media(mime=_AUDIO.get(value["format"].lower(), f"audio/{value['format'].lower()}"), data=value["data"])
    return _file(part.get("file")) if kind == "file" else None


def _file(value: Any) -> Media:
    if isinstance(value, Mapping):
        name = value["filename"] if isinstance(value.get("filename"), str) else None
        if isinstance(value.get("file_data"), str):
            data = value["file_data"]
            return _by_url(data, name=name) if data[:5].lower() == "data:" else Media(mime=_mime_of(name or ""), data=data, name=name)
        if isinstance(value.get("file_id"), str):
            return Media(mime=None, file_id=value["file_id"], name=name)
    raise ValueError("a content part of type file needs `file_data` (a data: URL or base64) or `file_id`")


def _mime_of(path: str) -> str | None:
    return _BY_ENDING.get(path.rpartition(".")[2].lower())


def _by_url(url: str, *, name: str | None) -> Media:
    if url[:5].lower() != "data:":
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("https", "http", "gs") or not parts.netloc:
            raise ValueError(f"a content part's URL must be https or a data: URL, got {url[:60]!r}")
        return Media(mime=_mime_of(parts.path), url=url, name=name)
    head, comma, data = url[5:].partition(",")
    mime, *options = (piece.strip().lower() for piece in head.split(";"))
    if not comma:
        raise ValueError(f"a data: URL has no comma: {url[:40]!r}")
    if "base64" not in options:
        data = b64encode(unquote_to_bytes(data)).decode()
    return Media(mime=mime or "text/plain", data=data, name=name)
