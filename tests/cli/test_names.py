"""Names on lines: every name that a file system has reads back, and none disturbs a terminal."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xetstore.cli.names import PRINTED_ERRORS, escaped, printable, unescaped

NAMES = st.binary(min_size=1, max_size=60).map(lambda name: name.replace(b"\0", b""))
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@given(NAMES)
@example(b"caf\xe9\n\x1b[2J")
@example(b"\\x41\\\\n\\")
@example("\u202f\u3000\u200d\U0001f468\u200d\U0001f469 \u2028\x85\ufeff\U000e0001".encode())
def test_any_bytes_read_back(name: bytes) -> None:
    text = escaped(os.fsdecode(name))
    assert text.isprintable()
    assert os.fsencode(unescaped(text)) == name


@given(TEXTS)
def test_any_text_reads_back(name: str) -> None:
    assert unescaped(escaped(name)) == name
    assert printable(name).isprintable()
    assert printable(escaped(name)) == escaped(name)


@given(TEXTS, st.sampled_from(["ascii", "latin-1", "cp437", "utf-8"]))
def test_a_stream_that_cannot_write_all_characters_writes_what_reads_back(name: str, encoding: str) -> None:
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, encoding, errors=PRINTED_ERRORS, newline="")
    stream.write(escaped(name))
    stream.flush()
    assert unescaped(data.getvalue().decode(encoding)) == name


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        name = unescaped(text)
    except ValueError:
        return
    assert "\0" not in name
    assert unescaped(escaped(name)) == name


@pytest.mark.parametrize(
    "text", ["\\", "a\\q", "\\x4", "\\xgg", "\\u12", "\\U0011", "\\x00", "\\ud800", "\\u0000", "nul\0"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        unescaped(text)


def test_plain_names_stay_as_they_are() -> None:
    for name in ("a", "with spaces  two", "é", "日本語", "👍", "a'b\"c$d*"):
        assert escaped(name) == name
