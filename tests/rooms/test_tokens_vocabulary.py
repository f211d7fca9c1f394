"""Vocabulary files: found, verified, copied; never downloaded, deleted or trusted unread."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1, sha256
from types import ModuleType, SimpleNamespace

import pytest
import tiktoken.load

from batchllm.tokens import counter, vocabulary

URL = "https://vocabulary.example/small.tiktoken"
NAME = sha1(URL.encode()).hexdigest()
TOKENS = [bytes([byte]) for byte in range(256)] + [b"he", b"ll", b"hell", b"hello", b" w", b"or", b" wor", b"ld", b" world"]
FILE = b"".join(b64encode(token) + b" " + str(rank).encode() + b"\n" for rank, token in enumerate(TOKENS))

# As tiktoken defines its encodings; run by us with our reader in the loader's place.
DEFINITIONS = f"""
from tiktoken.load import load_tiktoken_bpe, data_gym_to_mergeable_bpe_ranks

def o200k_base():
    ranks = load_tiktoken_bpe({URL!r}, expected_hash={sha256(FILE).hexdigest()!r})
    return {{"name": "o200k_base", "pat_str": r" ?\\w+|.", "mergeable_ranks": ranks, "special_tokens": {{"<|endoftext|>": 300}}}}

def o200k_harmony():
    return {{**o200k_base(), "name": "o200k_harmony"}}

def unverified():
    return {{"mergeable_ranks": load_tiktoken_bpe({URL!r})}}

def gpt2():
    return {{"mergeable_ranks": data_gym_to_mergeable_bpe_ranks(vocab_bpe_file={URL!r}, encoder_json_file={URL!r})}}

ENCODING_CONSTRUCTORS = {{"o200k_base": o200k_base, "o200k_harmony": o200k_harmony, "unverified": unverified, "gpt2": gpt2}}
"""


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """An empty home, small encodings under tiktoken's names, and a network that fails the test."""

    def never(blobpath):
        raise AssertionError(f"tiktoken's own loader was asked for {blobpath}")

    module = ModuleType("openai_public")
    exec(DEFINITIONS, vars(module))
    monkeypatch.setattr(vocabulary, "import_module", {"tiktoken_ext.openai_public": module}.__getitem__)
    monkeypatch.setattr(vocabulary, "find_spec", lambda name: None)
    monkeypatch.setattr(tiktoken.load, "read_file", never)
    monkeypatch.setenv("BATCHLLM_CACHE", str(tmp_path / "own"))
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    vocabulary._load.cache_clear()
    yield tmp_path
    vocabulary._load.cache_clear()


def put(folder, content=FILE):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(content)
    return folder


def in_package(monkeypatch, folder):
    put(folder / "core/_static/tiktoken_cache")
    monkeypatch.setattr(
        vocabulary, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(folder)]) if name == "llama_index" else None
    )


def test_nothing_there_is_none(home):
    assert [vocabulary.load(name) for name in ("o200k_base", "gpt2", "no_such_encoding")] == [None] * 3
    assert not (home / "own").exists()


def test_own_cache(home):
    put(home / "own")
    encoding = vocabulary.load("o200k_base")
    assert encoding.encode_ordinary("hello world") == [TOKENS.index(b"hello"), TOKENS.index(b" world")]
    assert vocabulary.load("o200k_base") is encoding
    assert vocabulary.load("o200k_harmony").name == "o200k_harmony"


def test_search_replaces_the_usual_places(home):
    put(home / "own")
    assert vocabulary.load("o200k_base", search=[home / "empty"]) is None
    assert vocabulary.load("o200k_base", search=[home / "empty", home / "own"]) is not None


def test_a_file_without_a_known_hash_is_not_read(home):
    put(home / "own")
    assert vocabulary.load("unverified") is None


def test_a_wrong_file_is_passed_over_and_left_alone(home, monkeypatch):
    """tiktoken itself would delete it and download."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(put(home / "theirs", FILE[:-1])))
    assert vocabulary.load("o200k_base") is None
    vocabulary._load.cache_clear()
    put(home / "own")
    assert vocabulary.load("o200k_base") is not None
    assert (home / "theirs" / NAME).read_bytes() == FILE[:-1]


def test_a_packages_file_is_copied_first(home, monkeypatch):
    in_package(monkeypatch, home / "package")
    assert vocabulary.load("o200k_base") is not None
    assert [path.name for path in (home / "own").iterdir()] == [NAME]
    assert (home / "own" / NAME).read_bytes() == FILE
    assert (home / "package/core/_static/tiktoken_cache" / NAME).exists()


def test_the_users_folder_is_not_written_to(home, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(put(home / "theirs")))
    assert vocabulary.load("o200k_base") is not None
    assert [path.name for path in (home / "theirs").iterdir()] == [NAME]
    assert not (home / "own").exists()


def test_a_cache_that_cannot_be_written_is_no_failure(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("BATCHLLM_CACHE", str(home / "file"))
    in_package(monkeypatch, home / "package")
    assert vocabulary.load("o200k_base") is not None


HELLO = [{"role": "user", "content": "hello world<|endoftext|>"}]
PIECES = 2 + len("<|endoftext|>")


@pytest.mark.parametrize(
    ("provider", "model_id", "base_url", "exact"),
    [
        ("openai", "gpt-4o", None, True),
        ("openai", "gpt-5-mini", "https://api.openai.com/v1", True),
        ("openai", "ft:gpt-4o-2024-08-06:acme", None, True),
        # Not the documented tokenizer of this very model: good to pace by, worthless as a bound.
        ("openai", "gpt-6-luna", None, False),
        ("openai", "gpt-4o", "http://127.0.0.1:8000/v1", False),
        ("openai-compatible", "gpt-4o", "https://proxy.example/v1", False),
    ],
)
def test_only_the_models_own_tokenizer_bounds(home, provider, model_id, base_url, exact):
    put(home / "own")
    chosen = counter(provider, model_id, base_url=base_url)
    about, most = chosen.both(HELLO, {})
    assert (chosen.name, chosen.exact) == ("o200k_base", exact)
    assert about == 3 + 4 + PIECES
    # Special tokens in a prompt are text, as the provider takes them.
    if exact:
        assert most == 32 + 8 + 4 + PIECES
    else:
        assert most >= len(HELLO[0]["content"]) + 32
    assert chosen.bound(HELLO, {}) == most


@pytest.mark.parametrize("model_id", ["claude-sonnet-5-5", "llama3.2", "Qwen/Qwen3-8B"])
def test_foreign_models_are_estimated(home, model_id):
    put(home / "own")
    assert counter("openai-compatible", model_id).name == "estimate"
