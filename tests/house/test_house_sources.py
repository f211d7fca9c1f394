"""What holds for every file: exceptions to a rule carry their reason, modules say what they are for, and nothing of the machine they were written on is in them."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tracked() -> list[Path]:
    """The project's files: what git knows or would add; without git, everything that isn't hidden."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True).stdout
        names = [Path(name.decode()) for name in listed.split(b"\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        names = [name for name in names if not any(part.startswith(".") or part in {"__pycache__", "build", "dist"} for part in name.parts[:-1])]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


FILES = tracked()
SOURCES = [path for path in FILES if path.suffix == ".py"]
_NOQA = re.compile(r"#\s*noqa\b(?P<codes>:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?(?P<rest>[^#]*)")
_IGNORE = re.compile(r"#\s*type:\s*ignore\b(?P<codes>\[[\w, -]+\])?(?P<rest>.*)")


def unexplained(line: str) -> bool:
    """Whether the line takes an exception to a rule without naming the rule and a reason."""
    for pattern in (_NOQA, _IGNORE):
        match = pattern.search(line)
        if match and (not match["codes"] or len(match["rest"].strip(" -#")) < 5):
            return True
    return False


@pytest.mark.parametrize(
    ("comment", "wanted"),
    [
        ("no" + "qa", True),
        ("no" + "qa: S101", True),
        ("no" + "qa: S101 - the reason why", False),
        ("no" + "qa: S101, S608 - the reason why", False),
        ("type: " + "ignore", True),
        ("type: " + "ignore[arg-type]", True),
        ("type: " + "ignore[arg-type]  # the reason why", False),
    ],
)
def test_the_check_itself(comment: str, wanted: bool) -> None:
    assert unexplained(f"x = 1  # {comment}") is wanted


def test_exceptions_to_a_rule_carry_their_reason() -> None:
    bare = []
    for source in SOURCES:
        lines = source.read_text(encoding="utf-8").splitlines()
        bare += [f"{source.relative_to(ROOT)}:{number}" for number, line in enumerate(lines, 1) if unexplained(line)]
    assert not bare


def test_modules_begin_with_what_they_are_for() -> None:
    texts = {str(source.relative_to(ROOT)): source.read_text(encoding="utf-8") for source in SOURCES}
    assert not [name for name, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))]


# Written apart, so that this file holds none of them.
_FOREIGN = {
    "a path of a machine": r"(?<![\w.~])/(?:home|root|Users|work|mnt|opt)/\w+|/tm" + r"p/(?:v|s|brief)\b",
    "a registry's address": r"index-" + r"url|find-" + r"links|//[\w.-]*(?:pypi|nexus|artifactory|devpi)[\w.-]*[:/]",
    "a key": r"\bsk-(?:proj-)?[A-Za-z0-9]{32,}|\bAKIA[0-9A-Z]{16}\b|-----BEGIN [A-Z ]*PRIV" + "ATE KEY",
}


@pytest.mark.parametrize("what", _FOREIGN)
def test_nothing_of_the_machine_is_in_the_files(what: str) -> None:
    pattern = re.compile(_FOREIGN[what])
    found = []
    for path in FILES:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}" for match in pattern.finditer(text)]
    assert not found


def test_no_lock_file() -> None:
    assert not [path for path in FILES if path.name in {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "requirements.txt"}]
