"""Files in a prompt: a content part `{"image": "scans/a.png"}` (or `audio`, `file`) becomes a part in OpenAI's form, which every wire maps to its own.

The trap is their size. A row that waits holds a stand-in, `data:image/png;sha256=...`, and the file is read again only when the request leaves; the stand-in is
what the fingerprint sees, so a changed file is a changed request and a moved one is not. What is wrong with a file is said when the row is drafted, and fails
that row alone.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

MOST_BYTES = 20 << 20
"""Of one file: what providers take in a request."""
_REMEMBERED = 4096
_Kind = Literal["image", "audio", "file"]
_KINDS: tuple[_Kind, ...] = ("image", "audio", "file")
_AUDIO_FORMATS = {"audio/wav": "wav", "audio/mpeg": "mp3", "audio/flac": "flac", "audio/ogg": "ogg"}
_SCHEMES = ("https://", "http://", "data:", "gs://")


class BadFile(ValueError):  # noqa: N818 - it is data a moment later
    """A file that can't be part of a request; the text says why, and the mend."""


class Attachment(str):  # noqa: SLOT000 - it has a handful of attributes, and there are few of them
    """The stand-in of a file's content in a request, and where the content is. `encoded`: the wire wants base64 alone, not a `data:` URL."""

    path: Path
    mime: str
    digest: str
    encoded: bool

    def __new__(cls, path: Path, mime: str, digest: str, *, encoded: bool = False) -> Self:
        made = super().__new__(cls, f"data:{mime};sha256={digest}")
        made.path, made.mime, made.digest, made.encoded = path, mime, digest, encoded
        return made


