"""Repositories by Store.repo: the same promises for a store in this process and for any server of the Hub's API."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

import xetstore
from tests.support.live import live_server
from tests.support.opened import opened
from tests.support.strategies import splitmix64
from xetstore import _kernel
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import (
    EntryNotFoundError,
    ExistsError,
    OutdatedError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    UnprocessableError,
    UsageError,
    XetError,
)
from xetstore.repositories.repository import Repository
from xetstore.repositories.staging import MAX_BLOB_BYTES
from xetstore.store import Store

LARGE = splitmix64(7, 3 << 20)
CHANGED = LARGE[: 1 << 20] + b"in between" + LARGE[1 << 20 :]
NO_COMMIT = "0123456789" * 4


@pytest.fixture(params=["directory", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "directory":
        with xetstore.open(tmp_path / "store") as opened:
            yield opened
        return
    with (
        EmbeddedCas.open(tmp_path / "store") as cas,
        live_server(cas, auth="none") as server,
        xetstore.open(server.url, cache=tmp_path / "cache") as opened,
    ):
        yield opened


@pytest.fixture
def repo(store: Store) -> Repository:
    return store.create_repo("alice/bert")


def test_a_large_file_that_is_unchanged_is_not_read_again(repo: Repository) -> None:
    """But for its first bytes, which say whether it is a large one; by a file that was made long ago."""
    path = Path(str(_kernel.__file__))
    first = repo.commit({"kernel.bin": path}, unchanged="skip").files
    for unchanged, times in (("skip", 1), ("renew", 2), ("read", 2)):
        with opened() as names:
            repo.commit({"again/kernel.bin": path}, unchanged=unchanged, dry_run=unchanged == "skip")
        assert names.count(str(path)) == times
    assert repo.file("again/kernel.bin").sha256 == first[0].sha256


class Stream:
    """Some MiB that are read one by one, and the streams that were begun and are not at their end."""

    under_way: ClassVar[set[Stream]] = set()
    most: ClassVar[int] = 0

    def __init__(self, number: int, mib: int) -> None:
        self._part = splitmix64(number, 1 << 20)
        self._left = mib

    def read(self, _size: int, /) -> bytes:
        if not self._left:
            self.under_way.discard(self)
            return b""
        self._left -= 1
        self.under_way.add(self)
        Stream.most = max(Stream.most, len(self.under_way))
        return self._part


def test_long_streams_of_a_commit_are_not_all_in_memory_at_once(repo: Repository) -> None:
    Stream.most = 0
    mib = (MAX_BLOB_BYTES >> 20) + 1
    report = repo.commit({f"{number}.bin": Stream(number, mib) for number in range(5)})
    assert {file.path: file.size for file in report.files} == {f"{number}.bin": mib << 20 for number in range(5)}
    assert Stream.most == 1
    assert not Stream.under_way


def content(repo: Repository, revision: str = "main") -> dict[str, bytes]:
    """All files of a revision but the one that every repository has, read through ``open``."""
    found = {}
    for file in repo.files(revision):
        if not file.is_folder and file.path != ".gitattributes":
            with repo.open(file.path, revision) as opened:
                found[file.path] = opened.read()
    return found


# --- Repositories ---------------------------------------------------------------------------------------


def test_a_repository_is_created_listed_moved_and_deleted(store: Store) -> None:
    repo = store.create_repo("datasets/alice/news", is_private=True)
    assert (repo.name, repo.info().is_private, repo.exists()) == ("datasets/alice/news", True, True)
    assert [record.id for record in store.repos("datasets", owner="alice")] == [repo.id]
    assert list(store.repos("models", owner="alice")) == []
    with pytest.raises(ExistsError):
        store.create_repo("datasets/alice/news")
    assert store.create_repo("datasets/alice/news", exist_ok=True).info().is_private
    moved = store.move_repo("datasets/alice/news", "datasets/alice/old-news")
    assert moved.info().id.name == "alice/old-news"
    assert repo.info().id.name == "alice/old-news", "the old name leads to it"
    store.delete_repo("datasets/alice/old-news")
    assert not moved.exists()
    with pytest.raises(RepositoryNotFoundError):
        store.delete_repo("datasets/alice/old-news")


@pytest.mark.parametrize("name", ["bert", "alice/a/b", "alice/bert@main", "al ice/bert", "../bert", ""])
def test_what_is_no_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(UsageError):
        store.create_repo(name)


def test_nothing_is_there_of_a_repository_that_is_not(store: Store, tmp_path: Path) -> None:
    repo = store.repo("alice/nothing")
    for call in (
        repo.info,
        lambda: list(repo.files()),
        lambda: repo.open("file"),
        lambda: list(repo.log()),
        lambda: repo.commit({"file": b"bytes"}),
        lambda: repo.download("main", tmp_path / "out"),
        repo.branches,
        lambda: repo.create_tag("v1"),
    ):
        with pytest.raises(RepositoryNotFoundError):
            call()
    assert not (tmp_path / "out").exists()
    repo.commit({"file": b"bytes"}, create=True, is_private=True)
    assert repo.info().is_private
    assert content(repo) == {"file": b"bytes"}


# --- Commits --------------------------------------------------------------------------------------------


def test_small_and_large_files_come_back(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    added: dict[str, Path | str | bytes] = {"model.safetensors": tmp_path / "large"}
    added |= {"in/memory.bin": LARGE[:1000], "card.md": b"# Card", "empty": b""}
    report = repo.commit(added, message="All of them", description="And more words")
    assert (report.is_new, len(report.files), report.deleted) == (True, 4, ())
    assert content(repo) == {
        "model.safetensors": LARGE,
        "in/memory.bin": LARGE[:1000],
        "card.md": b"# Card",
        "empty": b"",
    }
    large = repo.file("model.safetensors")
    assert (large.sha256, large.size) == (hashlib.sha256(LARGE).hexdigest(), len(LARGE))
    assert large.hash == xetstore.hash_file(tmp_path / "large").hash
    assert (repo.file("card.md").hash, repo.file("in").is_folder) == (None, True)
    newest, first = repo.log()
    assert (newest.oid, newest.title, newest.message) == (
        report.commit.oid,
        "All of them",
        "All of them\n\nAnd more words",
    )
    assert first.title == "initial commit"
    assert b"".join(bytes(part) for part in repo.iter_range("model.safetensors", "main", 5, 70_000)) == LARGE[5:70_000]
    assert b"".join(bytes(part) for part in repo.iter_range("card.md", start=2)) == b"Card"
    with repo.open("model.safetensors") as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == LARGE[-3:]


def test_nothing_is_committed_where_nothing_changes(repo: Repository) -> None:
    added = {"a.bin": LARGE, "b.txt": b"text"}
    first = repo.commit(added)
    second = repo.commit(added, message="once more")
    assert (second.is_new, second.unchanged, second.commit.oid) == (False, 2, first.commit.oid)
    third = repo.commit({"a.bin": LARGE, "b.txt": b"other"})
    assert [file.path for file in third.files] == ["b.txt"]
    assert len(list(repo.log())) == 3


def test_files_and_folders_are_deleted(repo: Repository) -> None:
    repo.commit({"a/b/c": b"1", "a/d": b"2", "e": b"3", "f": b"4"})
    report = repo.commit({"f": b"5"}, ["a/b", "e"], message="less")
    assert set(report.deleted) == {"a/b", "e"}
    assert content(repo) == {"a/d": b"2", "f": b"5"}
    with pytest.raises(EntryNotFoundError):
        repo.commit(delete=["e"])
    with pytest.raises(EntryNotFoundError):
        repo.commit({"g": b"6"}, ["nothing"])
    assert content(repo) == {"a/d": b"2", "f": b"5"}, "all of a commit or nothing"


def test_a_folder_is_mirrored(repo: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "one").write_bytes(b"1")
    (folder / "two.bin").write_bytes(LARGE)
    repo.commit({"elsewhere": b"stays", "into/old": b"goes", "into/sub/old": b"goes", "into/two.bin": b"goes"})
    report = repo.commit({"into": folder}, mirror="into")
    assert set(report.deleted) == {"into/old", "into/sub/old"}
    assert content(repo) == {"elsewhere": b"stays", "into/sub/one": b"1", "into/two.bin": LARGE}
    (folder / "sub" / "one").unlink()
    (folder / "sub").rmdir()
    (folder / "sub").write_bytes(b"a file now")
    repo.commit({"": folder}, mirror="")
    assert content(repo) == {"sub": b"a file now", "two.bin": LARGE}
    assert repo.file(".gitattributes"), "it says which files are large"


def test_a_mirror_spares_what_it_does_not_look_at(repo: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "here").write_bytes(b"1")
    (folder / "a.txt").write_bytes(b"2")
    repo.commit({"in/logs/there": b"3", "in/b.tmp": b"4", "in/gone": b"5", "in/sub/c.tmp": b"6", "in/sub/gone": b"7"})
    repo.commit({"in": folder}, mirror="in", exclude=["*.tmp", "logs"])
    assert set(content(repo)) == {"in/logs/there", "in/b.tmp", "in/sub/c.tmp", "in/a.txt"}


def test_a_file_does_not_replace_a_folder_by_chance(repo: Repository) -> None:
    repo.commit({"a/b": b"1"})
    with pytest.raises(UsageError):
        repo.commit({"a": b"2"})
    repo.commit({"a": b"2"}, ["a"])
    assert content(repo) == {"a": b"2"}


def test_a_dry_run_changes_nothing(repo: Repository) -> None:
    report = repo.commit({"a.bin": LARGE, "b": b"1"}, dry_run=True)
    assert ({file.path for file in report.files}, report.new_bytes) == ({"a.bin", "b"}, len(LARGE) + 1)
    assert content(repo) == {}
    assert len(list(repo.log())) == 1


@pytest.mark.parametrize("path", ["../up", "a/../b", "a//b", "a/./b", ".git/config", "back\\slash", "a\nb", "x" * 1025])
def test_a_path_that_no_repository_takes_is_refused(repo: Repository, path: str) -> None:
    with pytest.raises(UnprocessableError):
        repo.commit({path: b"bytes"})
    assert len(list(repo.log())) == 1


def test_odd_names_are_kept(repo: Repository, tmp_path: Path) -> None:
    odd = {"ünïcode/\u202fé": b"1", "with space": b"2", "#%?&": b"3", "quote\"'": b"4", "日本.bin": LARGE[:100]}
    odd |= {"e\u0301": b"decomposed", "\u00e9": b"composed", "-leading": b"5", "*": b"6", "😀": b"7"}
    repo.commit(odd)
    assert content(repo) == odd
    repo.download("main", tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in odd} == odd


# --- Revisions ------------------------------------------------------------------------------------------


def test_branches_and_tags(repo: Repository) -> None:
    first = repo.commit({"file": b"1"}).commit.oid
    repo.create_tag("v1", message="The first")
    repo.create_branch("feature/x", "v1")
    second = repo.commit({"file": b"2"}, branch="feature/x").commit.oid
    assert [(ref.name, ref.commit) for ref in repo.branches()] == [("feature/x", second), ("main", first)]
    assert [(ref.name, ref.commit) for ref in repo.tags()] == [("v1", first)]
    for revision, expected in {"main": b"1", "v1": b"1", "feature/x": b"2", first: b"1", second: b"2"}.items():
        assert content(repo, revision) == {"file": expected}
    with pytest.raises(ExistsError):
        repo.create_tag("v1")
    with pytest.raises(ExistsError):
        repo.create_branch("main")
    repo.delete_tag("v1")
    repo.delete_branch("feature/x")
    assert [ref.name for ref in (*repo.branches(), *repo.tags())] == ["main"]
    with pytest.raises(XetError):
        repo.delete_tag("v1")
    with pytest.raises(XetError):
        repo.delete_branch("feature/x")


def test_what_was_deleted_is_given_back(store: Store, repo: Repository) -> None:
    first = repo.commit({"file": b"1", "large.bin": LARGE[:5000]}).commit.oid
    repo.create_tag("v1", message="The first")
    repo.create_branch("feature/x", "v1")
    repo.delete_tag("v1")
    repo.delete_branch("feature/x")
    told = repo.deleted()
    assert [(each.kind, each.name) for each in told] == [("branch", "feature/x"), ("tag", "v1")]
    assert all(each.until > each.deleted_at > 0 for each in told)
    assert repo.undelete_ref("feature/x").commit == first
    assert repo.undelete_ref("v1", to="v2").ref == "refs/tags/v2"
    with pytest.raises(RevisionNotFoundError):
        repo.undelete_ref("v1")
    assert [(ref.name, ref.commit) for ref in (*repo.branches(), *repo.tags())] == [
        ("feature/x", first),
        ("main", first),
        ("v2", first),
    ]
    store.delete_repo("alice/bert")
    assert [(each.kind, each.name) for each in repo.deleted()] == [("repository", "alice/bert")]
    store.create_repo("alice/bert")
    with pytest.raises(ExistsError, match="already exists"):
        repo.undelete()
    assert repo.undelete(to="alice/bert2").id.name == "alice/bert2"
    again = store.repo("alice/bert2")
    assert content(again) == {"file": b"1", "large.bin": LARGE[:5000]}
    with pytest.raises(RepositoryNotFoundError):
        repo.undelete()
    with pytest.raises(UsageError):
        again.undelete_files("file")


@pytest.mark.parametrize("revision", ["nothing", "refs/heads/nothing", NO_COMMIT, "a b", "../x", "x%2fy"])
def test_a_revision_that_is_not_there_is_told(repo: Repository, revision: str, tmp_path: Path) -> None:
    for call in (
        lambda: list(repo.files(revision)),
        lambda: repo.open(".gitattributes", revision),
        lambda: list(repo.log(revision)),
        lambda: repo.download(revision, tmp_path / "out"),
        lambda: repo.create_tag("v1", revision),
        lambda: repo.commit({"a": b"1"}, branch=revision),
        lambda: repo.diff("main", revision),
    ):
        with pytest.raises((RevisionNotFoundError, UsageError)):
            call()


def test_an_entry_that_is_not_there_is_told(repo: Repository) -> None:
    for call in (lambda: list(repo.files("main", "nothing")), lambda: repo.open("nothing"), lambda: repo.file("a/b")):
        with pytest.raises(EntryNotFoundError):
            call()
    repo.commit({"folder/file": b"1"})
    with pytest.raises(UsageError):
        repo.open("folder")


def test_differences_of_revisions(repo: Repository) -> None:
    repo.commit({"same": b"1", "changed.bin": LARGE, "gone": b"2", "folder/text": b"3"})
    repo.create_tag("v1")
    repo.commit({"changed.bin": CHANGED, "folder/text": b"4", "new": b"5"}, ["gone"])
    found = repo.diff("v1")
    assert {one.path: str(one.kind) for one in found} == {
        "changed.bin": "changed",
        "folder/text": "changed",
        "gone": "deleted",
        "new": "added",
    }
    assert [one.path for one in repo.diff("v1", "main", "folder")] == ["folder/text"]
    assert repo.diff("main") == []
    compared = {one.path: repo.compare(one, "v1") for one in found}
    told = compared.pop("changed.bin")
    assert told is not None
    assert len(LARGE) - (256 << 10) < told.shared_bytes < len(LARGE)
    assert set(compared.values()) == {None}


# --- Writers side by side -------------------------------------------------------------------------------


def test_an_outdated_parent_is_refused(repo: Repository) -> None:
    before = repo.commit({"file": b"1"}).commit.oid
    repo.commit({"file": b"2"}, parent=before)
    with pytest.raises(OutdatedError):
        repo.commit({"file": b"3"}, parent=before)
    assert content(repo) == {"file": b"2"}


def test_no_commit_of_several_writers_is_lost(repo: Repository) -> None:
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for step in range(3):
                repo.commit({f"{number}/{step}": bytes([number, step]), "shared": bytes([number])}, message=f"{number}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = content(repo)
    assert found.pop("shared") in [bytes([number]) for number in range(4)]
    assert found == {f"{number}/{step}": bytes([number, step]) for number in range(4) for step in range(3)}
    assert len(list(repo.log())) == 13


def test_a_mirror_takes_nothing_from_a_writer_who_came_first(repo: Repository) -> None:
    """Where the branch moves while a mirror is made, it is looked at anew: it mirrors what is there then."""
    repo.commit({"a/1": b"1", "a/2": b"2", "b": b"3"})
    report = repo.commit({"a/1": b"1"}, mirror="a")
    assert report.deleted == ("a/2",)
    assert content(repo) == {"a/1": b"1", "b": b"3"}


# --- Between repositories -------------------------------------------------------------------------------


def test_folders_are_copied_within_a_repository_and_to_another_one(store: Store, repo: Repository) -> None:
    repo.commit({"a/large.bin": LARGE, "a/b/small": b"1", "c": b"2"})
    repo.copy_from(repo, path="a", to="copy")
    assert content(repo)["copy/large.bin"] == LARGE
    other = store.create_repo("datasets/bob/other", is_private=True)
    report = other.copy_from(repo, path="a", message="theirs")
    assert report.new_bytes <= 1, "no large file was moved"
    assert content(other) == {"large.bin": LARGE, "b/small": b"1"}
    store.delete_repo("alice/bert")
    assert content(other)["large.bin"] == LARGE
    other.commit({"b/more": b"3"})
    other.copy_from(other, path="large.bin", to="b/large.bin")
    other.copy_from(other, path="b", to="d", delete_source=True)
    assert content(other) == {"large.bin": LARGE, "d/small": b"1", "d/more": b"3", "d/large.bin": LARGE}


def test_files_of_another_repository_are_not_to_be_named(store: Store, repo: Repository) -> None:
    """A pointer to what was uploaded to another repository only would give its bytes away."""
    repo.commit({"secret.bin": LARGE})
    file = repo.file("secret.bin")
    assert file.sha256 is not None
    assert file.hash is not None
    other = store.create_repo("bob/curious")
    from xetstore.records import NewPointer

    names, _ = store.call_names()
    with pytest.raises(UnprocessableError):
        names.commit(other.id, "main", [NewPointer("mine.bin", file.sha256, file.size)], message="?")
    with pytest.raises(XetError):
        store.files_of(other.id, "main").stat(file.hash)


def test_repositories_of_two_stores(repo: Repository, tmp_path: Path) -> None:
    repo.commit({"a/large.bin": LARGE, "a/small": b"1"})
    with xetstore.open(tmp_path / "other store") as other:
        copy = other.repo("carol/copy")
        copy.copy_from(repo, path="a", create=True)
        assert content(copy) == {"large.bin": LARGE, "small": b"1"}
        assert copy.copy_from(repo, path="a").is_new is False


def test_a_bucket_has_no_revisions(store: Store) -> None:
    bucket = store.create_repo("buckets/alice/things")
    assert bucket.info().head is None
    for call in (lambda: list(bucket.files()), lambda: bucket.commit({"a": b"1"}), bucket.branches):
        with pytest.raises(UsageError, match="bucket"):
            call()


def test_a_repository_of_the_same_name_is_another_one(store: Store, tmp_path: Path) -> None:
    """Its files go to a namespace of its own, also where the one before was used a moment ago."""
    for number in range(2):
        repo = store.create_repo("alice/again")
        repo.commit({"model.bin": LARGE, f"{number}.bin": bytes([number]) * 1000})
        assert content(repo) == {"model.bin": LARGE, f"{number}.bin": bytes([number]) * 1000}
        store.delete_repo("alice/again")


def test_a_repository_that_another_process_replaced_is_seen(tmp_path: Path) -> None:
    with xetstore.open(tmp_path / "store") as one, xetstore.open(tmp_path / "store") as other:
        one.create_repo("alice/again").commit({"model.bin": LARGE})
        other.delete_repo("alice/again")
        other.create_repo("alice/again")
        repo = one.repo("alice/again")
        assert content(repo) == {}
        repo.commit({"model.bin": LARGE})
        assert content(repo) == {"model.bin": LARGE}


def test_git_is_told_which_files_are_large(tmp_path: Path) -> None:
    """A file of a kind that .gitattributes does not name: git would take its pointer for the file."""
    with xetstore.open(tmp_path / "store") as store:
        repo = store.create_repo("alice/bert")
        repo.commit({"odd.weights": LARGE})
        assert repo.file("odd.weights").hash is not None
        with repo.open(".gitattributes") as file:
            assert b"weights filter=lfs" in file.read()
        assert repo.commit({"odd.weights": LARGE}).is_new is False
        own = {".gitattributes": b"*.png filter=lfs\n", "other.weights": LARGE[:-1]}
        repo.commit(own)
        assert repo.commit(own).is_new is False, "what the caller gives stays"


def test_any_number_of_repositories_of_a_server_keep_as_many_files_open_as_one(tmp_path: Path) -> None:
    """They share what this machine keeps of the server: its xorbs, and chunks."""
    path = tmp_path / "large.bin"
    with (
        EmbeddedCas.open(tmp_path / "store") as cas,
        live_server(cas, auth="none") as server,
        xetstore.open(server.url, cache=tmp_path / "cache") as store,
    ):
        for number in range(4):
            path.write_bytes(splitmix64(50 + number, 3 << 20))
            repo = store.create_repo(f"alice/bert{number}")
            repo.commit({"large.bin": path})
        times = Counter(name.resolve().name for name in Path("/proc/self/fd").iterdir())
    assert {name: times[name] for name in times if name.startswith("known.")} == dict.fromkeys(
        ("known.sqlite3", "known.sqlite3-wal", "known.sqlite3-shm"), 1
    )
