"""Names that a system cannot have, and those that a file system takes for one."""

from __future__ import annotations

import unicodedata
from itertools import product
from pathlib import Path

import pytest

from xetstore.platform.names import FolderNames, folded, name_fault

ACCENTED = "café"
APART = unicodedata.normalize("NFD", ACCENTED)
assert APART != ACCENTED


class OneCase(FolderNames):
    """A folder whose file system ignores case, and keeps the way in which accents are written."""

    def takes_for_one(self, first: str, second: str) -> bool:
        return first.casefold() == second.casefold()


class OneCaseOfLetters(FolderNames):
    """A folder whose file system has a capital for each letter, and ß has none. It is asked as any is."""

    def _try(self, first: str, second: str) -> bool:
        return [*map(str.lower, first)] == [*map(str.lower, second)]


class OneSpelling(FolderNames):
    """A folder whose file system has one way to write accents, and keeps case."""

    def takes_for_one(self, first: str, second: str) -> bool:
        return unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second)


@pytest.mark.parametrize(
    "name",
    [
        *("CON", "con", "nul.txt", "AUX .x", "com1", "LPT9.tar.gz", "COM¹", "conout$"),
        *(
            "..\\..\\up",
            "a\\b",
            "C:x",
            "file:stream",
            "dot.",
            "blank ",
            "...",
            "a?b",
            'a"b',
            "a|b",
            "a*",
            "<a>",
            "a\x1fb",
        ),
        *("GIT~1", "git~2", ".git.", ".git "),
    ],
)
def test_windows_takes_it_for_another_name(name: str) -> None:
    assert name_fault(name, "win32")
    assert not name_fault(name, "linux")
    assert not name_fault(name, "darwin")


@pytest.mark.parametrize("name", ["console", "com", "com10", "nullable", ".hidden", "a.b", "a b", "git~", "é", "a.con"])
def test_windows_takes_a_name_as_it_is(name: str) -> None:
    assert name_fault(name, "win32") is None


def test_macos_leaves_out_what_cannot_be_seen() -> None:
    assert name_fault(".g\u200cit", "darwin")
    assert name_fault(".g\u200cit", "linux") is None


def test_names_are_alike_without_case_and_accents_in_one_way() -> None:
    assert folded("Größe/" + ACCENTED) == folded("GRÖSSE/" + APART.upper())
    assert folded("a") != folded("b")


def test_what_would_take_the_place_of_another_is_refused(tmp_path: Path) -> None:
    paths = ["README", "a/x", "readme", "A/x", "A/y", "b", "a/x2", "README/"[:-1]]
    refused = OneCase(tmp_path).refused(paths)
    assert set(refused) == {"readme", "A/x", "A/y"}
    assert "'README'" in str(refused["readme"])
    assert "'a'" in str(refused["A/y"])


def test_a_file_and_a_folder_clash_too(tmp_path: Path) -> None:
    assert set(OneCase(tmp_path).refused(["data", "Data/x"])) == {"Data/x"}


def test_a_file_system_with_one_spelling_keeps_case_apart(tmp_path: Path) -> None:
    paths = [ACCENTED, APART, "A", "a", f"x/{APART}", f"x/{ACCENTED}"]
    assert set(OneSpelling(tmp_path).refused(paths)) == {APART, f"x/{ACCENTED}"}


def test_each_is_compared_with_all_that_come_before_it(tmp_path: Path) -> None:
    paths = [ACCENTED.upper(), APART, APART.upper(), f"x/{APART.upper()}", f"x/{ACCENTED}", f"x/{APART}"]
    assert set(OneCase(tmp_path).refused(paths)) == {APART.upper(), f"x/{APART}"}
    assert set(OneSpelling(tmp_path).refused(paths)) == {APART.upper(), f"x/{APART}"}
    assert set(OneCaseOfLetters(tmp_path).refused(["straße", "strasse", "STRASSE"])) == {"STRASSE"}


def test_the_answer_about_unusual_letters_is_not_that_about_others(tmp_path: Path) -> None:
    assert set(OneCaseOfLetters(tmp_path).refused(["STRASSE", "straße", "a", "A"])) == {"A"}
    assert set(OneCaseOfLetters(tmp_path).refused(["a", "A", "STRASSE", "straße"])) == {"A"}


def test_very_many_spellings_of_one_name_take_a_look_each(tmp_path: Path) -> None:
    paths = ["".join(letters) for letters in product(*zip("abcdefghijklm", "ABCDEFGHIJKLM", strict=True))]
    asked = []

    class Asked(FolderNames):
        def takes_for_one(self, first: str, second: str) -> bool:
            asked.append(first)
            return False

    assert Asked(tmp_path).refused(paths) == {}
    assert len(asked) < 6 * len(paths)


def test_this_file_system_is_asked_and_nothing_stays(tmp_path: Path) -> None:
    paths = ["A", "a", ACCENTED, APART, "X" + ACCENTED, "x" + APART]
    for names in (FolderNames(tmp_path), FolderNames(tmp_path / "missing" / "too")):
        refused = names.refused(paths)
        (tmp_path / "A").touch()
        assert bool(refused) == (tmp_path / "a").exists()
        (tmp_path / "A").unlink()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_asked_where_no_names_are_alike(tmp_path: Path) -> None:
    class Asked(FolderNames):
        def takes_for_one(self, first: str, second: str) -> bool:
            raise AssertionError((first, second))

    assert Asked(tmp_path).refused([f"f{number}/x" for number in range(1000)]) == {}


def test_names_of_windows_are_refused_one_by_one(tmp_path: Path) -> None:
    refused = FolderNames(tmp_path, "win32").refused(["fine", "a/aux.c", "..\\up", "b/ok"])
    assert set(refused) == {"a/aux.c", "..\\up"}
    assert FolderNames(tmp_path, "linux").refused(["a/aux.c"]) == {}