class Attacher:
    """Looks at the files that messages name. One per run; paths are relative to `folder`, the spec's."""

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._known: dict[tuple[str, int, int], tuple[str, str]] = {}
        self.covered: Collection[Path] = ()
        """Files that are rows of the input themselves: what became of them is known from there."""
        self.seen = False
        """Whether any message named a file so far."""
        self.beyond = False
        """Whether one named a file that isn't `covered`: a later run then has to look at all of them again."""

    def attach(self, messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """The messages with every part of ours in OpenAI's form; the same object when there is none. Raises `BadFile`."""
        if not any(type(content := message.get("content")) is list and any(map(_is_ours, content)) for message in messages):
            return messages
        return [
            {
                **message,
                "content": [self._part(part, f"messages[{index}].content[{at}]") if _is_ours(part) else part for at, part in enumerate(content)],
            }
            if type(content := message.get("content")) is list
            else message
            for index, message in enumerate(messages)
        ]

    def _part(self, part: Mapping[str, Any], place: str) -> dict[str, Any]:
        kind = next(name for name in _KINDS if name in part)
        named = part[kind]
        unknown = set(part) - {kind, "detail" if kind == "image" else kind}
        if not isinstance(named, str) or not named.strip():
            raise BadFile(f"{place}.{kind}: must be a path or a URL, got {named!r}"[:300])
        if unknown:
            raise BadFile(f"{place}: `{min(unknown)}` doesn't belong beside `{kind}`")
        named = named.strip()
        if named.lower().startswith(_SCHEMES):
            if kind != "image":
                raise BadFile(f"{place}.{kind}: only images may be URLs; download {named[:80]!r} and give its path")
            return _image(named, part)
        self.seen = True
        path = Path(os.path.abspath(self._folder / Path(named).expanduser()))  # noqa: PTH100 - resolve() would follow links and show another name than the user's
        self.beyond = self.beyond or path not in self.covered
        try:
            mime, digest = self._look(path, named, kind)
        except OSError as error:
            raise BadFile(f"{place}.{kind}: {named}: {error.strerror or error} (paths are relative to the spec's folder)") from None
        except BadFile as problem:
            raise BadFile(f"{place}.{kind}: {problem}") from None
        if kind == "image":
            return _image(Attachment(path, mime, digest), part)
        if kind == "audio":
            return {"type": "input_audio", "input_audio": {"data": Attachment(path, mime, digest, encoded=True), "format": _AUDIO_FORMATS[mime]}}
        if mime == "text/plain":
            # Every wire takes text; hardly one takes a file of it.
            return {"type": "text", "text": path.read_bytes().decode("utf-8-sig")}
        return {"type": "file", "file": {"file_data": Attachment(path, mime, digest), "filename": path.name}}

    def _look(self, path: Path, named: str, kind: _Kind) -> tuple[str, str]:
        """(MIME type, sha256); remembered as long as size and mtime stay."""
        info = path.stat()
        key = (f"{kind}:{path}", info.st_size, info.st_mtime_ns)
        known = self._known.get(key)
        if known is not None:
            return known
        if not path.is_file():
            raise BadFile(f"{named}: is no ordinary file")
        if info.st_size > self._most_bytes:
            raise BadFile(f"{named}: is {info.st_size / 2**20:,.1f} MiB large; at most {self._most_bytes >> 20} MiB can be sent")
        data = path.read_bytes()
        if not data:
            raise BadFile(f"{named}: the file is empty")
        found = mime_of(data)
        if found is None or not _fits(kind, found):
            raise BadFile(f"{named}: {_TAKEN[kind]}, and this is {found or 'something else'}")
        if len(self._known) >= _REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[key] = found, sha256(data).hexdigest()
        return self._known[key]


_TAKEN = {
    "image": "an image is PNG, JPEG, GIF or WebP",
    "audio": "audio is WAV, MP3, FLAC or Ogg",
    "file": "a file is a PDF or a text in UTF-8",
}


def _fits(kind: _Kind, mime: str) -> bool:
    if kind == "file":
        return mime in {"application/pdf", "text/plain"}
    return mime.startswith(f"{kind}/")


def mime_of(data: bytes) -> str | None:
    """What the first bytes say; `text/plain` for UTF-8 without control characters, None for anything else. A name's ending is not looked at: it lies too often."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:6] in {b"GIF87a", b"GIF89a"}:
        return "image/gif"
    if data[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(data[8:12])
    if data.startswith(b"%PDF-"):
        return "application/pdf"
    if data.startswith(b"fLaC"):
        return "audio/flac"
    if data.startswith(b"OggS"):
        return "audio/ogg"
    if data.startswith(b"ID3") or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2):
        return "audio/mpeg"
    try:
        data.decode()
    except UnicodeDecodeError:
        return None
    return None if b"\0" in data else "text/plain"


def _is_ours(part: Any) -> bool:
    return isinstance(part, Mapping) and "type" not in part and any(kind in part for kind in _KINDS)


def is_part(part: Any) -> bool:
    """Whether this is one of our short forms: an object with `image`, `audio` or `file` and no `type`."""
    return _is_ours(part)


def _image(url: str, part: Mapping[str, Any]) -> dict[str, Any]:
    detail = {"detail": part["detail"]} if part.get("detail") is not None else {}
    return {"type": "image_url", "image_url": {"url": url, **detail}}


def attachments(messages: Sequence[Mapping[str, Any]]) -> list[Attachment]:
    """The files of a request's messages, in order."""
    return [
        value
        for message in messages
        if type(content := message.get("content")) is list
        for part in content
        for inner in part.values()
        if type(inner) is dict
        for value in inner.values()
        if type(value) is Attachment
    ]


def loaded(messages: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[tuple[bytes, bytes]]]:
    """(the messages with the files' content, [(base64 of a content, what a kept body shows instead)]). Reads files; ValueError for one that is gone or changed."""
    shown: list[tuple[bytes, bytes]] = []
    return [
        {**message, "content": [_loaded(part, shown) for part in content]} if type(content := message.get("content")) is list else dict(message)
        for message in messages
    ], shown


def _loaded(part: Mapping[str, Any], shown: list[tuple[bytes, bytes]]) -> Mapping[str, Any]:
    if not any(type(inner) is dict and any(type(value) is Attachment for value in inner.values()) for inner in part.values()):
        return part
    return {
        name: {key: _content(value, shown) if type(value) is Attachment else value for key, value in inner.items()} if type(inner) is dict else inner
        for name, inner in part.items()
    }


def _content(attachment: Attachment, shown: list[tuple[bytes, bytes]]) -> str:
    try:
        data = attachment.path.read_bytes()
    except OSError as error:
        raise BadFile(f"{attachment.path.name}: {error.strerror or error}") from None
    if sha256(data).hexdigest() != attachment.digest:
        raise BadFile(f"{attachment.path.name}: the file changed while the job ran; run again")
    encoded = b64encode(data)
    shown.append((encoded, b"sha256=" + attachment.digest.encode()))
    return encoded.decode() if attachment.encoded else f"data:{attachment.mime};base64,{encoded.decode()}"


def without_content(body: bytes, shown: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A request's body with each file's content replaced by its hash, for the store."""
    for content, stand_in in shown:
        body = body.replace(content, stand_in)
    return body
