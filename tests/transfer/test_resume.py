"""What is there already is not fetched: an earlier attempt, however it ended, and an old version of the file."""

from __future__ import annotations

import contextlib
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.faulty import FaultyCas, Stored, flip
from tests.support.strategies import splitmix64
from xetstore.cancellation import Cancellation
from xetstore.cas import EmbeddedCas
from xetstore.errors import IntegrityError, InterruptedCallError, UnavailableError, XetError
from xetstore.events import Event, Resumed
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Reconstruction, Term
from xetstore.transfer.download.context import DownloadOptions
from xetstore.transfer.download.downloader import Downloaded, Downloader
from xetstore.transfer.download.file_range import FileRange
from xetstore.transfer.download.partial_file import PartialFile
from xetstore.transfer.download.reuse.base_file import BaseFile
from xetstore.transfer.upload.session import put_files

PIECE = 200_000
"""Small pieces, so that a small file has many."""

MIB = 1 << 20


SMALL_PIECES = DownloadOptions(workers=2, piece_bytes=PIECE)


def get(
    cas: FaultyCas | EmbeddedCas,
    stored: Stored,
    out: Path,
    start: int = 0,
    end: int | None = None,
    *,
    events: list[Event] | None = None,
    base: Path | None = None,
    keep: bool = False,
    kept_bytes: int = 1,
    options: DownloadOptions = SMALL_PIECES,
) -> Downloaded:
    seen = [] if events is None else events
    wanted = FileRange(stored.file, start, end)
    downloader = Downloader(cas, options, emit=seen.append)
    return downloader.write(wanted, PartialFile(out, wanted, keep=keep, kept_bytes=kept_bytes), base=base)


class Breaking(FaultyCas):
    """Gives so many bytes, then fails."""

    def __init__(self, cas: EmbeddedCas, after: int, error: BaseException, *, hashes: bool = True) -> None:
        super().__init__(cas, hashes=hashes)
        self.after, self.error = after, error

    def wait(self, call: Cancellation) -> None:
        if self.sent >= self.after:
            raise self.error


def fail(stored: Stored, out: Path, after: int, error: BaseException | None = None, **options: object) -> Breaking:
    cas = Breaking(stored.cas, after, error or UnavailableError("the network is gone"))
    with pytest.raises(type(cas.error)):
        get(cas, stored, out, **options)  # type: ignore[arg-type]
    return cas


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leftovers(folder: Path) -> tuple[Path, Path]:
    """The partial file and its journal."""
    [data] = folder.glob(".*.incomplete")
    return data, data.with_name(f"{data.name}.journal")


