"""A damaged object: nothing leans on it, and who puts its bytes again replaces it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cas.test_faults import CRASHES
from tests.support import engines
from tests.support.objects import xorb_object, xorb_row
from xetstore.access.tenant import DedupDomain
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.healing import SUPERSEDED_SECONDS
from xetstore.errors import DamagedError, ForbiddenError, IntegrityError, MissingXorbError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import FileEntry
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.testing import FakeClock, FaultPlan, Sample, make_sample, random_bytes, read_back, upload
from xetstore.testing.faults import CRASH_EXIT_CODE

ENGINES = engines.BOTH

Damage = Callable[[Path], None]


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def flip(path: Path, place: int = 500) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


SEEN: dict[str, Damage] = {"missing": Path.unlink, "cut": _cut, "longer": _lengthen}
"""What a look at the file system shows."""


def object_of(cas: EmbeddedCas, root: Path, xorb: Hash) -> Path:
    """Where the object lies that counts."""
    return root / xorb_object(cas, xorb)


def is_marked(cas: EmbeddedCas, xorb: Hash) -> bool:
    return xorb_row(cas, xorb).is_damaged


@pytest.mark.parametrize("damage", SEEN)
def test_what_can_be_seen_is_not_leaned_on_and_is_healed_by_the_same_xorb(
    cas: EmbeddedCas, root: Path, sample: Sample, damage: str
) -> None:
    upload(cas, sample)
    first = object_of(cas, root, sample.xorb.hash)
    SEEN[damage](first)
    start = sample.file.terms[0].chunk_start
    assert cas.find_chunks(Hash(sample.xorb.chunks.digest(start))) is None
    with pytest.raises(MissingXorbError):
        cas.put_shard(sample.shard)
    assert is_marked(cas, sample.xorb.hash)
    assert cas.put_xorb(sample.xorb.hash, sample.body)
    assert not is_marked(cas, sample.xorb.hash)
    assert object_of(cas, root, sample.xorb.hash) != first
    assert not cas.put_xorb(sample.xorb.hash, sample.body), "healed once"
    assert not cas.put_shard(sample.shard), "the file was there, and is as it was"
    assert read_back(cas, sample.file.hash) == sample.data
    assert cas.find_chunks(Hash(sample.xorb.chunks.digest(start))) is not None
    verify_invariants(cas)


@pytest.mark.parametrize("finder", ["check", "suspicion"])
def test_a_flipped_bit_that_was_found_is_healed(cas: EmbeddedCas, root: Path, sample: Sample, finder: str) -> None:
    upload(cas, sample)
    flip(object_of(cas, root, sample.xorb.hash))
    cas.suspect(Hash(b"n" * 32))
    if finder == "check":
        assert check(cas, read_data=True).problems
    else:
        cas.suspect(sample.xorb.hash)
    assert is_marked(cas, sample.xorb.hash)
    [problem] = check(cas).problems
    assert problem.files == (sample.file.hash,)
    with pytest.raises(MissingXorbError):
        cas.put_shard(sample.shard)
    assert cas.put_xorb(sample.xorb.hash, sample.body)
    assert check(cas).problems == ()
    assert read_back(cas, sample.file.hash) == sample.data
    verify_invariants(cas)


def test_a_suspicion_is_not_believed(cas: EmbeddedCas, sample: Sample) -> None:
    upload(cas, sample)
    cas.suspect(sample.xorb.hash)
    assert not is_marked(cas, sample.xorb.hash)


def test_a_xorb_that_a_namespace_cannot_see_is_not_looked_at_for_it(
    cas: EmbeddedCas, root: Path, sample: Sample
) -> None:
    upload(cas, sample)
    flip(object_of(cas, root, sample.xorb.hash))
    cas.in_namespace("others").suspect(sample.xorb.hash)
    assert not is_marked(cas, sample.xorb.hash)


READS: dict[str, tuple[Damage, Callable[[EmbeddedCas, Sample], object]]] = {
    "of data that is gone": (Path.unlink, lambda cas, sample: read_back(cas, sample.file.hash)),
    "of data that was cut": (lambda path: os.truncate(path, 100), lambda cas, sample: read_back(cas, sample.file.hash)),
    "of a footer": (
        lambda path: os.truncate(path, path.stat().st_size - 300),
        lambda cas, sample: cas.file_chunks(sample.file.hash),
    ),
}


@pytest.mark.parametrize("which", READS)
def test_a_read_that_fails_leaves_a_mark(
    cas: EmbeddedCas, root: Path, sample: Sample, which: str, open_store: engines.OpenStore
) -> None:
    damage, read = READS[which]
    upload(cas, sample)
    damage(object_of(cas, root, sample.xorb.hash))
    with open_store() as other, pytest.raises(DamagedError) as caught:  # which remembers no footer
        read(other, sample)
    assert "put the file again" in str(caught.value.hint)
    assert is_marked(cas, sample.xorb.hash)


def test_a_footer_that_is_wrong_is_found_by_the_shard_that_leans_on_it(
    root: Path, sample: Sample, open_store: engines.OpenStore
) -> None:
    with open_store() as cas:
        upload(cas, sample)
        path = object_of(cas, root, sample.xorb.hash)
    flip(path, path.stat().st_size - 200)
    with open_store() as cas:  # which has not read it yet
        with pytest.raises(MissingXorbError):
            cas.put_shard(sample.shard)
        assert read_back(cas, upload(cas, sample)) == sample.data
        verify_invariants(cas)


def test_a_mark_that_was_wrong_is_taken_back_by_reading_everything(
    cas: EmbeddedCas, root: Path, sample: Sample, tmp_path: Path
) -> None:
    upload(cas, sample)
    path = object_of(cas, root, sample.xorb.hash)
    path.rename(tmp_path / "aside")
    assert check(cas).problems
    (tmp_path / "aside").rename(path)
    assert [problem.what for problem in check(cas).problems] == [
        "it was found damaged before; reading it (--read-data) tells whether it still is"
    ]
    assert check(cas, read_data=True).problems == ()
    assert check(cas).problems == ()
    assert not cas.put_shard(sample.shard)


def test_a_file_gets_terms_of_whole_xorbs_in_place_of_damaged_ones(
    cas: EmbeddedCas, root: Path, sample: Sample
) -> None:
    """The same bytes in another xorb; all that the index tells of the file follows."""
    upload(cas, sample)
    object_of(cas, root, sample.xorb.hash).unlink()
    alone = make_sample(sample.data)
    assert alone.xorb.hash != sample.xorb.hash
    cas.put_xorb(alone.xorb.hash, alone.body)
    assert cas.put_shard(alone.shard), "its terms are new"
    assert read_back(cas, sample.file.hash) == sample.data
    assert {term.xorb for term in cas.reconstruct(sample.file.hash).terms} == {alone.xorb.hash}
    assert [problem.files for problem in check(cas, read_data=True).problems] == [()], "no file needs it any more"
    assert not cas.put_shard(alone.shard)


def test_terms_of_whole_xorbs_are_kept(cas: EmbeddedCas, sample: Sample) -> None:
    upload(cas, sample)
    before = cas.reconstruct(sample.file.hash)
    upload(cas, make_sample(sample.data))
    assert cas.reconstruct(sample.file.hash) == before


def test_every_file_of_a_xorb_is_healed_with_it(cas: EmbeddedCas, root: Path) -> None:
    one, two = random_bytes(200_000, 1), random_bytes(200_000, 2)
    second, first = make_sample(two, before=one), make_sample(one)
    upload(cas, second)
    shared = replace(second.shard, files=(replace_terms(first, second),))
    cas.put_shard(shared)
    flip(object_of(cas, root, second.xorb.hash))
    cas.suspect(second.xorb.hash)
    upload(cas, second)
    assert read_back(cas, second.file.hash) == two
    assert read_back(cas, first.file.hash) == one
    verify_invariants(cas)


def replace_terms(file: Sample, xorb: Sample) -> FileEntry:
    """The file, made of the first chunks of another sample's xorb."""
    [term] = file.file.terms
    count = term.chunk_end - term.chunk_start
    assert xorb.xorb.chunks.slice(0, count) == file.xorb.chunks
    return replace(file.file, terms=(replace(term, xorb=xorb.xorb.hash, chunk_start=0, chunk_end=count),))


