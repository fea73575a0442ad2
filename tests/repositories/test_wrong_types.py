"""Arguments of another type to a repository: one sentence, which says what was given and what is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xetstore
from xetstore.errors import WrongTypeError
from xetstore.repositories.repository import Repository

VERBS: dict[str, Callable[[Repository, Any], object]] = {
    "files": lambda repo, wrong: list(repo.files(wrong)),
    "files below": lambda repo, wrong: list(repo.files("main", wrong)),
    "file": lambda repo, wrong: repo.file(wrong),
    "file at": lambda repo, wrong: repo.file("a", wrong),
    "files_at": lambda repo, wrong: repo.files_at(wrong),
    "open": lambda repo, wrong: repo.open(wrong),
    "open at": lambda repo, wrong: repo.open("a", wrong),
    "iter_range": lambda repo, wrong: list(repo.iter_range(wrong)),
    "iter_range from": lambda repo, wrong: list(repo.iter_range("a", "main", str(5) if wrong == 5 else wrong)),  # type: ignore[arg-type]
    "log": lambda repo, wrong: list(repo.log(wrong)),
    "diff": lambda repo, wrong: repo.diff(wrong),
    "download": lambda repo, wrong: repo.download(wrong),
    "download to": lambda repo, wrong: repo.download("main", wrong),
    "commit": lambda repo, wrong: repo.commit({"a": wrong}),
    "commit of": lambda repo, wrong: repo.commit(5 if wrong is None else wrong),  # type: ignore[arg-type]
    "commit without": lambda repo, wrong: repo.commit({}, wrong),
    "commit on": lambda repo, wrong: repo.commit({"a": b"y"}, branch=wrong),
    "create_branch": lambda repo, wrong: repo.create_branch(wrong),
    "create_branch at": lambda repo, wrong: repo.create_branch("new", wrong),
    "delete_branch": lambda repo, wrong: repo.delete_branch(wrong),
    "create_tag": lambda repo, wrong: repo.create_tag(wrong),
    "delete_tag": lambda repo, wrong: repo.delete_tag(wrong),
    "deleted": lambda repo, wrong: repo.deleted(wrong),
    "undelete": lambda repo, wrong: repo.undelete(to=5 if wrong is None else wrong),  # type: ignore[arg-type]
    "undelete_ref": lambda repo, wrong: repo.undelete_ref(wrong),
    "undelete_files": lambda repo, wrong: repo.undelete_files(wrong),
    "copy_from": lambda repo, wrong: repo.copy_from(wrong),
    "adopt": lambda repo, wrong: repo.adopt(wrong),
}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with xetstore.open(tmp_path_factory.mktemp("of another type") / "store") as store:
        repo = store.create_repo("alice/bert")
        repo.commit({"a": b"x"})
        yield repo


@pytest.mark.parametrize("verb", VERBS)
def test_another_type_gets_one_sentence_and_nothing_is_committed(repo: Repository, verb: str) -> None:
    head = repo.info().head
    for wrong in (None, 5, 1.5, [5], object()):
        with pytest.raises(WrongTypeError, match=r"(is|by) .*(, not|, not by) "):
            VERBS[verb](repo, wrong)
    assert repo.info().head == head


def test_one_path_where_several_are_meant_is_told(repo: Repository) -> None:
    for call in (lambda: repo.commit({}, "a"), lambda: repo.files_at("a")):
        with pytest.raises(WrongTypeError, match="several paths of the repository, such as a list of them, not a str"):
            call()
    with pytest.raises(WrongTypeError, match="a text, not a PosixPath"):
        repo.open(Path("a"))  # type: ignore[arg-type]
