"""`input: {files: ...}`: each file is one row, with its path, its name and, where it is text, its content.

The trap: the path is the row's id, so it must not depend on where the command was typed; it is the name that `files` shows, relative to the spec.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from batchllm.core.nouns import Row
from batchllm.rows.files import InputFile
from batchllm.rows.media import MOST_BYTES, mime_of
from batchllm.rows.records import Records

ID_OF_FILES = "path"
"""The column that ids are read from, unless the spec names another one."""
_HEAD_BYTES = 4096


def file_row(file: InputFile, records: Records) -> Row:
    """The row of a file: `path`, `name`, `stem`, and `text` when it is UTF-8 and not too large to be sent."""
    fields: dict[str, Any] = {"path": file.name, "name": file.path.name, "stem": file.path.stem}
    try:
        text = _text(file)
    except OSError as error:
        return records.unreadable(
            sha256(file.name.encode(errors="replace")).hexdigest()[:32], place=file.name, problem=f"can't be read: {error.strerror or error}"
        )
    if text is not None:
        fields["text"] = text
    return records.readable(fields, place=file.name)


def _text(file: InputFile) -> str | None:
    if file.size > MOST_BYTES:
        return None
    with file.path.open("rb") as stream:
        data = stream.read(_HEAD_BYTES)
        if mime_of(data) not in {"text/plain", None}:
            return None
        data += stream.read()
    if mime_of(data) != "text/plain":
        return None
    return data.decode("utf-8-sig")