def test_another_compression_moves_the_ranges_and_nobody_reads_the_old_ones(cas: EmbeddedCas, root: Path) -> None:
    data = b"compressible " * 40_000
    packed, plain = make_sample(data), make_sample(data, policy=CompressionPolicy.NONE)
    upload(cas, packed)
    old = cas.reconstruct(packed.file.hash, 100_000, 300_000)
    object_of(cas, root, packed.xorb.hash).unlink()
    assert cas.put_xorb(plain.xorb.hash, plain.body)
    assert read_back(cas, packed.file.hash) == data
    assert read_back(cas, packed.file.hash, 100_000, 300_000) == data[100_000:300_000]
    [fetches] = old.fetches.values()
    with pytest.raises(ForbiddenError):
        cas.fetch_xorb(fetches[0])


def test_a_healed_xorb_is_not_answered_from_the_old_footer_in_another_process(
    root: Path, open_store: engines.OpenStore
) -> None:
    """The footers that a process has read are those of an object, not of a xorb."""
    data = b"compressible " * 40_000
    packed, plain = make_sample(data), make_sample(data, policy=CompressionPolicy.NONE)
    with open_store() as one, open_store() as other:
        upload(one, packed)
        assert read_back(other, packed.file.hash, 100_000, 300_000) == data[100_000:300_000]
        object_of(one, root, packed.xorb.hash).unlink()
        one.put_xorb(plain.xorb.hash, plain.body)
        assert read_back(other, packed.file.hash, 100_000, 300_000) == data[100_000:300_000]


