"""A pipe in place of any file of a store: an answer or an error, and no thread that waits for a writer for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.objects import xorb_object
from xetstore.access.keys import KeyRing
from xetstore.access.tokens import Scope, TokenAuthority
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.errors import AccessDeniedError, DamagedError, NotFoundError, UnavailableError, UsageError
from xetstore.interfaces import BlobStore
from xetstore.testing import Sample, upload


def put_pipe(path: Path) -> None:
    """Replace a file by a pipe that is written to by nothing."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    "read",
    [
        lambda blobs, key: blobs.get(key),
        lambda blobs, key: blobs.get_range(key, 0, 1),
        lambda blobs, key: blobs.get_range(key, 0, 0),
    ],
)
def test_a_pipe_in_place_of_an_object_is_no_object(
    cas: EmbeddedCas, root: Path, sample: Sample, read: Callable[[BlobStore, str], object]
) -> None:
    upload(cas, sample)
    key = xorb_object(cas, sample.xorb.hash)
    put_pipe(root / key)
    assert cas.blobs.stat(key) is None
    with pytest.raises(NotFoundError):
        read(cas.blobs, key)


def test_a_check_of_a_store_with_a_pipe_ends(cas: EmbeddedCas, root: Path, sample: Sample) -> None:
    upload(cas, sample)
    for blob in [*cas.blobs.list()]:
        put_pipe(root / blob.key)
    assert list(check(cas).problems)


@pytest.mark.parametrize(("name", "error"), [("format", UsageError), ("index.sqlite3", DamagedError)])
def test_a_store_with_a_pipe_for_its_format_or_index_does_not_open(
    cas: EmbeddedCas, root: Path, sample: Sample, name: str, error: type[Exception]
) -> None:
    upload(cas, sample)
    cas.close()
    put_pipe(root / name)
    with pytest.raises(error, match="no regular file"):
        EmbeddedCas.open(root)


def test_pipes_in_the_access_folder_are_refused(tmp_path: Path) -> None:
    keys = KeyRing.open(tmp_path / "access")
    authority = TokenAuthority(keys)
    token = authority.issue(scope=Scope.READ, namespace="default")
    put_pipe(tmp_path / "access" / "revoked")
    with pytest.raises(UnavailableError, match="no regular file"):
        authority.verify(token)
    put_pipe(tmp_path / "access" / "keys.json")
    with pytest.raises(AccessDeniedError, match="no regular file"):
        KeyRing.open(tmp_path / "access")
