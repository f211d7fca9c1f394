"""`.env`: what its lines mean, what wins, and that no message shows one."""

from __future__ import annotations

import os

import pytest

from batchllm.core.errors import SpecError
from batchllm.spec.dotenv import environment, parse


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=1\nB = two words \n", {"A": "1", "B": "two words"}),
        ("export A=x\n\n# no\n  B=y # why\nC=a#b", {"A": "x", "B": "y", "C": "a#b"}),
        ('A=\'x # $B "q"\'\nB="a\\nb \\"q\\" \\$"  # c', {"A": 'x # $B "q"', "B": 'a\nb "q" $'}),
        ('A="one\ntwo"\nB=3', {"A": "one\ntwo", "B": "3"}),
        ("A=\nB=''\r\nC=${A}$(id)`id`", {"A": "", "B": "", "C": "${A}$(id)`id`"}),
        ("A=1\nA=2", {"A": "2"}),
        ("A==x=", {"A": "=x="}),
        ("", {}),
    ],
)
def test_lines(text, values):
    assert parse(text) == values


@pytest.mark.parametrize(
    ("text", "lines"),
    [("sk-12345678\n", [1]), ("A=1\n2B=sk-12345678\nC='sk-12345678\n", [2, 3]), ('A="x" sk-12345678', [1]), ("A='x\ny'\nsk-12345678", [3])],
)
def test_bad_lines_are_told_by_number_only(text, lines):
    with pytest.raises(SpecError) as caught:
        parse(text, file="here/.env")
    assert [problem.line for problem in caught.value.problems] == lines
    assert "sk-12345678" not in str(caught.value)


def test_the_real_environment_wins(tmp_path):
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfA=file\nB=file\n")
    found = environment(tmp_path, {"A": "real"})
    assert dict(found) == {"A": "real", "B": "file"}


def test_without_a_file_nothing_changes(tmp_path):
    assert environment(tmp_path, os.environ) is os.environ
    (tmp_path / ".env").mkdir()
    assert environment(tmp_path, os.environ) is os.environ


@pytest.mark.parametrize("content", [b"A=\xff", b"A=" + b"x" * (2 << 20)])
def test_what_is_no_such_file(tmp_path, content):
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SpecError):
        environment(tmp_path, {})
