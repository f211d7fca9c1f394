"""The prompt, normalised to chat messages; `{file: ...}` is read when the spec is.

Templates stay text here: `rows` compiles them. A `${VAR}` in a prompt is plain text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo

from batchllm.spec.findings import shown
from batchllm.spec.values import Part, Text, wrong

_FILES = ("image", "audio", "file")
Role = Literal["system", "developer", "user", "assistant", "tool"]


class FileText(Part):
    """A text kept in a file of its own."""

    file: Text
    """Path, relative to the spec."""


def _text(value: Any, info: ValidationInfo) -> Any:
    """A text, or the content of `{file: path}`."""
    if isinstance(value, str):
        return value or wrong("must not be empty")
    if isinstance(value, dict) and set(value) == {"file"} and isinstance(value["file"], str):
        return _content_of(value["file"], info)
    return wrong(f"expected text or {{file: PATH}}, got {shown(value)}")


def _content(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, list):
        for part in value:
            if not isinstance(part, dict) or not (isinstance(part.get("type"), str) or ("type" not in part and any(key in part for key in _FILES))):
                wrong(
                    "the parts of a content are objects with a `type`, such as {type: text, text: ...}, or {image: PATH}, {audio: PATH}, {file: PATH}"
                )
            if "type" not in part:
                key = next(name for name in _FILES if name in part)
                if not isinstance(part[key], str) or not part[key] or set(part) - {key, *(("detail",) if key == "image" else ())}:
                    wrong(f"expected {{{key}: PATH}}, got {shown(part)}")
        return value or wrong("must not be empty")
    return _text(value, info)


def _file(value: Any, info: ValidationInfo) -> Any:
    return _content_of(value, info) if isinstance(value, str) else wrong(f"expected a path, got {shown(value)}")


def _content_of(name: str, info: ValidationInfo) -> str:
    folder: Path = (info.context or {}).get("folder") or Path.cwd()
    path = folder / name
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        wrong(f"no such file: {name} (looked for in {folder})")
    except UnicodeDecodeError as error:
        wrong(f"{name} is not UTF-8 (byte {error.start})")
    except OSError as error:
        wrong(f"{name} can't be read: {error.strerror or error}")
    # The same prompt on every system, whatever wrote its line ends.
    return text.replace("\r\n", "\n") or wrong(f"{name} is empty")


TextOrFile = Annotated[str, BeforeValidator(_text, json_schema_input_type=Text | FileText)]
_Part = dict[str, Any]


class PromptMessage(Part):
    """One message of a chat."""

    role: Role
    """Who speaks."""
    content: Annotated[str | list[_Part], BeforeValidator(_content, json_schema_input_type=Text | FileText | list[_Part])]
    """A template, `{file: PATH}`, or a list of parts: OpenAI's (text, image_url, ...), `{image: PATH}`, `{audio: PATH}`, `{file: PATH}` (relative to the spec)."""


class PromptSpec(Part):
    """The prompt, filled in for every row. `messages` holds it in one form, however it was written."""

    system: TextOrFile | None = None
    """The system message."""
    user: TextOrFile | None = None
    """The user message; Jinja syntax, row fields are variables: `Summarise: {{ text }}`."""
    file_text: Annotated[str, BeforeValidator(_file)] | None = Field(default=None, alias="file")
    """Path of a file that holds the user message, relative to the spec."""
    written: tuple[PromptMessage, ...] | None = Field(default=None, alias="messages", min_length=1)
    """The messages in order, instead of `system` and `user`."""

    @property
    def messages(self) -> tuple[PromptMessage, ...]:
        """The prompt as chat messages."""
        if self.written is not None:
            return self.written
        user = self.user if self.user is not None else self.file_text
        texts: list[tuple[Role, str | None]] = [("system", self.system), ("user", user)]
        return tuple(PromptMessage(role=role, content=text) for role, text in texts if text is not None)


def _prompt(value: Any) -> Any:
    return {"user": value} if isinstance(value, str) else value


Prompt = Annotated[PromptSpec, BeforeValidator(_prompt, json_schema_input_type=Text | PromptSpec)]