def test_who_reads_the_old_object_gets_done_and_then_it_is_removed(
    root: Path, sample: Sample, open_store: engines.OpenStore
) -> None:
    clock = FakeClock()
    with open_store(clock=clock) as cas:
        upload(cas, sample)
        old = object_of(cas, root, sample.xorb.hash)
        flip(old)
        check(cas, read_data=True)
        upload(cas, sample)
        assert old.exists()
        [note] = check(cas).notes
        assert "is not used" in note
    clock.advance(SUPERSEDED_SECONDS - 1)
    with open_store(clock=clock) as cas:
        check(cas)
        assert old.exists()
    clock.advance(2)
    with open_store(clock=clock) as cas:
        assert check(cas, read_data=True).notes == ()
        assert not old.exists()
        assert read_back(cas, sample.file.hash) == sample.data
        with cas.index.snapshot() as reader:
            assert reader.superseded_before(clock() + 1) == []


def test_of_two_who_heal_at_once_one_object_stays(root: Path, sample: Sample, open_store: engines.OpenStore) -> None:
    with open_store() as one, open_store() as other:
        upload(one, sample)
        old = object_of(one, root, sample.xorb.hash)
        old.unlink()
        with one.receive_xorb(sample.xorb.hash) as first, other.receive_xorb(sample.xorb.hash) as second:
            for receiver in (first, second):
                receiver.write(sample.body)
            assert first.commit()
            second.commit()
        assert list(old.parent.iterdir()) == [object_of(one, root, sample.xorb.hash)]
        for cas in (one, other):
            assert read_back(cas, sample.file.hash) == sample.data
            verify_invariants(cas)


def test_a_heal_does_not_lean_on_another_one_that_was_damaged_since(
    root: Path, sample: Sample, open_store: engines.OpenStore
) -> None:
    with open_store() as one, open_store() as other:
        upload(one, sample)
        object_of(one, root, sample.xorb.hash).unlink()
        with one.receive_xorb(sample.xorb.hash) as first, other.receive_xorb(sample.xorb.hash) as second:
            for receiver in (first, second):
                receiver.write(sample.body)
            assert first.commit()
            object_of(one, root, sample.xorb.hash).unlink()
            assert second.commit()
        assert read_back(one, sample.file.hash) == sample.data
        verify_invariants(one)


