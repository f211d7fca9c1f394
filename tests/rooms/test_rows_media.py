"""Files behind content parts, and files as rows: what is read, what it becomes, and that everything wrong with one is told on its own row."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from batchllm.core.nouns import Code, Draft, Request, Row, RowError
from batchllm.rows import files, media, read
from batchllm.rows.draft import Drafter
from batchllm.rows.request import fingerprint

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt "


def drafted(folder, part, fields=None, **prompt):
    drafter = Drafter(messages=[("user", [part])] if "messages" not in prompt else None, models={"m": "m"}, folder=folder)
    return drafter.draft(Row(position=0, custom_id="a", identity="id:a", fields=fields or {"path": "a.png"}, place="in.jsonl:7"))


def request_of(draft):
    assert isinstance(draft, Draft), draft
    return Request(endpoint="chat", messages=draft.messages, params={})


@pytest.mark.parametrize(
    ("part", "data", "becomes"),
    [
        ({"image": "{{ path }}"}, PNG, {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}),
        (
            {"image": "{{ path }}", "detail": "low"},
            b"\xff\xd8\xff\xe0x",
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,", "detail": "low"}},
        ),
        ({"audio": "{{ path }}"}, WAV, {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}),
        ({"file": "{{ path }}"}, b"%PDF-1.7", {"type": "file", "file": {"file_data": "data:application/pdf;base64,", "filename": "a.png"}}),
        ({"file": "{{ path }}"}, "\ufeffgrüße".encode(), {"type": "text", "text": "grüße"}),
    ],
)
def test_a_part_becomes_openais(tmp_path, part, data, becomes):
    (tmp_path / "a.png").write_bytes(data)
    request = request_of(drafted(tmp_path, part))
    messages, shown = media.loaded(request.messages)
    (made,) = messages[0]["content"]
    text = base64.b64encode(data).decode()
    filled = {
        name: {
            key: value + text if value in {"", "data:image/png;base64,", "data:image/jpeg;base64,", "data:application/pdf;base64,"} else value
            for key, value in inner.items()
        }
        if isinstance(inner, dict)
        else inner
        for name, inner in becomes.items()
    }
    assert made == filled
    # Until it leaves, the request holds no content, and what the store keeps of it neither.
    assert text not in str(request.messages)
    assert [stand_in[:7] for _, stand_in in shown] == ([b"sha256="] if becomes["type"] != "text" else [])


def test_the_fingerprint_knows_the_content_and_not_the_path(tmp_path):
    for name, data in {"a.png": PNG, "b.png": PNG, "c.png": PNG + b"x"}.items():
        (tmp_path / name).write_bytes(data)
    of = {name: fingerprint(request_of(drafted(tmp_path, {"image": name}))) for name in ("a.png", "b.png", "c.png")}
    assert of["a.png"] == of["b.png"] != of["c.png"]
    # Held by its value: another form would pay for every picture again.
    assert of["a.png"] == FIXED


FIXED = "v1:738039922615a9019cd400f920d393c9f6565cdf24ee19eb170de120543a8b06"


@pytest.mark.parametrize(
    ("part", "data", "words"),
    [
        ({"image": "nope.png"}, PNG, "nope.png: No such file"),
        ({"image": "a.png"}, b"", "empty"),
        ({"image": "a.png"}, b"GIF8", "an image is PNG, JPEG, GIF or WebP, and this is text/plain"),
        ({"image": "a.png"}, b"%PDF-1", "and this is application/pdf"),
        ({"audio": "a.png"}, PNG, "audio is WAV"),
        ({"file": "a.png"}, b"\x00\x01\xff", "and this is something else"),
        ({"image": "."}, PNG, "no ordinary file"),
        ({"audio": "https://x.example/a.wav"}, PNG, "only images may be URLs"),
    ],
)
def test_a_bad_file_fails_its_row(tmp_path, part, data, words):
    (tmp_path / "a.png").write_bytes(data)
    error = drafted(tmp_path, part)
    assert isinstance(error, RowError)
    assert error.code is Code.BAD_ROW
    assert error.message.startswith("in.jsonl:7: messages[0].content[0].")
    assert words in error.message


def test_a_file_of_fifty_megabytes_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.write(PNG)
        file.truncate(50 << 20)
    error = drafted(tmp_path, {"image": "a.png"})
    assert isinstance(error, RowError)
    assert "is 50.0 MiB large; at most 20 MiB" in error.message


def test_a_url_stays_one(tmp_path):
    request = request_of(drafted(tmp_path, {"image": "https://x.example/a.png"}))
    assert request.messages[0]["content"] == [{"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}]
    assert media.attachments(request.messages) == []


def test_a_file_that_changes_under_way_is_not_sent(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    request = request_of(drafted(tmp_path, {"image": "a.png"}))
    (tmp_path / "a.png").write_bytes(PNG + b"x")
    with pytest.raises(ValueError, match="changed while the job ran"):
        media.loaded(request.messages)


def test_rows_bring_their_own_parts(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    fields = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"image": "a.png"}]}]}
    drafter = Drafter(messages=None, models={"m": "m"}, folder=tmp_path)
    draft = drafter.draft(Row(position=0, custom_id="a", identity="id:a", fields=fields, place="p"))
    assert isinstance(draft, Draft)
    assert [part["type"] for part in draft.messages[0]["content"]] == ["text", "image_url"]
    assert drafter.attaches
    assert media.without_content(b'{"x": "QUJD"}', [(b"QUJD", b"sha256=1")]) == b'{"x": "sha256=1"}'


def test_each_file_is_a_row(tmp_path):
    (tmp_path / "in").mkdir()
    for name, data in {"b.txt": b"two", "a.jpg": b"\xff\xd8\xff", "in/c.md": "drei ß".encode(), "empty.txt": b""}.items():
        (tmp_path / name).write_bytes(data)
    found = files.resolve([f"{tmp_path}/**/*.*"], base=tmp_path, whole=True)
    rows = [row for chunk in read.read(found) for row in chunk]
    assert [(row.custom_id, row.fields.get("text")) for row in rows] == [("a.jpg", None), ("b.txt", "two"), ("empty.txt", ""), ("in/c.md", "drei ß")]
    assert rows[3].fields == {"path": "in/c.md", "name": "c.md", "stem": "c", "text": "drei ß"}
    gone = replace(found[1], path=tmp_path / "gone")
    (row,) = next(read.read((gone,)))
    assert row.error is not None
    assert "can't be read" in row.error.message
