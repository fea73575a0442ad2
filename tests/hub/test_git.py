"""Repositories are git: the real git takes what is stored, and finds no fault in it."""

from __future__ import annotations

import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from xetstore.cas import EmbeddedCas
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.objects import EXECUTABLE, SYMLINK
from xetstore.hub.operations import AddFile, Copy, Delete
from xetstore.hub.repository import Repository
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub

_ALL = "SELECT oid, kind, size, data FROM git_object WHERE repository_id = :id"


@pytest.fixture
def repository() -> Iterator[Repository]:
    with EmbeddedCas.in_memory() as cas:
        yield EmbeddedHub(cas).create(LOCAL, RepositoryName(Kind.MODELS, "alice", "bert"))


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "safe.directory=*", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def written_out(repository: Repository, folder: Path) -> Path:
    """The repository as a bare one of git's own, made of loose objects and refs."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main")
    with repository.hub.snapshot() as reader:
        words = {1: b"commit", 2: b"tree", 3: b"blob", 4: b"tag"}
        for oid, kind, size, data in reader.connection.rows(_ALL, {"id": repository.row.id}):
            path = folder / "objects" / bytes(oid).hex()[:2] / bytes(oid).hex()[2:]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(b"%s %d\0" % (words[kind], size) + zlib.decompress(data)))
        for name, oid in reader.refs(repository.row.id):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(oid.hex() + "\n")
    return folder


def test_git_finds_no_fault_and_reads_the_same(repository: Repository, tmp_path: Path) -> None:
    repository.commit(
        "main",
        [
            AddFile("a/b.txt", b"1"),
            AddFile("a.txt", b"2"),
            AddFile("a-b/é☃ x", b"3"),
            AddFile("run.sh", b"#!/bin/sh\n", EXECUTABLE),
            AddFile("link", b"a.txt", SYMLINK),
        ],
        "The first, ☃\n\nAnd more of it.",
    )
    repository.create_branch("dev/x")
    repository.commit("dev/x", [Copy("copy", "a"), Delete("a")], "On a branch")
    repository.create_tag("v1", "main", "A release")
    repository.create_tag("v1-light", "dev/x")
    repository.create_branch("empty", is_empty=True)
    folder = written_out(repository, tmp_path / "bare")
    assert git(folder, "fsck", "--strict", "--full", "--no-dangling") == ""
    for branch in ("main", "dev/x"):
        revision = repository.revision(branch)
        listed = git(folder, "ls-tree", "-r", "-t", "-z", branch).rstrip("\0").split("\0")
        told = {line.partition("\t")[2]: line.split()[0::2][:2] for line in listed}
        entries = repository.entries(revision, recursive=True)
        assert told == {entry.path: [f"{entry.mode:06o}", entry.id] for entry in entries}
        assert git(folder, "rev-list", branch).split() == [each.id for each in repository.log(revision, limit=100)]
    assert git(folder, "show", "main:a-b/é☃ x") == "3"
    assert git(folder, "log", "-1", "--format=%an|%B", "main").strip() == "local|The first, ☃\n\nAnd more of it."
    assert git(folder, "rev-parse", "v1^{commit}").strip() == repository.revision("v1").id
    assert git(folder, "ls-tree", "empty") == ""


def test_ids_are_those_that_git_gives(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"some bytes\0\xff")
    repository.commit("main", [AddFile("x", b"some bytes\0\xff")], "add")
    assert git(tmp_path, "hash-object", "x").strip() == repository.entry(repository.revision(), "x").id
