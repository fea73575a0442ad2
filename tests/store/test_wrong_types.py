"""Arguments of another type: one sentence, which says what was given and what is taken; and nothing is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import xetstore
from xetstore.errors import UsageError
from xetstore.store import Store

SMALL_NAME = "xet://alice/bert/small.txt"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with xetstore.open(tmp_path_factory.mktemp("of another type") / "store") as store:
        store.create_repo("alice/bert").commit({"small.txt": b"a small text"})
        yield store


WRONG_FILES: dict[str, Callable[[Path], Any]] = {
    "None": lambda folder: None,
    "int": lambda folder: 5,
    "float": lambda folder: 1.5,
    "list": lambda folder: ["a" * 64],
    "path": lambda folder: folder,
    "bytes": lambda folder: b"a" * 64,
    "digest": lambda folder: bytes(32),
    "short": lambda folder: "a" * 63,
    "long": lambda folder: "a" * 65,
    "object": lambda folder: object(),
}
VERBS_OF_A_FILE: dict[str, Callable[[Store, Any, Path], object]] = {
    "get": lambda store, what, folder: store.get(what, folder / "out"),
    "get_many": lambda store, what, folder: store.get_many([(what, folder / "out")]),
    "iter_get": lambda store, what, folder: list(store.iter_get([(what, folder / "out")])),
    "forecast": lambda store, what, folder: store.forecast(what),
    "open": lambda store, what, folder: store.open(what),
    "read": lambda store, what, folder: store.read(what),
    "iter_range": lambda store, what, folder: list(store.iter_range(what)),
    "stat": lambda store, what, folder: store.stat(what),
    "exists": lambda store, what, folder: store.exists(what),
    "delete": lambda store, what, folder: store.delete(what),
    "undelete": lambda store, what, folder: store.undelete(what),
    "resolve": lambda store, what, folder: store.resolve(what),
    "file_at": lambda store, what, folder: store.file_at(what),
    "what_if_deleted": lambda store, what, folder: store.what_if_deleted([what]),
}


@pytest.mark.parametrize("verb", VERBS_OF_A_FILE)
def test_another_type_for_a_file_gets_one_sentence(store: Store, tmp_path: Path, verb: str) -> None:
    before = sorted(tmp_path.iterdir())
    for kind, make in WRONG_FILES.items():
        with pytest.raises(UsageError) as caught:
            VERBS_OF_A_FILE[verb](store, make(tmp_path), tmp_path)
        text = f"{caught.value} {caught.value.hint}"
        assert "64 hexadecimal digits" in text, kind
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, TypeError) == (kind not in ("short", "long"))
    assert sorted(tmp_path.iterdir()) == before


def no_none(place: Any) -> Any:
    return [] if place is None else place


def no_bytes(place: Any) -> Any:
    return [] if isinstance(place, bytes) else place


WRONG_PLACES: dict[str, Any] = {"None": None, "int": 5, "float": 1.5, "list": [], "bytes": b"x", "object": object()}
VERBS_WITH_A_PLACE: dict[str, Callable[[Store, Any], object]] = {
    "get": lambda store, place: store.get(SMALL_NAME, place),
    "get_many": lambda store, place: store.get_many([(SMALL_NAME, place)]),
    "base": lambda store, place: store.get("a" * 64, "out", base=no_none(place)),
    "estimate": lambda store, place: store.estimate([place]),
    "open": lambda store, place: xetstore.open(place),
    "hash_file": lambda store, place: xetstore.hash_file(place),
    "download": lambda store, place: store.repo("alice/bert").download("main", place),
    "commit": lambda store, place: store.repo("alice/bert").commit({"x": no_bytes(place)}),
}


@pytest.mark.parametrize("verb", VERBS_WITH_A_PLACE)
def test_another_type_for_a_path_gets_one_sentence(store: Store, verb: str) -> None:
    for place in WRONG_PLACES.values():
        with pytest.raises(UsageError, match=r"is a text or a pathlib\.Path, not (None|an? )"):
            VERBS_WITH_A_PLACE[verb](store, place)


OTHERS: list[tuple[Callable[[Store], object], str]] = [
    (lambda store: store.put(None), "what is put is a path, bytes or a binary file object, not None"),  # type: ignore[arg-type]
    (lambda store: store.put(5), "not an int"),  # type: ignore[arg-type]
    (lambda store: store.put([b"x"]), "not a list"),  # type: ignore[arg-type]
    (lambda store: store.put(xetstore.Hash("a" * 64)), "not a Hash"),
    (lambda store: store.put(b"", policy="zip"), "policy is one of auto, none, lz4, bg4-lz4"),
    (
        lambda store: store.put_many("file"),
        "several paths, bytes or binary file objects, such as a list of them, not a s",
    ),
    (lambda store: store.put_many([None]), "what is put is a path, bytes or a binary file object, not None"),  # type: ignore[list-item]
    (lambda store: store.put_many(Path("file")), "several paths"),  # type: ignore[arg-type]
    (lambda store: store.put_many(None), "several paths"),  # type: ignore[arg-type]
    (lambda store: store.estimate("file"), "several paths"),
    (lambda store: store.get_many("a" * 64), "several pairs"),  # type: ignore[arg-type]
    (lambda store: store.get_many([5]), "a pair of a file and a path, not an int"),  # type: ignore[list-item]
    (lambda store: store.what_if_deleted("a" * 64), "several files, such as a list of them, not a str"),
    (lambda store: store.read(SMALL_NAME, "1"), "numbers of bytes, not by str"),  # type: ignore[arg-type]
    (lambda store: store.read(SMALL_NAME, 1.5), "numbers of bytes, not by float"),  # type: ignore[arg-type]
    (lambda store: store.read("a" * 64, None), "numbers of bytes, not by NoneType"),  # type: ignore[arg-type]
    (lambda store: store.read("a" * 64, 0, "5"), "numbers of bytes, not by str"),  # type: ignore[arg-type]
    (lambda store: store.repo(5), "the name of a repository is a text"),  # type: ignore[arg-type]
    (lambda store: store.create_repo(None), "the name of a repository is a text"),  # type: ignore[arg-type]
    (lambda store: store.delete_repo(["alice/bert"]), "not a list"),  # type: ignore[arg-type]
    (lambda store: store.move_repo("alice/bert", 5), "the name of a repository is a text"),  # type: ignore[arg-type]
    (lambda store: list(store.repos(5)), "kind is a text, not an int"),  # type: ignore[arg-type]
    (lambda store: store.usage("user"), "namespace or repo, not 'user'"),
    (lambda store: xetstore.open_locator(5), "a locator is a text"),  # type: ignore[arg-type]
    (lambda store: xetstore.open("x", limits={"jobs": 4}), "limits"),  # type: ignore[arg-type]
    (lambda store: xetstore.open("http://127.0.0.1:9", token=5), "token"),  # type: ignore[arg-type]
    (lambda store: xetstore.open("http://127.0.0.1:9", cache=5), "cache"),  # type: ignore[arg-type]
    (lambda store: xetstore.open("x", on_event="print"), "on_event"),  # type: ignore[arg-type]
    (lambda store: xetstore.Hash(5), "a Hash is made of 64 hexadecimal digits or 32 bytes, not an int"),  # type: ignore[arg-type]
    (lambda store: xetstore.Hash.parse(None), "a Hash"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("number", range(len(OTHERS)))
def test_every_other_argument_of_another_type_gets_one_sentence(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    call, sentence = OTHERS[number]
    with pytest.raises(UsageError, match=sentence):
        call(store)