def total(cas: EmbeddedCas, stored: Stored) -> int:
    found = cas.reconstruct(stored.file).fetches.values()
    return sum(fetch.byte_end - fetch.byte_start for each in found for fetch in each)


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("tenths", range(3, 10))
def test_a_download_that_was_cut_off_goes_on(stored: Stored, tmp_path: Path, tenths: int, hashes: bool) -> None:
    everything = total(stored.cas, stored)
    first = Breaking(stored.cas, everything * tenths // 10, UnavailableError("the network is gone"), hashes=hashes)
    with pytest.raises(UnavailableError) as caught:
        get(first, stored, tmp_path / "out")
    assert caught.value.hint == "the same command goes on where it stopped"
    assert len(names(tmp_path)) == 2
    events: list[Event] = []
    second = FaultyCas(stored.cas, hashes=hashes)
    done = get(second, stored, tmp_path / "out", events=events)
    assert (tmp_path / "out").read_bytes() == stored.data
    assert names(tmp_path) == ["out"]
    assert done.verified
    assert done.fetched_bytes == second.sent
    # What was on its way is lost: a piece and an open chunk of each worker.
    assert second.sent <= (everything - first.sent) * 1.05 + 2 * (PIECE + 200_000)
    resumed = [event for event in events if isinstance(event, Resumed)]
    assert sum(event.kept_bytes for event in resumed) == done.reused_bytes
    assert all(event.path == tmp_path / "out" for event in resumed)


def test_attempts_add_up(stored: Stored, tmp_path: Path) -> None:
    sent = sum(fail(stored, tmp_path / "out", 700_000).sent for _ in range(4))
    cas = FaultyCas(stored.cas)
    get(cas, stored, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == stored.data
    assert sent + cas.sent <= total(stored.cas, stored) + 5 * 2 * (PIECE + 200_000)


def test_a_range_goes_on_and_only_the_same_range(stored: Stored, tmp_path: Path) -> None:
    start, end = 100_001, 5_000_003
    fail(stored, tmp_path / "out", 2_500_000, start=start, end=end)
    other = FaultyCas(stored.cas)
    get(other, stored, tmp_path / "out", start, end - 1)
    assert other.sent > 2_500_000, "another range has nothing to go on with"
    cas = FaultyCas(stored.cas)
    done = get(cas, stored, tmp_path / "out", start, end)
    assert (tmp_path / "out").read_bytes() == stored.data[start:end]
    assert done.reused_bytes > 1_000_000
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [InterruptedCallError("enough"), KeyboardInterrupt()])
def test_what_is_given_up_is_removed_unless_it_is_to_be_kept(
    stored: Stored, tmp_path: Path, error: BaseException
) -> None:
    fail(stored, tmp_path / "out", 2_000_000, error)
    assert names(tmp_path) == []
    fail(stored, tmp_path / "out", 2_000_000, error, keep=True)
    assert len(names(tmp_path)) == 2
    assert get(stored.cas, stored, tmp_path / "out").reused_bytes > 0


def test_damage_leaves_nothing_to_go_on_with(stored: Stored, tmp_path: Path) -> None:
    cas = FaultyCas(stored.cas, send=lambda _number, _fetch, data: flip(data, -1))
    with pytest.raises(IntegrityError):
        get(cas, stored, tmp_path / "out", keep=True)
    assert names(tmp_path) == []


def test_little_is_not_kept(stored: Stored, tmp_path: Path) -> None:
    fail(stored, tmp_path / "out", 2_000_000, kept_bytes=8 * MIB)
    assert names(tmp_path) == []


def test_two_downloads_to_one_destination_do_not_meet(stored: Stored, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted, downloader = FileRange(stored.file), Downloader(stored.cas)
    with PartialFile(out, wanted) as one:
        assert one.journal is not None
        two = PartialFile(out, wanted)
        downloader.write(wanted, two)
        assert two.journal is None
        assert out.read_bytes() == stored.data
        out.unlink()
        one.commit(downloader.download(stored.file, one.write_at).size)
        assert out.read_bytes() == stored.data
    assert names(tmp_path) == ["out"]


def test_a_download_that_is_done_leaves_the_next_one_alone(tmp_path: Path) -> None:
    """Both use one hidden name: between its commit and its end the first must not remove what the second has begun."""
    out, file = tmp_path / "out", Hash.parse("1" * 64)
    with contextlib.ExitStack() as later:
        with PartialFile(out, FileRange(file)) as first:
            first.write_at(0, memoryview(b"first"))
            first.commit(5)
            second = later.enter_context(PartialFile(out, FileRange(file)))
        second.write_at(0, memoryview(b"second"))
        second.commit(6)
    assert out.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208


def test_a_name_that_is_taken_is_left_alone(stored: Stored, tmp_path: Path) -> None:
    """Whoever can write there could have guessed it: a link is not followed, another's file not filled."""
    (tmp_path / "mine").write_bytes(b"mine")
    fail(stored, tmp_path / "out", 2_000_000)
    data, journal = leftovers(tmp_path)
    data.unlink()
    data.symlink_to(tmp_path / "mine")
    get(stored.cas, stored, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == stored.data
    assert (tmp_path / "mine").read_bytes() == b"mine"
    journal.unlink(missing_ok=True)
    journal.symlink_to(tmp_path / "mine")
    get(stored.cas, stored, tmp_path / "out")
    assert (tmp_path / "mine").read_bytes() == b"mine"


@pytest.mark.parametrize("seed", range(40))
def test_no_torn_journal_makes_a_wrong_byte(stored: Stored, tmp_path: Path, seed: int) -> None:
    """As after a power cut: journal and data are each somewhere between what was written and nothing."""
    chance = random.Random(seed)
    fail(stored, tmp_path / "out", chance.randrange(900_000, 3_000_000))
    for path in leftovers(tmp_path):
        content = bytearray(path.read_bytes())
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(content))
            size = chance.choice([1, 100, 5_000])
            content[at : at + size] = chance.choice([bytes(len(content[at : at + size])), b"", chance.randbytes(size)])
        if chance.random() < 0.5:
            del content[chance.randrange(len(content) + 1) :]
        path.write_bytes(content)
    assert get(FaultyCas(stored.cas, hashes=bool(seed % 2)), stored, tmp_path / "out").verified
    assert (tmp_path / "out").read_bytes() == stored.data
    assert names(tmp_path) == ["out"]


def test_zeros_are_zeros_where_an_earlier_attempt_left_something_else(stored: Stored, tmp_path: Path) -> None:
    fail(stored, tmp_path / "out", 1_000_000)
    data, _ = leftovers(tmp_path)
    data.write_bytes(data.read_bytes()[:500_000] + b"x" * 5_000_000)
    get(stored.cas, stored, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == stored.data


def test_holes_stay_holes_when_a_download_goes_on(tmp_path: Path) -> None:
    data = splitmix64(1, MIB // 2) + bytes(64 * MIB) + splitmix64(2, 2 * MIB)
    (tmp_path / "file").write_bytes(data)
    with EmbeddedCas.in_memory() as cas:
        [report] = put_files(cas, [tmp_path / "file"])
        sparse = Stored(cas, report.info.hash, data)
        fail(sparse, tmp_path / "out", 1_300_000)
        assert get(cas, sparse, tmp_path / "out").reused_bytes > 30 * MIB
    assert (tmp_path / "out").read_bytes() == data
    assert (tmp_path / "out").stat().st_blocks * 512 < 8 * MIB


def test_the_journal_of_a_sparse_file_is_small(tmp_path: Path) -> None:
    data = splitmix64(1, MIB) + bytes(256 * MIB) + splitmix64(2, MIB)
    (tmp_path / "file").write_bytes(data)
    with EmbeddedCas.in_memory() as cas:
        [report] = put_files(cas, [tmp_path / "file"])
        fail(Stored(cas, report.info.hash, data), tmp_path / "out", 1_500_000)
    assert leftovers(tmp_path)[1].stat().st_size < 2 * 40 * 256 * 8 + 100_000


# Old versions


def edited(data: bytes, chance: random.Random, edits: int) -> bytes:
    changed = bytearray(data)
    for _ in range(edits):
        at = chance.randrange(len(changed))
        changed[at : at + chance.randrange(2_000)] = chance.randbytes(chance.randrange(2_000))
    return bytes(changed)


def once_as_one_xorb(data: bytes, folder: Path) -> Stored:
    """A file in a store that has never seen another version of it."""
    (folder / "new").write_bytes(data)
    cas = EmbeddedCas.in_memory()
    [report] = put_files(cas, [folder / "new"])
    return Stored(cas, report.info.hash, data)


@pytest.mark.parametrize("edits", [0, 1, 3, 8])
def test_of_an_edited_file_only_the_edits_are_fetched(tmp_path: Path, edits: int) -> None:
    """What lies between two edits is long enough to be worth a question where it is."""
    old = splitmix64(31, 12 * MIB)
    (tmp_path / "old").write_bytes(old)
    chance = random.Random(edits)
    size = len(old) // (edits + 1)
    changed = [edited(old[at : at + size], chance, 1) for at in range(0, edits * size, size)]
    new = once_as_one_xorb(b"".join(changed) + old[edits * size :], tmp_path)
    cas = FaultyCas(new.cas)
    done = get(cas, new, tmp_path / "out", base=tmp_path / "old")
    assert (tmp_path / "out").read_bytes() == new.data
    assert done.verified
    assert done.fetched_bytes == cas.sent <= edits * 4 * 131_072
    assert done.reused_bytes >= len(new.data) - edits * 4 * 131_072
    new.cas.close()


def test_an_old_version_is_of_no_use_without_hashes_and_does_no_harm(stored: Stored, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(stored.data)
    cas = FaultyCas(stored.cas, hashes=False)
    assert get(cas, stored, tmp_path / "out", base=tmp_path / "old").reused_bytes == 0
    assert (tmp_path / "out").read_bytes() == stored.data


def test_the_destination_may_be_the_old_version(stored: Stored, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"before" + stored.data)
    done = get(stored.cas, stored, tmp_path / "out", base=tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == stored.data
    assert done.fetched_bytes < 400_000


class Changing(BaseFile):
    """Another process writes to the file while it is read."""

    def read(self, offset: int, view: memoryview) -> None:
        super().read(offset, view)
        view[len(view) // 2] ^= 1


def test_an_old_version_that_changes_meanwhile_does_no_harm(stored: Stored, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(stored.data)
    content = bytearray(len(stored.data))

    def sink(offset: int, data: memoryview) -> None:
        content[offset : offset + len(data)] = data

    with Changing(tmp_path / "old") as old:
        assert Downloader(stored.cas).download(stored.file, sink, base=old).verified
    assert content == stored.data


@pytest.fixture(scope="module")
def old_version(stored: Stored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("old") / "old"
    path.write_bytes(edited(stored.data, random.Random(5), 6))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.data())
def test_any_range_comes_whole_from_whatever_is_there(
    stored: Stored, old_version: Path, tmp_path: Path, data: st.DataObject
) -> None:
    size = len(stored.data)
    start = data.draw(st.integers(0, size - 1), "start")
    end = data.draw(st.none() | st.integers(start, size + 1000), "end")
    for _ in range(data.draw(st.integers(0, 2), "failures")):
        cut = Breaking(stored.cas, data.draw(st.integers(0, 4_000_000)), UnavailableError("gone"))
        with contextlib.suppress(XetError):
            get(cut, stored, tmp_path / "out", start, end)
    base = old_version if data.draw(st.booleans(), "base") else None
    cas = FaultyCas(stored.cas, hashes=data.draw(st.booleans(), "hashes"))
    done = get(cas, stored, tmp_path / "out", start, end, base=base)
    assert (tmp_path / "out").read_bytes() == stored.data[start:end]
    assert done.fetched_bytes == cas.sent
    assert not list(tmp_path.glob(".*"))
    os.unlink(tmp_path / "out")  # noqa: PTH108


@pytest.mark.parametrize("window", [MIB, 2 * MIB + 1])
def test_windows_go_on_too(stored: Stored, tmp_path: Path, window: int) -> None:
    options = replace(SMALL_PIECES, window_bytes=window)
    fail(stored, tmp_path / "out", 2_000_000, options=options)
    cas = FaultyCas(stored.cas)
    get(cas, stored, tmp_path / "out", options=options)
    assert (tmp_path / "out").read_bytes() == stored.data
    assert cas.sent <= total(stored.cas, stored) - 2_000_000 + 2 * (PIECE + 200_000) + 400_000


def untrimmed(stored: Stored) -> FaultyCas:
    """A Cas that gives all terms of a file, whatever was asked for, as it may as far as they touch the range."""

    class Untrimmed(FaultyCas):
        def reconstruct(self, file, start=0, end=None, *, hashes=False, inline=0) -> Reconstruction:  # type: ignore[no-untyped-def]
            whole = super().reconstruct(file, 0, None, hashes=hashes)
            terms: list[Term] = []
            told: list[bytes] = []
            position = skip = 0
            stop = len(stored.data) if end is None else end
            super().reconstruct(file, start, end)
            for term, packed in zip(whole.terms, whole.term_hashes or [b""] * len(whole.terms), strict=True):
                if position < stop and position + term.unpacked_bytes > start:
                    if not terms:
                        skip = start - position
                    terms.append(term)
                    told.append(packed)
                position += term.unpacked_bytes
            return Reconstruction(skip, tuple(terms), whole.fetches, tuple(told) if whole.term_hashes else None)

    return Untrimmed(stored.cas)


@pytest.mark.parametrize("span", [(0, None), (0, 3_000_000), (1_234_567, 5_000_000), (5_000_000, None)])
def test_a_cas_that_cuts_no_terms_is_understood(stored: Stored, tmp_path: Path, span: tuple[int, int | None]) -> None:
    fail(stored, tmp_path / "out", 1_500_000 if span[0] < 2_000_000 else 100_000, start=span[0], end=span[1])
    get(untrimmed(stored), stored, tmp_path / "out", *span)
    assert (tmp_path / "out").read_bytes() == stored.data[span[0] : span[1]]
    get(untrimmed(stored), stored, tmp_path / "out", *span)
    assert (tmp_path / "out").read_bytes() == stored.data[span[0] : span[1]]
    streamed = Downloader(untrimmed(stored)).stream(stored.file, *span, MIB)
    assert b"".join(map(bytes, streamed)) == stored.data[span[0] : span[1]]