def test_readers_and_healers_side_by_side(root: Path, sample: Sample, open_store: engines.OpenStore) -> None:
    """Whoever reads gets the file or an IntegrityError while it is damaged, and the file ever after."""
    with open_store() as cas:
        upload(cas, sample)
    done = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        with open_store() as cas:
            while not done.is_set():
                try:
                    data = read_back(cas, sample.file.hash)
                except (IntegrityError, ForbiddenError):
                    continue
                if data != sample.data:
                    wrong.append(data)

    def heal() -> None:
        with open_store() as cas:
            for _ in range(20):
                cas.put_xorb(sample.xorb.hash, sample.body)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    try:
        with open_store() as cas:
            for _ in range(10):
                object_of(cas, root, sample.xorb.hash).unlink()
                healers = [threading.Thread(target=heal) for _ in range(2)]
                for thread in healers:
                    thread.start()
                for thread in healers:
                    thread.join()
                assert read_back(cas, sample.file.hash) == sample.data
            verify_invariants(cas)
    finally:
        done.set()
        for thread in readers:
            thread.join()
    assert wrong == []


def test_xorbs_that_are_not_shared_do_not_heal_a_file_that_others_have_too(
    cas: EmbeddedCas, root: Path, sample: Sample
) -> None:
    """It would then be made, for the others, of what only one namespace has uploaded."""
    upload(cas, sample)
    alone = make_sample(sample.data)
    apart = cas.in_namespace("apart", dedup=DedupDomain.NAMESPACE)
    apart.put_xorb(alone.xorb.hash, alone.body)
    apart.put_shard(alone.shard)
    object_of(cas, root, sample.xorb.hash).unlink()
    with pytest.raises(DamagedError, match="cannot heal it"):
        apart.put_shard(alone.shard)
    apart.put_xorb(sample.xorb.hash, sample.body)  # the xorb itself heals it for everybody
    for view in (cas, apart):
        assert read_back(view, sample.file.hash) == sample.data


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "a flipped bit that was found"])
def test_wherever_a_healer_dies_the_next_one_heals(tmp_path: Path, damage: str) -> None:
    small = make_sample(random_bytes(100_000, 3))
    with EmbeddedCas.open(tmp_path / "damaged") as cas:
        upload(cas, small)
        path = object_of(cas, tmp_path / "damaged", small.xorb.hash)
        if damage == "missing":
            path.unlink()
        else:
            flip(path)
            check(cas, read_data=True)
    for number in range(60):
        shutil.copytree(tmp_path / "damaged", tmp_path / str(number))
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    codes = [int(line) for line in done.stdout.split()]
    assert 15 < len(codes) < 60
    assert codes == [CRASH_EXIT_CODE] * (len(codes) - 1) + [0]
    healed = []
    for number in range(len(codes)):
        with EmbeddedCas.open(tmp_path / str(number)) as cas:
            try:
                healed.append(read_back(cas, small.file.hash) == small.data)
            except IntegrityError:
                healed.append(False)
            assert read_back(cas, upload(cas, small)) == small.data
            verify_invariants(cas)
    # Up to the commit it is damaged, from then on it is whole.
    assert healed == sorted(healed)
    assert not healed[0]
    assert healed[-1]


def test_whichever_operation_of_a_healer_fails_the_next_one_heals(root: Path, sample: Sample) -> None:
    with FaultPlan().installed() as plan, EmbeddedCas.open(root) as cas:
        upload(cas, sample)
        refused = 0
        for number in range(60):
            object_of(cas, root, sample.xorb.hash).unlink()
            plan.fail_next(after=number)
            try:
                upload(cas, sample)
            except XetError:
                refused += 1
            has_failed = plan.has_failed
            plan.disarm()
            assert read_back(cas, upload(cas, sample)) == sample.data
            if not has_failed:
                break
        assert not has_failed
        assert refused > 10
        verify_invariants(cas)


def test_a_heal_never_writes_a_key_twice(cas: EmbeddedCas, root: Path, sample: Sample) -> None:
    upload(cas, sample)
    seen = {object_of(cas, root, sample.xorb.hash)}
    chance = random.Random(1)
    for _ in range(5):
        path = object_of(cas, root, sample.xorb.hash)
        chance.choice(list(SEEN.values()))(path)
        upload(cas, sample)
        healed = object_of(cas, root, sample.xorb.hash)
        assert healed not in seen
        seen.add(healed)
    assert read_back(cas, sample.file.hash) == sample.data
