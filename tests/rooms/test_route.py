"""Rules: what an expression means, what it refuses, and that a failure names its column and mend."""

from __future__ import annotations

from typing import Any

import pytest

from batchllm.core.errors import SpecError
from batchllm.core.nouns import Code, RowError
from batchllm.route import Router

ROW: dict[str, Any] = {
    "lang": "fr",
    "stars": "5",
    "score": 4,
    "ratio": 0.5,
    "flag": True,
    "blank": None,
    "tags": ["a", "b"],
    "meta": {"lang": "de", "deep": {"x": 1}, "size": "7"},
    "Review Text": "Très bon",
    "tokens": 7,
    "row": "own",
}


def matches(when: str, row: dict[str, Any] | None = None, tokens: int = 100) -> bool | RowError:
    chosen = Router([(when, ("yes",)), (None, ("no",))]).choose(ROW if row is None else row, tokens, "k")
    return chosen if isinstance(chosen, RowError) else chosen.chain == ("yes",)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("tokens > 8000 or row.lang == 'fr'", True),
        ("tokens > 8000 or row.lang == 'en'", False),
        ("tokens > 99", True),
        ("tokens > 100", False),
        ("row.tokens == 7", True),
        ("row.row == 'own'", True),
        ("row['Review Text'] == \"Tr\u00e8s bon\"", True),
        ("lang == 'fr' and not score < 4", True),
        ("not lang == 'fr'", False),
        ("not not lang", True),
        # A missing name and a null are the same, and never an error.
        ("nope == 'fr'", False),
        ("nope != 'fr'", True),
        ("nope > 3 or nope < 3 or blank >= 0", False),
        ("nope == null and row.blank is none", True),
        ("nope + 1 > 0", False),
        ("nope.a.b == 1", False),
        ("nope in ['a'] or 'a' in nope", False),
        ("nope not in ['a']", True),
        ("null in [null, 1]", True),
        ("nope | lower == 'x'", False),
        ("row.get == null", True),
        # `is`
        ("blank is defined and row.blank is defined and nope is undefined and meta.nope is not defined", True),
        ("score is number and lang is string and flag is boolean and tags is sequence and meta is mapping", True),
        ("lang is not none", True),
        ("flag is true and flag is not false", True),
        # Paths
        ("meta.lang == 'de' and meta['deep'].x == 1 and tags[0] == 'a' and tags[-1] == 'b' and tags[5] is none", True),
        ("row.meta.deep.x == 1", True),
        ("meta[lang] is none", True),
        # Precedence, chains, arithmetic
        ("1 + 2 * 3 == 7 and (1 + 2) * 3 == 9", True),
        ("7 // 2 == 3 and 7 % 2 == 1 and 7 / 2 == 3.5 and -3 < 0 and 1e3 == 1000", True),
        ("1 < score < 5", True),
        ("1 < score < 4", False),
        ("true or false and false", True),
        ("score == 4.0", True),
        ("'a' ~ score ~ blank == 'a4'", True),
        ("true if lang == 'fr' else false", True),
        ("(false if lang == 'fr' else true) or false", False),
        # Filters bind tighter than comparison, methods tighter than both
        ("lang | upper == 'FR'", True),
        ("lang.upper() == 'FR' and lang.startswith('f') and not lang.endswith('x')", True),
        ("tags | length > 1 and 'ab' | length == 2", True),
        ("stars | int >= 5 and stars | float == 5", True),
        ("lang | int > 0 or lang | int < 1", False),
        ("nope | default('fr') == lang", True),
        ("'' | default('x', true) == 'x'", True),
        ("' a '|trim == 'a'", True),
        ("-3|abs == 3", True),
        # Membership
        ("lang in ['de', 'fr'] and lang in ('fr',) and 'r' in lang and 'lang' in meta", True),
        ("lang not in ['de', 'fr']", False),
        ("'a' in tags", True),
        (r"'it\'s' == " + '"it\'s"', True),
    ],
)
def test_meaning(when: str, expected: bool) -> None:
    assert matches(when) is expected


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("stars > 3", ["`stars > 3`", "'stars'", "types", "number"]),
        ("stars == 5", ["'stars'", "types"]),
        ("3 != row.stars", ["'stars'", "types"]),
        ("stars in [4, 5]", ["'stars'", "types"]),
        ("row['Review Text'] < 1", ["'Review Text'"]),
        ("stars + 1 > 3", ["`stars + 1`", "'stars'"]),
        ("meta.size > 3", ["'meta'", "`meta.size` is text", "|float"]),
        ("lang == true", ["`lang == true`", "'lang'"]),
        ("tags > 3", ["a list", "'tags'"]),
        ("score | lower == 'x'", ["`lower` is for text", "'score'"]),
        ("score in score", ["'score'"]),
        ("score / 0 > 1", ["can't be computed"]),
    ],
)
def test_what_cannot_be_compared_fails_the_row_and_names_the_column(when: str, words: list[str]) -> None:
    error = matches(when)
    assert isinstance(error, RowError)
    assert error.code is Code.BAD_ROW
    assert "routes.0.when" in error.message
    for word in words:
        assert word in error.message


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("lang = 'fr'", "write `==`"),
        ("lang == 'fr' && score", "write `and`"),
        ("lang == 'fr", "quote is missing"),
        ("lang ==", "ends where a value"),
        ("", "is empty"),
        ("(lang", "`)`"),
        ("lang lang", "stands where"),
        ("2 ** 3 > 1", "'*' stands where"),
        ("lang | nofilter", "there is no filter 'nofilter'; there are lower"),
        ("lang.encode()", "there is no method 'encode'"),
        ("lang.upper('x')", "takes 0 arguments"),
        ("range(10)", "can't be called"),
        ("lang is odd", "there is no test 'odd'"),
        ("(1 + 1) is defined", "asks for a name"),
        ("a[1:2]", "':' can't stand here"),
        ("(" * 60 + "1" + ")" * 60, "levels of brackets"),
        ("1" + " + 1" * 400, "more than 300 operations"),
        ("x" * 10_001, "longer than"),
        ("1 if 2", "`else`"),
    ],
)
def test_syntax_is_told_when_the_router_is_made(when: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        Router([(None, ("a",)), (when, ("b",))])
    assert words in str(caught.value)
    assert caught.value.problems[0].path == "routes.1.when"


def test_all_bad_rules_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        Router([("=", ("a",)), ("ok", ("b",)), ("(", ("c",))])
    assert [problem.path for problem in caught.value.problems] == ["routes.0.when", "routes.2.when"]


def test_the_first_match_wins_and_no_match_is_data() -> None:
    router = Router([("score > 10", ("a",)), ("score > 3", ("b", "c")), ("score > 1", ("d",))])
    assert router.choose(ROW, 0, "k") == (("b", "c"), ("b", "c"), 1)
    error = router.choose({"score": 0}, 0, "k")
    assert isinstance(error, RowError)
    assert error.code is Code.NO_ROUTE


def test_the_largest_expression_allowed_runs() -> None:
    # Nested as deep as the limits let it, from a stack that is already in use.
    def deep(frames: int) -> bool | RowError:
        return deep(frames - 1) if frames else matches(f"{'1 + ' * 290}1 == 291")

    assert deep(150) is True


def test_columns_and_use_of_tokens_are_known() -> None:
    router = Router([("lang == 'fr' and row.meta.x > 1 and row['a b'] and tokens > 1", ("a",)), (None, ("b",))])
    assert router.columns == {"lang", "meta", "a b"}
    assert router.uses_tokens
    assert not Router([("row.tokens > 1", ("a",))]).uses_tokens
