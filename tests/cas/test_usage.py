"""What deleting frees, and what namespaces have, compared with sums over every chunk of every file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.collecting import revoke
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import verify_invariants
from xetstore.cas.collecting import collect
from xetstore.cas.grace import Grace
from xetstore.cas.lease import Lease
from xetstore.cas.quotas import set_quota
from xetstore.cas.rewriting.rewrite import rewrite
from xetstore.cas.usage import Ids, usage_by_namespace, what_if_deleted
from xetstore.errors import NotFoundError
from xetstore.protocol.chunking import chunk_bytes
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import Shard
from xetstore.protocol.xorb import CompressionPolicy, XorbBuilder, XorbInfo
from xetstore.testing import FakeClock, Sample, random_bytes, upload
from xetstore.testing.samples import entry_of

ENGINES = engines.BOTH

NAMESPACES = ("a", "b", "c")
FIXED = 116
"""The other bytes behind the region of an object."""
FOOTER = 48
"""Bytes at the end of an object for each chunk: 40 in the footer, and a checksum."""


class Mixed:
    """A store of files that share chunks of some xorbs, in three namespaces; and the truth about it."""

    def __init__(self, cas: EmbeddedCas, seed: int) -> None:
        self.cas = cas
        self.random = random.Random(seed)
        self.xorbs: list[XorbInfo] = []
        self.terms: dict[Hash, list[Term]] = {}
        self.has: dict[str, set[Hash]] = {namespace: set() for namespace in NAMESPACES}
        for number in range(4):
            data = random_bytes(700_000, seed * 100 + number)
            chunks = chunk_bytes(data)
            builder = XorbBuilder()
            builder.append([data], chunks, policy=CompressionPolicy.LZ4.kernel)
            info, body = builder.finish()
            for namespace in NAMESPACES:
                cas.in_namespace(namespace).put_xorb(info.hash, body)
            self.xorbs.append(info)
        for _ in range(14):
            self.add_file()

    def add_file(self) -> None:
        parts = []
        for _ in range(self.random.randint(1, 3)):
            info = self.random.choice(self.xorbs)
            start = self.random.randrange(info.chunk_count)
            end = self.random.randint(start + 1, min(info.chunk_count, start + 4))
            chunks = info.chunks.slice(start, end)
            parts.append((Term(info.hash, start, end, chunks.total_bytes), chunks))
        entry = entry_of(parts)
        self.terms[entry.hash] = list(entry.terms)
        for namespace in self.random.sample(NAMESPACES, self.random.choice((1, 1, 1, 2))):
            self.cas.in_namespace(namespace).put_shard(Shard((entry,)))
            self.has[namespace].add(entry.hash)

    def chunks_of(self, files: set[Hash]) -> set[tuple[Hash, int]]:
        return {
            (term.xorb, chunk)
            for file in files
            for term in self.terms[file]
            for chunk in range(term.chunk_start, term.chunk_end)
        }

    def stored(self, chunks: set[tuple[Hash, int]], entry: int = 0) -> int:
        infos = {info.hash: info for info in self.xorbs}
        total = 0
        for xorb, chunk in chunks:
            start, end = infos[xorb].byte_range(chunk, chunk + 1)
            total += end - start + entry
        return total

    def live(self) -> set[Hash]:
        return set().union(*self.has.values())


@pytest.fixture(params=range(3))
def mixed(cas: EmbeddedCas, request: pytest.FixtureRequest) -> Mixed:
    return Mixed(cas, request.param)


def ideal(root: Path, mixed: Mixed, live: set[Hash]) -> int:
    """Bytes of xorbs on the disk once all is gone that these files do not need."""
    used = mixed.chunks_of(live)
    total = 0
    for info in mixed.xorbs:
        if {chunk for chunk in used if chunk[0] == info.hash}:
            [path] = (root / "xorbs").rglob(f"{info.hash}*")
            unused = {(info.hash, number) for number in range(info.chunk_count)} - used
            total += path.stat().st_size - mixed.stored(unused, FOOTER)
    return total


def test_what_deleting_would_free_is_exact(mixed: Mixed, root: Path) -> None:
    for number in range(12):
        namespace = mixed.random.choice(NAMESPACES)
        some = set(
            mixed.random.sample(sorted(mixed.has[namespace], key=str), min(number // 2 + 1, len(mixed.has[namespace])))
        )
        whole = {"c"} if number % 4 == 3 else set()
        left = {
            name: set() if name in whole else files - (some if name == namespace else set())
            for name, files in mixed.has.items()
        }
        others = set().union(*left.values())
        named = some | set().union(*(mixed.has[name] for name in whole))
        answer = what_if_deleted(mixed.cas, {namespace: some}, whole)
        sizes = {file: sum(term.unpacked_bytes for term in mixed.terms[file]) for file in named}
        assert (answer.files, answer.logical_bytes) == (len(named), sum(sizes.values()))
        assert answer.gone == len(named - others)
        theirs, kept = mixed.chunks_of(named), mixed.chunks_of(others)
        touched, used = {xorb for xorb, _ in theirs}, {xorb for xorb, _ in kept}
        assert answer.objects == len(touched - used)
        assert answer.part_bytes == mixed.stored({one for one in theirs - kept if one[0] in used}, FOOTER)
        assert answer.parts == len({xorb for xorb, _ in theirs - kept if xorb in used})
        assert answer.shared_bytes == mixed.stored(theirs & kept, FOOTER)
        sharing = {file for file in others if mixed.chunks_of({file}) & theirs}
        assert answer.other_files == len(sharing - named)
        assert answer.other_namespaces == sum(bool(files & sharing) for files in left.values())
        nothing_unused = mixed.chunks_of(mixed.live())
        garbage = {(info.hash, n) for info in mixed.xorbs for n in range(info.chunk_count)} - nothing_unused
        touched_garbage = {one for one in garbage if one[0] in touched & used}
        assert answer.garbage_bytes == mixed.stored(touched_garbage, FOOTER)
        whole_garbage = mixed.stored({one for one in garbage if one[0] in touched - used}, FOOTER)
        before, after = ideal(root, mixed, mixed.live()), ideal(root, mixed, others)
        assert answer.freed_bytes - whole_garbage == before - after
    verify_invariants(mixed.cas)


@pytest.mark.parametrize("seed", range(2))
def test_what_was_foretold_is_what_goes_from_the_disk(
    cas: EmbeddedCas, clock: FakeClock, root: Path, seed: int
) -> None:
    mixed = Mixed(cas, seed)

    def stored() -> tuple[int, int]:
        """Bytes and objects of xorbs, once nothing is left to collect and to rewrite."""
        for _ in range(3):
            clock.advance(10)
            lease = Lease.take(cas.index, "collect")
            assert lease is not None
            with lease:
                collect(cas, lease, Grace(0, 0))
                rewrite(cas, lease, threshold=0, locality=None, grace=Grace(0, 0))
        objects = [path.stat().st_size for path in (root / "xorbs").rglob("*") if path.is_file()]
        return sum(objects), len(objects)

    for namespace in NAMESPACES:  # full ones are rewritten, too
        set_quota(cas, namespace, max_bytes=0, max_files=0)
    before, objects_before = stored()
    its = sorted(mixed.has["a"], key=str)
    foretold = 0
    for some in (its[:2], its[2:5], its[5:]):
        answer = what_if_deleted(cas, {"a": some})
        assert not answer.garbage_bytes
        foretold += answer.freed_bytes
        revoke(cas.in_namespace("a"), *some)
        after, objects = stored()
        packed = objects_before - objects - answer.objects
        assert before - after == answer.freed_bytes + packed * FIXED
        before, objects_before = after, objects
    assert foretold
    verify_invariants(cas)


def test_the_usage_of_namespaces_is_exact(mixed: Mixed, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {}
    for namespace, files in mixed.has.items():
        own = mixed.chunks_of(files)
        theirs = mixed.chunks_of(set().union(*(other for name, other in mixed.has.items() if name != namespace)))
        logical = sum(term.unpacked_bytes for file in files for term in mixed.terms[file])
        expected[namespace] = (len(files), logical, mixed.stored(own - theirs), mixed.stored(own & theirs))
    usages = usage_by_namespace(mixed.cas)
    found = {
        usage.namespace: (usage.files, usage.logical_bytes, usage.unique_bytes, usage.shared_bytes) for usage in usages
    }
    assert found == expected
    assert [usage.unique_bytes for usage in usages] == sorted((one[2] for one in found.values()), reverse=True)
    # The same in the smallest groups and pages.
    for name in ("FILES_AT_A_TIME", "USERS_AT_A_TIME", "PAIRS_AT_A_TIME"):
        monkeypatch.setattr(f"xetstore.cas.usage.{name}", 2)
    assert usage_by_namespace(mixed.cas) == usages
    one = {"a": mixed.has["a"]}
    small = what_if_deleted(mixed.cas, one)
    monkeypatch.undo()
    assert small == what_if_deleted(mixed.cas, one)


def test_a_file_that_others_have_too_frees_nothing(cas: EmbeddedCas, sample: Sample) -> None:
    upload(cas, sample)
    upload(cas.in_namespace("b"), sample)
    answer = what_if_deleted(cas, {"default": [sample.file.hash]})
    assert (answer.freed_bytes, answer.gone, answer.other_files, answer.other_namespaces) == (0, 0, 0, 1)
    assert answer.shared_bytes > len(sample.data)
    both = what_if_deleted(cas, {"default": [sample.file.hash]}, ["b"])
    assert (both.objects, both.gone, both.shared_bytes) == (1, 1, 0)
    assert both.object_bytes == sum(info.size for info in cas.blobs.list("xorbs/"))


def test_files_that_are_deleted_already_keep_nothing(cas: EmbeddedCas, sample: Sample) -> None:
    upload(cas, sample)
    upload(cas.in_namespace("b"), sample)
    cas.index.change(lambda writer: writer.revoke("b", [sample.file.hash], now=1.0))
    assert what_if_deleted(cas, {"default": [sample.file.hash]}).objects == 1
    with pytest.raises(NotFoundError):
        what_if_deleted(cas, {"b": [sample.file.hash]})


def test_a_set_of_ids_is_one_of_bits() -> None:
    ids = Ids()
    ids.update([7, 8, 7, 100_000, 0])
    assert [*ids] == [0, 7, 8, 100_000]
    assert len(ids) == 4
    assert 8 in ids
    assert 9 not in ids
    assert 10**9 not in ids
