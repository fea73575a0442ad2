"""Files in another repository by grants alone: exactly what the copier could read."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from tests.support import engines
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.errors import NotFoundError, UnprocessableError
from xetstore.hub.copies import copy_files
from xetstore.hub.sha256 import require_file
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.testing import Sample, make_sample, random_bytes, read_back, upload

ENGINES = engines.BOTH


def sample(seed: int) -> Sample:
    return make_sample(random_bytes(60_000, seed))


def copy(source: EmbeddedCas, target: EmbeddedCas, files: list[Hash]) -> list[Hash]:
    names = source.tenant.namespace, target.tenant.namespace
    return source.index.change(lambda writer: copy_files(writer, *names, files, now=source.now()))


@pytest.fixture
def views(cas: EmbeddedCas) -> list[EmbeddedCas]:
    return [cas.in_namespace(f"models/{name}/one") for name in ("anna", "bert", "carl")]


def test_a_copy_grants_what_the_source_has_and_says_what_it_has_not(views: list[EmbeddedCas]) -> None:
    anna, bert, carl = views
    one, other, hidden = sample(1), sample(2), sample(3)
    upload(anna, one)
    upload(anna, other)
    upload(carl, hidden)
    unknown = chunk_hash(b"unknown")
    assert copy(anna, bert, [hidden.file.hash, one.file.hash, unknown, hidden.file.hash]) == [hidden.file.hash, unknown]
    assert [record.hash for record in bert.files()] == [one.file.hash]
    assert read_back(bert, one.file.hash) == one.data
    for file in (other.file.hash, hidden.file.hash):
        with pytest.raises(NotFoundError):
            bert.reconstruct(file)
    assert copy(anna, bert, [one.file.hash]) == []
    verify_invariants(anna)


def test_a_copy_has_the_sha256_of_the_source(views: list[EmbeddedCas]) -> None:
    """One that was computed as such, and one that is claimed as a claim, which is not believed there either."""
    anna, bert, carl = views
    one, lie = sample(1), sample(2)
    told = {one.file.hash: hashlib.sha256(one.data).digest(), lie.file.hash: bytes(32)}
    upload(anna, one)
    upload(anna, replace(lie, file=replace(lie.file, sha256=bytes(32))))
    require_file(anna, told[one.file.hash])
    copy(anna, bert, [*told])
    copy(bert, carl, [*told])
    with carl.index.snapshot() as reader:
        assert reader.file_by_sha256("models/carl/one", told[one.file.hash]) == (carl.stat(one.file.hash), True)
        assert reader.file_by_sha256("models/carl/one", bytes(32)) == (carl.stat(lie.file.hash), False)
    with pytest.raises(UnprocessableError):
        require_file(carl, bytes(32))


def test_a_copy_is_part_of_its_transaction(views: list[EmbeddedCas]) -> None:
    anna, bert, _ = views
    one = sample(1)
    upload(anna, one)
    with pytest.raises(ZeroDivisionError), anna.index.transaction() as writer:
        assert copy_files(writer, "models/anna/one", "models/bert/one", [one.file.hash], now=1.0) == []
        raise ZeroDivisionError
    with pytest.raises(NotFoundError):
        bert.stat(one.file.hash)


def test_many_files_are_copied_at_once(views: list[EmbeddedCas]) -> None:
    anna, bert, _ = views
    samples = [make_sample(random_bytes(100, seed)) for seed in range(40)]
    for one in samples:
        upload(anna, one)
    unknown = [chunk_hash(b"%d" % number) for number in range(3000)]
    assert copy(anna, bert, [one.file.hash for one in samples] + unknown) == unknown
    assert {record.hash for record in bert.files()} == {one.file.hash for one in samples}
