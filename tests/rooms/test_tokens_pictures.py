"""Pictures by their size, and the vocabularies' addresses."""

from __future__ import annotations

import struct
from hashlib import sha256

import pytest

from batchllm.tokens import counter, vocabulary
from batchllm.tokens.picture import picture_tokens, size_of

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 640, 480)
VP8 = b"RIFF____WEBPVP8 ____" + b"\0" * 6 + struct.pack("<HH", 0x4000 | 640, 480)
VP8L = b"RIFF____WEBPVP8L____\x2f" + struct.pack("<I", 639 | 479 << 14) + b"\0" * 8
VP8X = b"RIFF____WEBPVP8X____" + b"\0" * 4 + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")
JPEG = b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc4\0\x03x\xff\xc2\0\x11\x08" + struct.pack(">HH", 480, 640)


@pytest.mark.parametrize(
    "data", [PNG, b"GIF89a" + struct.pack("<HH", 640, 480), VP8, VP8L, VP8X, JPEG], ids=["png", "gif", "vp8", "vp8l", "vp8x", "jpeg"]
)
def test_sizes(data):
    assert size_of(data) == (640, 480)
    assert all(size_of(data[:end]) in (None, (640, 480)) for end in range(len(data)))


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7", b"\xff\xd8\xff\xd9", b"RIFF____WAVE" + b"\0" * 30])
def test_no_picture(data):
    assert size_of(data) is None


@pytest.mark.parametrize(
    ("provider", "model", "size", "detail", "tokens"),
    [
        ("openai", "gpt-4o", (1024, 1024), "auto", 85 + 4 * 170),
        ("openai", "gpt-4o", (2048, 4096), "auto", 85 + 6 * 170),
        ("openai", "gpt-4o", (4096, 8192), "low", 85),
        ("openai", "gpt-4o", (512, 512), "auto", 85 + 170),
        ("openai", "gpt-6-luna", (320, 320), "auto", 120),
        ("openai", "gpt-6-luna", (32_000, 32_000), "high", 3000),
        ("anthropic", "claude-sonnet-4-6", (1000, 1000), "auto", 1334),
        ("anthropic", "claude-sonnet-4-6", (3136, 3136), "auto", 3279),
        ("anthropic", "claude-opus-4-8", (280, 280), "auto", 100),
        ("gemini", "gemini-3.8-flash", (300, 300), "auto", 258),
        ("gemini", "gemini-3.8-flash", (1000, 700), "auto", 516),
        ("ollama", "gemma4", (1, 1), "auto", 768),
        ("openai-compatible", "who-knows", (10, 10), "auto", None),
        ("openai", "gpt-4o", (0, 10), "auto", None),
    ],
)
def test_tokens_of_a_size(provider, model, size, detail, tokens):
    assert picture_tokens(provider, model, *size, detail=detail) == tokens


def test_a_text_alone_has_no_frame():
    for provider, model in (("anthropic", "claude-x"), ("simulated", "sim-small")):
        alone = counter(provider, model).text("four words are here")
        assert 0 < alone < counter(provider, model).estimate([{"role": "user", "content": "four words are here"}], {})


def test_where_the_vocabularies_are():
    assert [(url.rpartition("/")[2], name) for url, _, name in vocabulary.sources("o200k_base")] == [
        ("o200k_base.tiktoken", "fb374d419588a4632f3f557e76b4b70aebbca790")
    ]
    assert vocabulary.sources("o200k_harmony")[0][2] == vocabulary.sources("o200k_base")[0][2]
    for name in ("gpt2", "nothing"):
        with pytest.raises(KeyError):
            vocabulary.sources(name)


def test_only_the_right_file_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("BATCHLLM_CACHE", str(tmp_path / "cache"))
    right = sha256(b"data").hexdigest()
    with pytest.raises(ValueError, match="sha256"):
        vocabulary.keep(b"dat", expected_hash=right, file_name="f")
    assert not (tmp_path / "cache" / "f").exists()
    assert vocabulary.keep(b"data", expected_hash=right, file_name="f").read_bytes() == b"data"
