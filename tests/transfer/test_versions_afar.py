"""Versions of files put to a server by a machine that remembers nothing: answers come late, or never, or are wrong."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.support.versions import CORPORA, MIB, Content, Ideal, Version, a_sparse_file, write, zeros
from tests.transfer.watched import PATIENCE_SECONDS, WatchedCas
from xetstore import _kernel
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.errors import UnavailableError
from xetstore.interfaces import MANY_CHUNKS
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.dedup import WIRE_QUERIES
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import Shard, XorbEntry
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.known import KnownXorbs
from xetstore.transfer.upload.pending import PutReport
from xetstore.transfer.upload.queries import QueryPatience
from xetstore.transfer.upload.session import put_files

ANNOUNCED = replace(WIRE_QUERIES, modulus=64, spacing_chunks=0, spacing_bytes=0, most_at_once=MANY_CHUNKS)
PATIENT = UploadOptions(query_patience=QueryPatience(PATIENCE_SECONDS, PATIENCE_SECONDS))
"""Answers come in time, however slow the machine is."""


class FarCas(WatchedCas):
    """A server that announces its rule with its first answer. ``answer`` makes what comes of a query."""

    def __init__(self, cas: EmbeddedCas) -> None:
        super().__init__(cas, WIRE_QUERIES)
        self.answer: Callable[[tuple[Hash, ...]], Shard | None] = lambda chunks: self.cas.find_chunks(*chunks)

    def find_chunks(self, *chunks: Hash) -> Shard | None:
        self.asked += chunks
        self.questions += 1
        answer = self.answer(chunks)
        self.queries = ANNOUNCED
        return answer

    def put(self, paths: list[Path]) -> list[PutReport]:
        """Put files from a machine that has never done so."""
        self.queries = WIRE_QUERIES
        reports = list(put_files(self, paths, PATIENT))
        for report in reports:
            assert report.new_bytes + report.deduped_bytes == report.info.size
            assert b"".join(map(bytes, Downloader(self.cas).stream(report.info.hash))) == report.path.read_bytes()
        return reports


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarCas]:
    with EmbeddedCas.open(tmp_path / "store") as opened:
        watched = FarCas(opened)
        with watched.settled():
            yield watched
        assert check(opened, read_data=True).problems == ()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("versions", CORPORA, ids=lambda corpus: corpus.__name__)
def test_versions_send_what_is_new_of_them_and_nothing_the_second_time(
    far: FarCas, tmp_path: Path, versions: Callable[[Content], list[Version]], late: bool
) -> None:
    if late:
        far.answer = partial(slowly, far, random.Random(1))
    ideal = Ideal()
    made = versions(Content(2))
    for version in made:
        paths = write(tmp_path, version)
        least, before = ideal.new_bytes(paths), far.cas.totals()
        reports = far.put(paths)
        new = sum(report.new_bytes for report in reports)
        assert new == least + sum(report.again_bytes for report in reports)
        assert far.cas.totals().unique_bytes - before.unique_bytes == new
        if versions is not zeros and versions is not a_sparse_file:
            assert new <= 1.02 * least
    for version in reversed(made):
        before = far.cas.totals()
        assert [report.new_bytes for report in far.put(write(tmp_path, version))] == [0] * len(version)
        assert far.cas.totals() == before


@pytest.mark.parametrize("remembers", [False, True])
def test_a_stretch_of_copies_is_found_again_beside_a_lone_one(far: FarCas, tmp_path: Path, remembers: bool) -> None:
    """A file of holes is stored with a stretch of zeros once, though a chunk of zeros was stored alone before."""
    content = Content(1)
    lone = content.fresh(300_000) + bytes(400_000) + content.fresh(300_000)
    holes = bytes(30 * MIB) + content.fresh(300_000)
    files = {"lone": lone, "holes": holes}
    with ExitStack() as stack:
        known = stack.enter_context(KnownXorbs(tmp_path / "known")) if remembers else None
        *_, first = put_files(far, write(tmp_path, files), PATIENT, known=known)
        assert first.again_bytes == 64 * 131_072
        assert [report.new_bytes for report in put_files(far, write(tmp_path, files), PATIENT, known=known)] == [0, 0]
        files["holes"] += content.fresh(300_000)
        _, longer = put_files(far, write(tmp_path, files), PATIENT, known=known)
        assert (longer.again_bytes, longer.new_bytes < 500_000) == (0, True)


def slowly(far: FarCas, rng: random.Random, chunks: tuple[Hash, ...]) -> Shard | None:
    time.sleep(rng.choice((0, 0, 0.05, 0.3)))
    return far.cas.find_chunks(*chunks)


def lost(far: FarCas, rng: random.Random, chunks: tuple[Hash, ...]) -> Shard | None:
    if rng.random() < 0.5:
        raise UnavailableError("lost")
    return slowly(far, rng, chunks)


def of_other_chunks(far: FarCas, rng: random.Random, _: tuple[Hash, ...]) -> Shard | None:
    return far.cas.find_chunks(rng.choice(far.asked))


def with_other_names(far: FarCas, rng: random.Random, chunks: tuple[Hash, ...]) -> Shard | None:
    """The chunks are said to be in xorbs of other files."""
    answer = far.cas.find_chunks(*chunks)
    if answer is None or len(answer.xorbs) < 2:
        return answer
    names = [entry.hash for entry in answer.xorbs]
    rng.shuffle(names)
    return replace(
        answer, xorbs=tuple(replace(entry, hash=name) for entry, name in zip(answer.xorbs, names, strict=True))
    )


def in_xorbs_that_are_not_there(far: FarCas, rng: random.Random, chunks: tuple[Hash, ...]) -> Shard | None:
    """All that is asked for is claimed to be stored."""
    key = rng.randbytes(32)
    hashes = _kernel.keyed_hashes(key, b"".join(chunk.digest for chunk in chunks))
    claimed = ChunkList(hashes, (65_536).to_bytes(8, "little") * len(chunks))
    made = Shard(xorbs=(XorbEntry(Hash(rng.randbytes(32)), claimed),))
    return replace(made, key=key, created_at=1, expires_at=int(time.time()) + 1000)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("answer", [lost, of_other_chunks, with_other_names, in_xorbs_that_are_not_there])
def test_no_answer_makes_a_wrong_file_or_fails_an_upload(
    far: FarCas, tmp_path: Path, answer: Callable[..., Shard | None], seed: int
) -> None:
    """At most some bytes are sent again."""
    content = Content(seed)
    base = content.fresh(5 * MIB)
    versions = [
        {"one": base, **{f"small{i}": content.fresh(3000) for i in range(30)}},
        {"one": content.edited(base, 3), "two": content.inserted(base, 5000)},
        {"one": base, "three": content.fresh(MIB) + base},
    ]
    far.put(write(tmp_path, versions[0]))
    far.answer = partial(answer, far, random.Random(seed))
    for version in versions[1:]:
        paths = write(tmp_path, version)
        for report in far.put(paths):
            assert far.cas.stat(report.info.hash).size == report.path.stat().st_size
