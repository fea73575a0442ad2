"""EmbeddedCasContract: the promises of a store in this process, whatever keeps its objects and its index."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from xetstore.cas.check import check, verify_invariants
from xetstore.cas.index import ObjectRow
from xetstore.cas.layout import STORES
from xetstore.cas.service import EmbeddedCas
from xetstore.interfaces import BlobInfo, BlobStore, Cas
from xetstore.testing.cas import CasContract
from xetstore.testing.samples import Sample, make_sample, random_bytes, read_back, upload

CLIENTS: Final = 64
_PATIENCE_SECONDS: Final = 120
"""The end of a wait that would not end by itself."""


def at_once(calls: Sequence[Callable[[], bool]]) -> list[bool]:
    """The answers of calls that are made at the same moment, a thread each. Raises what the first of them raised."""
    start = threading.Barrier(len(calls))
    answers: dict[int, bool] = {}
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            start.wait(_PATIENCE_SECONDS)
            answers[number] = calls[number]()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_SECONDS)
    if failures:
        raise failures[0]
    assert len(answers) == len(calls), "some of them did not end"
    return [answers[number] for number in range(len(calls))]


def put_at_once(clients: Sequence[Cas], sample: Sample) -> None:
    """Let clients, of one namespace, put the same xorb at once, and then the same shard; each is new to one of them."""
    xorbs = at_once([partial(client.put_xorb, sample.xorb.hash, sample.body) for client in clients])
    assert xorbs.count(True) == 1
    shards = at_once([partial(client.put_shard, sample.shard) for client in clients])
    assert shards.count(True) == 1


def data_in(blobs: BlobStore) -> list[BlobInfo]:
    """All objects but the one that names the store."""
    return [blob for blob in blobs.list() if not blob.key.startswith(STORES)]


def expect_one_of_each(cas: EmbeddedCas, samples: Sequence[Sample]) -> None:
    """Each of these samples, and nothing else, is in a store: a row and an object for its xorb and its shard."""
    with cas.index.snapshot() as reader:
        rows: list[ObjectRow] = [*reader.xorbs_after(0), *reader.shards_after(None)]
    assert len(rows) == 2 * len(samples)
    assert sorted(blob.key for blob in data_in(cas.blobs)) == sorted(row.key for row in rows)
    assert check(cas).notes == ()
    verify_invariants(cas)
    for sample in samples:
        assert read_back(cas, sample.file.hash) == sample.data


class EmbeddedCasContract(CasContract):
    """:class:`CasContract`, and all that only who sees the objects and the index can tell.

    Subclass it with a fixture ``cas`` that gives an empty EmbeddedCas.
    """

    def test_of_many_who_put_the_same_at_once_one_is_told_that_it_is_new(self, cas: EmbeddedCas) -> None:
        """One row and one object are left of the xorb, and of the shard."""
        sample = make_sample(random_bytes(150_000, 1), before=random_bytes(50_000, 2))
        put_at_once([cas] * CLIENTS, sample)
        expect_one_of_each(cas, [sample])

    def test_of_many_uploads_that_have_all_begun_one_counts(self, cas: EmbeddedCas) -> None:
        """Each has written its own object, and knows of no other, before the first of them is registered."""
        sample = make_sample(random_bytes(150_000, 1))
        with contextlib.ExitStack() as stack:
            receivers = [stack.enter_context(cas.receive_xorb(sample.xorb.hash)) for _ in range(CLIENTS)]
            for receiver in receivers:
                receiver.write(sample.body)
            assert at_once([receiver.commit for receiver in receivers]).count(True) == 1
        upload(cas, sample)
        expect_one_of_each(cas, [sample])

    def test_of_many_who_heal_the_same_at_once_one_counts(self, cas: EmbeddedCas) -> None:
        """The object in place of the damaged one is the only one, but for the old one where that can still be read."""
        sample = make_sample(random_bytes(150_000, 1))
        upload(cas, sample)
        cas.blobs.delete_many([blob.key for blob in data_in(cas.blobs)])
        put = partial(cas.put_xorb, sample.xorb.hash, sample.body)
        assert at_once([put] * CLIENTS).count(True) == 1
        assert at_once([partial(cas.put_shard, sample.shard)] * CLIENTS).count(True) == 0, "the file was there"
        expect_one_of_each(cas, [sample])

    def test_each_new_object_has_a_key_that_none_has_had(self, cas: EmbeddedCas) -> None:
        """Also the next object of the same xorb and shard, when the one before is gone."""
        sample = make_sample(random_bytes(20_000, 1))
        keys: list[str] = []
        for _ in range(3):
            upload(cas, sample)
            found = [blob.key for blob in data_in(cas.blobs)]
            assert len(found) == 2
            keys += found
            cas.blobs.delete_many(found)
        assert len(set(keys)) == 6
        upload(cas, sample)

    def test_what_is_put_again_writes_nothing(self, cas: EmbeddedCas) -> None:
        """Neither the xorb nor the shard, whichever namespace puts it."""
        sample = make_sample(random_bytes(20_000, 1))
        upload(cas, sample)
        before = [*cas.blobs.list()]
        for view in (cas, cas.in_namespace("other")):
            upload(view, sample)
        assert [*cas.blobs.list()] == before
