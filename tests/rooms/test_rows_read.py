"""Files to rows: every line takes its place, a bad one fails alone and says where and how to mend it, and what concerns a whole file stops early."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchllm.core.errors import SpecError
from batchllm.core.nouns import Code, Row
from batchllm.rows import first
from batchllm.rows.files import resolve
from batchllm.rows.read import from_records, read, read_stream

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def rows_of(*paths: Path, **options: Any) -> list[Row]:
    return [row for chunk in read(resolve([str(path) for path in paths]), **options) for row in chunk]


def problem(row: Row) -> str:
    assert row.error is not None
    assert row.error.code is Code.BAD_ROW
    assert row.custom_id is None
    assert row.error.message.startswith(row.place)
    return row.error.message


# ---- which files


def test_globs_are_sorted_patterns_keep_their_order_and_a_file_is_read_once(make: Make, tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "z.csv", "x[1].jsonl"):
        make(name, "{}")
    found = resolve([f"{tmp_path}/z.csv", f"{tmp_path}/**/*.jsonl", f"{tmp_path}/a.jsonl"], base=tmp_path)
    assert [file.name for file in found] == ["z.csv", "a.jsonl", "b.jsonl", "deep/c.jsonl", "x[1].jsonl"]
    assert [file.format for file in found] == ["csv", *["jsonl"] * 4]
    assert resolve([f"{tmp_path}/x[1].jsonl"])[0].size == 2
    assert found[0].mtime_ns == (tmp_path / "z.csv").stat().st_mtime_ns


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.jsonl", "doesn't exist"),
        ("*.nothing", "no file matches"),
        ("folder.jsonl", "is a folder"),
        ("empty.jsonl", "is empty"),
        ("data.parquet.gz", "compressed inside"),
        ("data.json", "one object per line"),
        ("data.txt", "extension .txt"),
        ("data", "extension (none)"),
        ("pipe.jsonl", "--input -"),
    ],
)
def test_a_name_that_is_no_input_is_told(make: Make, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    make("empty.jsonl", "")
    for other in ("data.parquet.gz", "data.json", "data.txt", "data"):
        make(other, "x")
    with pytest.raises(SpecError, match="doesn't exist") as caught:
        resolve([f"{tmp_path}/{name}", f"{tmp_path}/other.jsonl"])
    assert words in str(caught.value.problems[0])
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("name", "content", "empty"),
    [
        ("a.jsonl", "\n  \n\t\n", True),
        ("a.jsonl", "\n{\n", False),
        ("a.csv", "a,b\n\n", True),
        ("a.csv", "\n", True),
        ("a.csv", "a,b\n1\n", False),
        ("a.jsonl", b"\xef\xbb\xbf", True),
    ],
)
def test_empty_means_no_row_at_all(make: Make, name: str, content: str | bytes, empty: bool) -> None:
    assert first.is_empty(resolve([str(make(name, content))])[0]) is empty


# ---- JSONL


def test_positions_places_and_blank_lines_over_files(make: Make) -> None:
    one = make("1.jsonl", '{"custom_id": "a"}\r\n\n   \nnot json\n{"custom_id": 7}')
    two = make("2.jsonl", '{"custom_id": "b"}\n')
    rows = rows_of(one, two)
    assert [(row.position, row.custom_id, row.place.rpartition("/")[2]) for row in rows] == [
        (0, "a", "1.jsonl:1"),
        (1, None, "1.jsonl:4"),
        (2, "7", "1.jsonl:5"),
        (3, "b", "2.jsonl:1"),
    ]
    assert [row.identity.partition(":")[0] for row in rows] == ["id", "bad", "id", "id"]
    assert rows[2].identity == "id:7"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"nonsense", ["not JSON", "column"]),
        (b'{"a": 1', ["cut off"]),
        (b'{"a": "\xff"}', ["not UTF-8 at byte 7"]),
        (b"[1, 2]", ["is a list, not an object"]),
        (b'"text"', ["is a string"]),
        (b"null", ["is null"]),
        (b"17", ["is a number"]),
        ('{"é": "é", "a": NaN}'.encode(), ["write null"]),
        (b'{"a": -Infinity}', ["write null"]),
        (b'{"a": "\\ud800"}', ["not JSON"]),
        (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", ["nested deeper"]),
        (b'{"a":' + b"[" * 5000, ["not JSON"]),
        (b'{"a": "\0"}', ["not JSON"]),
        (b'{"a": "' + b"x" * 5000 + b'"}', ["more than a row may have"]),
    ],
)
def test_a_bad_line_fails_alone(make: Make, line: bytes, words: list[str]) -> None:
    rows = rows_of(make("in.jsonl", b'{"a": 1}\n' + line + b'\n{"a": 2}\n'), line_bytes=4000 if b"xxxx" in line else 1 << 20)
    assert [row.fields for row in rows] == [{"a": 1}, {}, {"a": 2}]
    assert rows[1].identity.startswith("bad:")
    for word in words:
        assert word in problem(rows[1])


@pytest.mark.parametrize("size", [255, 256, 257, 600])
def test_lines_are_whole_over_block_borders(make: Make, size: int) -> None:
    texts = [chr(97 + index % 26) * (size * 1024 - 12) for index in range(3)]
    rows = rows_of(make("in.jsonl", "\n".join(f'{{"x": "{text}"}}' for text in texts)))
    assert [row.fields["x"] for row in rows] == texts


def test_a_line_above_the_cap_is_never_kept(make: Make) -> None:
    import tracemalloc

    path = make("in.jsonl.gz", gzip.compress(b"x" * (40 << 20) + b'\n{"a": 1}'))
    tracemalloc.start()
    try:
        rows = rows_of(path, line_bytes=1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "41,943,040 bytes" in problem(rows[0])
    assert rows[1].fields == {"a": 1}
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"custom_id": 1.5}', "1.5; an id is a string or an integer"),
        ('{"custom_id": true}', "true; an id"),
        ('{"custom_id": null}', "is null"),
        ('{"custom_id": ""}', "is empty"),
        ('{"custom_id": ["x"]}', '["x"]; an id'),
        ('{"custom_id": 123456789012345678901234567890}', "too large to be kept exactly"),
        ('{"other": 1}', "is missing"),
    ],
)
def test_a_bad_id_is_a_bad_row(make: Make, line: str, words: str) -> None:
    rows = rows_of(make("in.jsonl", f'{{"custom_id": "a"}}\n{line}\n'))
    assert words in problem(rows[1])
    assert rows[1].identity.startswith("bad:")


def test_an_integer_id_is_decimal_up_to_64_bits(make: Make) -> None:
    rows = rows_of(make("in.jsonl", '{"custom_id": -5}\n{"custom_id": 18446744073709551615}\n'))
    assert [row.custom_id for row in rows] == ["-5", "18446744073709551615"]


def test_the_first_readable_row_decides_about_ids(make: Make) -> None:
    numbered = rows_of(make("a.jsonl", 'bad\n{"x": 1.0, "y": 2}\n{"custom_id": "a"}\n{"y": 2, "x": 1}\n'))
    assert [row.custom_id for row in numbered] == [None] * 4
    assert numbered[1].identity == numbered[3].identity != numbered[2].identity
    assert numbered[1].identity.startswith("content:")
    named = rows_of(make("b.jsonl", 'bad\n{"custom_id": "a"}\n{"x": 1}\n'))
    assert [row.custom_id for row in named] == [None, "a", None]
    assert rows_of(make("c.jsonl", '{"k": "a", "custom_id": "b"}'), id_column="k")[0].custom_id == "a"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_byte_order_mark_is_dropped_in_every_packing(make: Make, suffix: str) -> None:
    rows = rows_of(make(f"in.jsonl{suffix}", _packed(b'\xef\xbb\xbf{"a": 1}\n{"a": 2}', suffix)))
    assert [row.fields for row in rows] == [{"a": 1}, {"a": 2}]


def _packed(content: bytes, suffix: str) -> bytes:
    if suffix == ".zst":
        try:
            from compression import zstd
        except ImportError:
            from backports import zstd
        return zstd.compress(content)
    return gzip.compress(content) if suffix else content


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_file_that_is_cut_short_gives_its_rows_and_then_says_so(make: Make, suffix: str) -> None:
    content = b"".join(b'{"a": %d, "noise": "%s"}\n' % (number, os.urandom(40).hex().encode()) for number in range(20_000))
    path = make(f"in.jsonl{suffix}", _packed(content, suffix)[:-20_000])
    rows: list[Row] = []

    def collect() -> None:
        for chunk in read(resolve([str(path)])):
            rows.extend(chunk)

    with pytest.raises(SpecError, match="cut short") as caught:
        collect()
    assert len(rows) > 10_000
    assert [row.fields["a"] for row in rows] == list(range(len(rows)))
    assert caught.value.problems[0].line == len(rows) + 1


def test_utf16_is_told_once(make: Make) -> None:
    with pytest.raises(SpecError, match="UTF-16"):
        rows_of(make("in.jsonl", '{"a": 1}\n'.encode("utf-16")))


def test_the_first_chunk_is_small_and_the_rest_is_even(make: Make) -> None:
    path = make("in.jsonl", "{}\n" * 1100)
    assert [len(chunk) for chunk in read(resolve([str(path)]))] == [20, 500, 500, 80]


def test_a_stream_gives_what_has_arrived() -> None:
    class Pipe(io.RawIOBase):
        parts: Iterator[bytes] = iter([b'{"custom_id": "a"}\n{"cust', b'om_id": "b"}\n\n', b"bad"])

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            part = next(self.parts, b"")
            buffer[: len(part)] = part
            return len(part)

    chunks = list(read_stream(io.BufferedReader(Pipe())))
    assert [[row.custom_id for row in chunk] for chunk in chunks] == [["a"], ["b"], [None]]
    assert chunks[2][0].place == "stdin:4"
    assert list(read_stream(io.BytesIO(b""))) == []


def test_records_of_a_program_are_json_or_bad_rows() -> None:
    records = [{"a": float("nan"), "b": (1, 2)}, "text", {"a": {1, 2}}, {1: 2}, {"a": 2**70}]
    rows = [row for chunk in from_records(records) for row in chunk]
    assert rows[0].fields == {"a": None, "b": [1, 2]}
    for row in rows[1:]:
        assert "no dict of JSON values" in problem(row)
    assert [row.position for row in rows] == [0, 1, 2, 3, 4]
    assert next(from_records([{"custom_id": "x"}]))[0].custom_id == "x"


# ---- CSV


def test_cells_are_text_unless_types_say_otherwise(make: Make) -> None:
    path = make("in.csv", '\ufeffid,n,i,b,j,t\r\n007,1.5,3,Yes,"{""x"": [1]}",x\r\n"1\r\n2",,,,,\r\n')
    plain = rows_of(path)
    assert plain[0].fields == {"id": "007", "n": "1.5", "i": "3", "b": "Yes", "j": '{"x": [1]}', "t": "x"}
    typed = rows_of(path, id_column="id", types={"id": "integer", "n": "number", "i": "integer", "b": "boolean", "j": "json", "t": "text"})
    assert typed[0].fields == {"id": 7, "n": 1.5, "i": 3, "b": True, "j": {"x": [1]}, "t": "x"}
    # The id is the cell verbatim, whatever its type.
    assert typed[0].custom_id == "007"
    typed = rows_of(path, id_column="id", types={"n": "number", "b": "boolean", "j": "json"})
    assert typed[1].fields == {"id": "1\r\n2", "n": None, "i": "", "b": None, "j": None, "t": ""}


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        ("number", "1,5"),
        ("number", "nan"),
        ("number", "1e999"),
        ("number", "1_000"),
        ("integer", "1.0"),
        ("integer", "9" * 30),
        ("boolean", "maybe"),
        ("json", "{a}"),
    ],
)
def test_a_cell_of_another_type_is_a_bad_row_that_names_column_and_value(make: Make, kind: str, cell: str) -> None:
    rows = rows_of(make("in.csv", f'x;y\n"{cell}";1\n;2\n'), types={"x": kind}, delimiter=";")
    assert f"column 'x' holds {cell!r}" in problem(rows[0])
    assert rows[1].fields == {"x": None, "y": "2"}


@pytest.mark.parametrize(
    ("content", "words", "line"),
    [
        (b"a,b\n1,2\n1,2,3\n3,4\n", "has 3 cells, the header has 2", 3),
        (b"a,b\n1,2\n1\n3,4\n", "has 1 cells", 3),
        (b"a,b\n1,2\nx\0y,2\n3,4\n", "NUL", 3),
        (b"a,b\n1,2\n\xff,2\n3,4\n", "not utf-8 at byte 0", 3),
        (b'a,b\n1,2\n"x" y,2\n3,4\n', "quote is missing or not doubled", 3),
        # An open quote would swallow the rest of the file.
        (b'a,b\n1,2\n"x,2\n3,4\n', "quote is missing", 3),
        (b"a,b\n1,2\n" + b"x" * 3000 + b",1\n3,4\n", "3,002 bytes", 3),
        (b"a,b\r\n1,2\r\n\r\nx\ry,2\r\n3,4", "no CSV record", 4),
    ],
)
def test_a_malformed_record_fails_alone(make: Make, content: bytes, words: str, line: int) -> None:
    rows = rows_of(make("in.csv", content), line_bytes=2000)
    assert words in problem(rows[1])
    assert rows[1].place.endswith(f":{line}")
    assert [row.fields for row in rows] == [{"a": "1", "b": "2"}, {}, {"a": "3", "b": "4"}]
    assert [row.position for row in rows] == [0, 1, 2]


def test_a_missing_quote_does_not_take_the_neighbours(make: Make) -> None:
    rows = rows_of(make("in.csv", 'a,b\n1,"x\n2,"y"\n3,"two\nlines"\n'))
    assert [(row.place.rpartition(":")[2], row.fields) for row in rows] == [
        ("2", {}),
        ("3", {"a": "2", "b": "y"}),
        ("4", {"a": "3", "b": "two\nlines"}),
    ]


@pytest.mark.parametrize(
    ("content", "encoding", "expected"),
    [
        ("a\nö\n".encode("cp1252"), "cp1252", "ö"),
        ("a\nö\n".encode("utf-16"), "utf-16", "ö"),
        ("a\n日本\n".encode("shift_jis"), "shift_jis", "日本"),
        ("\ufeffa\nö\n".encode(), "utf-8", "ö"),
        ("\ufeffa\nö\n".encode(), "utf-8-sig", "ö"),
    ],
)
def test_encodings(make: Make, content: bytes, encoding: str, expected: str) -> None:
    assert rows_of(make("in.csv", content), encoding=encoding)[0].fields == {"a": expected}


def test_a_tsv_has_tabs_and_a_huge_cell_is_fine(make: Make) -> None:
    assert rows_of(make("in.tsv.csv", "a,b\n1,2\n"))[0].fields == {"a": "1", "b": "2"}
    assert rows_of(make("in.TSV.gz", gzip.compress(b"a\tb\n1\t2\n")))[0].fields == {"a": "1", "b": "2"}
    rows = rows_of(make("in.tsv", "a\tb\n1,5\t" + "x" * 300_000 + "\n"))
    assert rows[0].fields == {"a": "1,5", "b": "x" * 300_000}


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"a,b,a\n1,2,3\n", {}, "'a' more than once"),
        (b"a,\xff\n1,2\n", {}, "the header is not utf-8"),
        (b'"a,b\n1,2\n', {}, "header can't be read"),
        ("a\n1\n".encode("utf-16"), {}, "UTF-16"),
        (b"\xff\xfea\0\n\0\xd8", {"encoding": "utf-16"}, "is not in the encoding"),
        (b"a\n1\n", {"encoding": "klingon"}, "no known encoding"),
        (b"a\n1\n", {"delimiter": "||"}, "one character"),
        (b"stars\n1\n", {"types": {"star": "number"}}, "did you mean 'stars'"),
        (b"stars\n1\n", {"types": {"stars": "numeric"}}, "choose one of text, number"),
    ],
)
def test_what_concerns_the_whole_file_is_a_spec_error(make: Make, content: bytes, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        rows_of(make("in.csv", content), **options)
    assert words in str(caught.value)


def test_csv_options_without_a_csv_file_are_refused(make: Make) -> None:
    with pytest.raises(SpecError, match="are for CSV"):
        read(resolve([str(make("in.jsonl", "{}"))]), types={"a": "number"})


# ---- the first rows


def test_first_rows_skip_what_cannot_be_read_and_check_the_id(make: Make) -> None:
    files = resolve([str(make("in.jsonl", "bad\n" * 30 + '{"review_id": 1}\n' * 30))])
    rows = first.readable(files, id_column="review_idd")
    assert [row.position for row in rows] == list(range(30, 50))
    message = first.id_problem(rows, "review_idd")
    assert message is not None
    assert "did you mean 'review_id'" in message
    assert first.id_problem(rows, "review_id") is None
    assert first.id_problem([], "x") is None


def test_real_questions_are_read_and_matched_by_content(real_data: Path) -> None:
    rows = rows_of(real_data / "gsm8k_test.jsonl")
    assert len(rows) == len({row.identity for row in rows}) == 1319
    assert all(row.error is None and row.custom_id is None for row in rows)
