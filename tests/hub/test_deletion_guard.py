"""A file that a repository names is not deleted by its hash, wherever it is named, and whoever commits beside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from tests.support import engines
from tests.support.hubs import ALICE, create, opened_hub, uploaded
from tests.support.turns import in_turns
from xetstore.cas import EmbeddedCas
from xetstore.errors import ForbiddenError, NotFoundError
from xetstore.hub.buckets import Bucket, DropFile, PutFile
from xetstore.hub.check import verify_names
from xetstore.hub.deletion_guard import guard_named
from xetstore.hub.names import Kind
from xetstore.hub.operations import AddPointer, Delete
from xetstore.hub.queries import Part
from xetstore.hub.rights import LOCAL, Right
from xetstore.hub.service import EmbeddedHub
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock
from xetstore.testing.samples import random_bytes

ENGINES = engines.BOTH
SIZE = 1000


@pytest.fixture
def hub(engine: str, root: Path, request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[EmbeddedHub]:
    with opened_hub(engine, root, request, clock) as hub:
        hub.cas.deletion_guard = guard_named
        yield hub


def pointer_to(data_seed: int) -> AddPointer:
    return AddPointer("large.bin", hashlib.sha256(random_bytes(SIZE, data_seed)).digest(), SIZE)


def refused(cas: EmbeddedCas, file: Hash) -> None:
    for dry_run in (True, False):
        with pytest.raises(ForbiddenError, match="is part of") as caught:
            cas.delete([file], dry_run=dry_run)
        assert "xet rm xet://" in (caught.value.hint or "")
    assert cas.stat(file).size == SIZE


def test_a_file_that_nothing_names_is_deleted(hub: EmbeddedHub) -> None:
    for kind, name in ((Kind.MODELS, "Alice/bert"), (Kind.BUCKETS, "Alice/logs")):
        repository = create(hub, name, kind)
        file = uploaded(repository, SIZE)
        repository.cas.delete([file])
        with pytest.raises(NotFoundError):
            repository.cas.stat(file)
    assert verify_names(hub) == []


def test_a_file_of_any_revision_is_kept(hub: EmbeddedHub) -> None:
    bert = create(hub, "Alice/bert")
    file = uploaded(bert, SIZE)
    bert.commit("main", [pointer_to(1)], "large")
    refused(bert.cas, file)
    bert.commit("main", [Delete("large.bin")], "small again")
    refused(bert.cas, file)
    assert verify_names(hub) == []


def test_a_file_of_a_bucket_is_kept_also_after_it_was_dropped(hub: EmbeddedHub) -> None:
    """As long as its path can be given back."""
    bucket = Bucket(create(hub, "Alice/logs", Kind.BUCKETS))
    cas = bucket.repository.cas
    file = uploaded(bucket.repository, SIZE)
    assert not bucket.change([PutFile("day/1", file)])
    refused(cas, file)
    assert not bucket.change([DropFile("day/1")])
    refused(cas, file)


def test_a_part_of_an_upload_is_kept(hub: EmbeddedHub) -> None:
    bert = create(hub, "Alice/bert")
    file = uploaded(bert, SIZE)
    hub.change(lambda writer, _: writer.put_part(bert.row.id, bytes(32), Part(1, file, SIZE), hub.now()))
    refused(bert.cas, file)


def test_the_same_file_elsewhere_is_free(hub: EmbeddedHub) -> None:
    bert, other = create(hub, "Alice/bert"), create(hub, "Alice/other")
    file = uploaded(bert, SIZE)
    assert uploaded(other, SIZE) == file
    bert.commit("main", [pointer_to(1)], "large")
    other.cas.delete([file])
    refused(bert.cas, file)


def test_a_store_as_it_is_opened_has_the_guard(root: Path) -> None:
    with EmbeddedCas.open(root) as cas:
        bert = create(EmbeddedHub(cas), "Alice/bert", actor=LOCAL)
        file = uploaded(bert, SIZE)
        bert.commit("main", [pointer_to(1)], "large")
    with xetstore.open(root) as store, pytest.raises(ForbiddenError):
        store.files_of(store.repo("Alice/bert").id, "main").delete(file)


# --- Beside writers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["names", "deletes"])
@pytest.mark.parametrize("kind", [Kind.MODELS, Kind.BUCKETS])
def test_what_is_named_while_it_is_deleted_leads_somewhere(hub: EmbeddedHub, kind: Kind, first: str) -> None:
    """The one that comes second is refused."""
    repository = create(hub, "Alice/some", kind)
    file = uploaded(repository, SIZE)
    failures: list[object] = []

    def name() -> None:
        if kind is Kind.BUCKETS:
            opened = hub.repository(ALICE, kind, "Alice/some", Right.WRITE)
            failures.extend(Bucket(opened).change([PutFile("a", file)]))
        else:
            repository.commit("main", [pointer_to(1)], "large")

    def delete() -> None:
        repository.cas.delete([file])

    one, other = (name, delete) if first == "names" else (delete, name)
    failed, error = in_turns(hub.cas.index, one, other)
    assert failed is None
    assert verify_names(hub) == []
    if first == "names":
        assert isinstance(error, ForbiddenError)
        assert repository.cas.stat(file).size == SIZE
    else:
        assert error is not None or failures
        with pytest.raises(NotFoundError):
            repository.cas.stat(file)
