"""Metadata of a README.md: what is read, and what a stranger may not do with it."""

from __future__ import annotations

import pytest

from xetstore.errors import FormatError
from xetstore.hub.cards import MAX_CARD_BYTES, errors_of, metadata_of, tags_of


def test_values_are_those_of_json() -> None:
    text = "---\nlicense: mit\ndate: 2024-01-02\nn: .nan\n1: [a, 2, true, null]\nhuge: 123456789012345678901\n---\n# x"
    assert metadata_of(text) == {
        "license": "mit",
        "date": "2024-01-02",
        "n": "nan",
        "1": ["a", 2, True, None],
        "huge": "123456789012345678901",
    }


@pytest.mark.parametrize("text", ["", "# a", "---\n---\n", "----\na: b\n---\n", "---\na: b\n", "x\n---\na: b\n---\n"])
def test_a_text_without_metadata_has_none(text: str) -> None:
    assert metadata_of(text) is None


def test_line_breaks_of_windows_and_a_mark_at_the_start() -> None:
    assert metadata_of("\ufeff---\r\na: b\r\n---\r\ntext") == {"a": "b"}
    assert metadata_of("\n \n---\na: b\n---\n") == {"a": "b"}


def test_blank_lines_before_the_metadata_are_skipped_as_clients_skip_them() -> None:
    assert metadata_of("\n \n---\na: b\n---\ntext") == {"a": "b"}


BOMB = "---\na: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("---\na: [\n---\n", "not YAML"),
        ("---\n- a\n---\n", "no mapping"),
        ("---\na: !!python/object/apply:os.system [id]\n---\n", "not YAML"),
        (BOMB + "---\n", "too many values"),
        ("---\na: &a {x: 1}\nb: {<<: [*a, *a]}\n---\n", "merge"),
        ("---\na: " + "[" * 900 + "]" * 900 + "\n---\n", "too many values|not YAML"),
        ("---\na: " + "[" * 20000 + "\n---\n", "not YAML"),
        ("---\na: &a [*a]\n---\n", "too many values|not YAML"),
        ("---\na: " + "9" * 9999 + "\n---\n", "not YAML"),
        ("---\na: " + "x" * MAX_CARD_BYTES + "\n---\n", "longer than"),
        ("---\na: &a " + "x" * 99_999 + "\nb: [" + "*a," * 50_000 + "]\n---\n", "texts of the metadata are too long"),
        (
            "---\na: &a {? " + "x" * 99_999 + " : 1}\nb: [" + "*a," * 50_000 + "]\n---\n",
            "texts of the metadata are too long",
        ),
        ("---\na: 0x" + "f" * 9999 + "\n---\n", "a number is too long"),
        ("---\n? 0x" + "f" * 9999 + "\n: a\n---\n", "a number is too long"),
        ("---\na: " + "1:" * 9999 + "1\n---\n", "a number is too long"),
        ("---\na: " + "1:" * 9999 + "1.5\n---\n", "a number is too long"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        metadata_of(text)


def test_results_that_are_no_list_are_an_error() -> None:
    assert errors_of({"model-index": "foo"})
    assert errors_of({"tags": {"a": 1}})
    assert not errors_of({"model-index": [{"name": "x", "results": []}], "tags": ["a"], "language": "en"})


def test_tags_say_what_the_metadata_says() -> None:
    tags = tags_of({"tags": ["a", "a", 3], "license": "mit", "pipeline_tag": "fill-mask", "language": ["en", "de"]})
    assert tags == ["a", "fill-mask", "en", "de", "license:mit"]
