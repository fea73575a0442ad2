"""The body of a commit, line by line."""

from __future__ import annotations

import json
from base64 import b64encode
from io import BytesIO
from typing import Any

import pytest

from xetstore.errors import TooLargeError, UnprocessableError, UsageError
from xetstore.server.routes.hub import commit_lines
from xetstore.server.routes.hub.commit_lines import Deletion, Header, LargeFile, Line, RegularFile, lines_of

HEADER = {"key": "header", "value": {"summary": "a title"}}
SHA256 = "ab" * 32


def read(*lines: object, end: str = "\n") -> list[Line]:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + end
    return list(lines_of(BytesIO(text.encode())))


def operation(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


@pytest.mark.parametrize("end", ["\n", "", "\n\n", "\r\n"])
def test_all_that_clients_send(end: str) -> None:
    assert read(
        {"key": "header", "value": {"summary": "t", "description": "d", "parentCommit": "abc", "more": 1}},
        operation("deletedFolder", path="old/"),
        operation("deletedFile", path="old.txt"),
        operation("file", path="a", content=b64encode(b"\0\xff").decode(), encoding="base64"),
        "",
        operation("file", path="b", content="grün", encoding="utf-8", oldPath="c"),
        operation("lfsFile", path="d", algo="sha256", oid=SHA256, size=3),
        operation("lfsFile", path="e", algo="sha256", oid=SHA256),
        end=end,
    ) == [
        Header("t", "d", "abc"),
        Deletion("old", is_folder=True),
        Deletion("old.txt", is_folder=False),
        RegularFile("a", b"\0\xff"),
        RegularFile("b", "grün".encode(), "c"),
        LargeFile("d", bytes.fromhex(SHA256), 3),
        LargeFile("e", bytes.fromhex(SHA256)),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [operation("file", path="a", content="")],
        [HEADER, HEADER],
        [HEADER, "{"],
        [HEADER, "[]"],
        [HEADER, '"\ud800"'.encode("utf-8", "surrogatepass").decode("latin-1")],
        [HEADER, operation("other", path="a")],
        [HEADER, operation("file", path="a", content="!", encoding="base64")],
        [HEADER, operation("file", path="a", content="YQ=", encoding="base64")],
        [HEADER, operation("file", path="a", content="a", encoding="rot13")],
        [HEADER, operation("file", path=3, content="a")],
        [HEADER, operation("lfsFile", path="a", algo="sha1", oid=SHA256)],
        [HEADER, operation("lfsFile", path="a", oid=SHA256[1:])],
        [HEADER, operation("lfsFile", path="a", oid=SHA256, size=-1)],
        [{"key": "header", "value": {}}],
        [{"key": "header", "value": {"summary": "a\0"}}],
    ],
)
def test_what_is_none_is_refused(lines: list[object]) -> None:
    with pytest.raises(UsageError):
        read(*lines)


def test_there_is_an_end_to_operations_and_to_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_lines, "MAX_OPERATIONS", 3)
    deletion = operation("deletedFile", path="a")
    assert len(read(HEADER, deletion, deletion, deletion)) == 4
    with pytest.raises(UnprocessableError, match="at most 3"):
        read(HEADER, deletion, deletion, deletion, deletion)
    body = BytesIO(json.dumps(HEADER).encode() + b"\n" + b'{"key":"file"' + b" " * 200)
    with pytest.raises(TooLargeError, match="line 2"):
        list(lines_of(body, max_line_bytes=100))
