"""One damaged byte anywhere in a store: what it affects is refused, what it does not affect comes back, a check finds
it, and no destination is ever touched.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import xetstore
from tests.support.objects import xorb_path
from tests.support.process import Worker
from tests.support.strategies import ramp, splitmix64, text
from xetstore.cas.check import CheckReport, check
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.stored_xorb import read_object
from xetstore.errors import DamagedError, IntegrityError, NotFoundError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.suite import CHUNK_HEADER_BYTES
from xetstore.protocol.xorb import XorbInfo

# The last bytes of a footer: a nonce that nobody reads, 12 reserved ones, and the footer's length.
NONCE_FROM_END, AFTER_NONCE = 20, 16


@dataclass(frozen=True)
class Sound:
    """A store in order, and what is in it."""

    root: Path
    files: dict[Hash, bytes]
    xorbs: dict[Hash, XorbInfo]
    # For each file the parts of it, in order: (xorb, chunk, where in the file it starts and ends).
    layout: dict[Hash, list[tuple[Hash, int, int, int]]]

    def path_of(self, xorb: Hash) -> Path:
        return xorb_path(self.root, xorb)

    def users(self, xorb: Hash, chunk: int | None = None) -> set[Hash]:
        """Files made of a xorb, or of one chunk of it."""
        return {
            file
            for file, parts in self.layout.items()
            for part in parts
            if part[0] == xorb and chunk in (None, part[1])
        }


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    folder = tmp_path_factory.mktemp("damage")
    noise = splitmix64(1, 900_000)
    contents = [
        noise,
        noise[400_000:] + splitmix64(2, 500_000),
        splitmix64(3, 300_000),
        text(200_000) + ramp(300_000) + splitmix64(4, 20_000),
        b"tiny",
    ]
    files: dict[Hash, bytes] = {}
    with xetstore.open(folder / "store") as store:
        for content in contents:  # each in a xorb and a shard of its own
            (folder / "source").write_bytes(content)
            files[store.put(folder / "source").hash] = content
    with EmbeddedCas.open(folder / "store") as cas:
        paths = [path for path in (folder / "store" / "xorbs").rglob("*") if path.is_file()]
        xorbs = {Hash.parse(path.name[:64]): read_object(path.read_bytes()) for path in paths}
        layout: dict[Hash, list[tuple[Hash, int, int, int]]] = {}
        for file in files:
            at = 0
            layout[file] = []
            for term in cas.reconstruct(file).terms:
                for chunk in range(term.chunk_start, term.chunk_end):
                    end = at + xorbs[term.xorb].chunks.sizes[chunk]
                    layout[file].append((term.xorb, chunk, at, end))
                    at = end
    assert len(xorbs) == len(contents)
    return Sound(folder / "store", files, xorbs, layout)


@contextmanager
def damaged(path: Path, change: Callable[[bytearray], object]) -> Iterator[None]:
    """Other bytes in a file, until the end of the block; then a check that reads everything takes back its marks."""
    original = path.read_bytes()
    changed = bytearray(original)
    change(changed)
    assert changed != original
    path.write_bytes(changed)
    try:
        yield
    finally:
        path.write_bytes(original)
        checked(next(folder for folder in path.parents if (folder / "format").exists()), read_data=True)


def flip(at: int, chance: random.Random) -> Callable[[bytearray], None]:
    mask = chance.randrange(1, 256)

    def change(data: bytearray) -> None:
        data[at] ^= mask

    return change


def checked(root: Path, *, read_data: bool) -> CheckReport:
    with EmbeddedCas.open(root) as cas:
        return check(cas, read_data=read_data)


def expect(sound: Sound, lost: set[Hash], out: Path) -> None:
    """The lost files are refused, whole and as a range and as a stream, the others come back."""
    with xetstore.open(sound.root) as store:
        for file, content in sound.files.items():
            out.write_bytes(b"precious")
            if file in lost:
                with pytest.raises(IntegrityError):
                    store.get(file, out)
                with pytest.raises(IntegrityError):
                    store.get(file, out, start=0, end=len(content))
                with store.open(file) as opened, pytest.raises(IntegrityError):
                    opened.read()
                assert out.read_bytes() == b"precious"
            else:
                assert store.get(file, out).verified
                assert out.read_bytes() == content
    assert list(out.parent.iterdir()) == [out], "nothing half-written is left"


def expect_ranges(sound: Sound, xorb: Hash, chunk: int, out: Path) -> None:
    """Ranges of the files that use a damaged chunk: refused where they touch it, right where they do not."""
    with xetstore.open(sound.root) as store:
        for file in sound.users(xorb, chunk):
            content = sound.files[file]
            for part in sound.layout[file]:
                start, end = part[2:]
                out.write_bytes(b"precious")
                if part[:2] == (xorb, chunk):
                    for range_ in ((start, start + 1), (end - 1, end), (max(0, start - 1), end)):
                        with pytest.raises(IntegrityError):
                            store.get(file, out, start=range_[0], end=range_[1])
                        assert out.read_bytes() == b"precious"
                else:
                    assert store.get(file, out, start=start, end=end).verified
                    assert out.read_bytes() == content[start:end]


def incompressible(sound: Sound) -> list[Hash]:
    """Xorbs in which each byte matters: compressed data may be damaged and still decode to the same."""
    return [name for name, info in sound.xorbs.items() if info.region_bytes == info.raw_bytes + 8 * info.chunk_count]


def some_places(sound: Sound, count: int) -> Iterator[tuple[Hash, int, int]]:
    """Random (xorb, chunk, offset) in stored chunks; every other one in a header."""
    chance = random.Random(5)
    names = incompressible(sound)
    assert len(names) >= 4
    for number in range(count):
        name = names[number % len(names)]
        info = sound.xorbs[name]
        chunk = chance.randrange(info.chunk_count)
        start, end = info.byte_range(chunk, chunk + 1)
        yield name, chunk, chance.randrange(start, start + CHUNK_HEADER_BYTES if number % 2 else end)


def test_a_damaged_byte_of_data_is_refused_and_found_by_reading(sound: Sound, tmp_path: Path) -> None:
    chance = random.Random(6)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "file"
    for name, chunk, at in some_places(sound, 24):
        with damaged(sound.path_of(name), flip(at, chance)):
            expect(sound, sound.users(name, chunk), out)
            expect_ranges(sound, name, chunk, out)
            for read_data in (False, True):  # without reading it: the reads that failed have left a mark
                [problem] = checked(sound.root, read_data=read_data).problems
                assert problem.name == f"xorb {name}"
                assert set(problem.files) == sound.users(name)
    assert checked(sound.root, read_data=True).problems == ()


def test_damage_in_compressed_data_never_gives_wrong_bytes(sound: Sound, tmp_path: Path) -> None:
    [name] = set(sound.xorbs) - set(incompressible(sound))
    [file] = sound.users(name)
    out = tmp_path / "file"
    chance = random.Random(7)
    refused = 0
    for _ in range(40):
        with damaged(sound.path_of(name), flip(chance.randrange(sound.xorbs[name].region_bytes), chance)):
            out.write_bytes(b"precious")
            try:
                with xetstore.open(sound.root) as store:
                    store.get(file, out)
                assert out.read_bytes() == sound.files[file]
            except IntegrityError:
                refused += 1
                assert out.read_bytes() == b"precious"
                assert checked(sound.root, read_data=True).problems
    assert refused > 20


def test_a_damaged_footer_is_refused_and_found_without_reading_data(sound: Sound, tmp_path: Path) -> None:
    chance = random.Random(8)
    names = list(sound.xorbs)
    for number in range(25):
        name = names[number % len(names)]
        info = sound.xorbs[name]
        end = info.region_bytes + XorbInfo.footer_bytes(info.chunk_count)
        nonce = range(end - NONCE_FROM_END, end - AFTER_NONCE)
        at = chance.choice([at for at in range(info.region_bytes, end) if at not in nonce])
        (tmp_path / "out").mkdir(exist_ok=True)
        with damaged(sound.path_of(name), flip(at, chance)):
            expect(sound, sound.users(name), tmp_path / "out" / "file")
            for read_data in (False, True):
                [problem] = checked(sound.root, read_data=read_data).problems
                assert (problem.name, set(problem.files)) == (f"xorb {name}", sound.users(name))


def test_the_nonce_of_a_footer_means_nothing(sound: Sound, tmp_path: Path) -> None:
    name, info = next(iter(sound.xorbs.items()))

    def with_nonce_in_format_1(data: bytearray) -> None:
        del data[info.region_bytes + XorbInfo.footer_bytes(info.chunk_count) :]
        data[-NONCE_FROM_END] = 1

    with damaged(sound.path_of(name), with_nonce_in_format_1):
        (tmp_path / "out").mkdir()
        expect(sound, set(), tmp_path / "out" / "file")
        assert checked(sound.root, read_data=True).problems == ()


@pytest.mark.parametrize("how", ["cut in the footer", "cut in the data", "empty", "a byte more", "another xorb"])
def test_a_xorb_of_another_length_or_content_is_refused(sound: Sound, tmp_path: Path, how: str) -> None:
    (tmp_path / "out").mkdir()
    for name, info in sound.xorbs.items():
        [other, *_] = [path for path in map(sound.path_of, sound.xorbs) if path != sound.path_of(name)]
        foreign = other.read_bytes()

        def change(data: bytearray, size: int = info.region_bytes, foreign: bytes = foreign) -> None:
            match how:
                case "cut in the footer":
                    del data[size + 95 :]
                case "cut in the data":
                    del data[size // 2 :]
                case "empty":
                    data.clear()
                case "a byte more":
                    data.append(0)
                case _:
                    data[:] = foreign

        with damaged(sound.path_of(name), change):
            report = checked(sound.root, read_data=False)
            assert [(problem.name, set(problem.files)) for problem in report.problems] == [
                (f"xorb {name}", sound.users(name))
            ]
            # What follows a whole xorb is in nobody's way.
            expect(sound, set() if how == "a byte more" else sound.users(name), tmp_path / "out" / "file")


def test_a_missing_xorb_is_damage_not_an_unknown_file(sound: Sound, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in sound.xorbs:
        path = sound.path_of(name)
        path.rename(tmp_path / "aside")
        expect(sound, sound.users(name), tmp_path / "out" / "file")
        [problem] = checked(sound.root, read_data=False).problems
        assert (problem.name, set(problem.files)) == (f"xorb {name}", sound.users(name))
        (tmp_path / "aside").rename(path)
        assert checked(sound.root, read_data=True).problems == ()


def test_a_damaged_shard_is_found_and_loses_no_file(sound: Sound, tmp_path: Path) -> None:
    chance = random.Random(9)
    (tmp_path / "out").mkdir()
    shards = sorted((sound.root / "shards").iterdir())
    assert len(shards) == len(sound.files)
    for path in shards:
        for _ in range(3):
            with damaged(path, flip(chance.randrange(path.stat().st_size), chance)):
                [problem] = checked(sound.root, read_data=True).problems
                assert problem.name == f"shard {path.name[:64]}"
        with damaged(path, bytearray.pop):
            [problem] = checked(sound.root, read_data=False).problems
            assert problem.name == f"shard {path.name[:64]}"
        path.rename(tmp_path / "aside")
        [problem] = checked(sound.root, read_data=False).problems
        assert problem.name == f"shard {path.name[:64]}"
        expect(sound, set(), tmp_path / "out" / "file")
        (tmp_path / "aside").rename(path)
        assert checked(sound.root, read_data=True).problems == (), "it is well again, which is noted"


def copy_of(sound: Sound, to: Path) -> Path:
    """The store once more, with an index of its own."""
    shutil.copytree(sound.root, to, copy_function=os.link)
    index = to / "index.sqlite3"
    index.unlink()
    shutil.copy(sound.root / index.name, index)
    return to


def use(root: Path, sound: Sound, out: Path) -> list[XetError]:
    """Open, check and read all files. What is given is right; what was refused instead."""
    refused: list[XetError] = []
    try:
        checked(root, read_data=True)
    except XetError as error:
        refused.append(error)
    for file, content in sound.files.items():
        out.write_bytes(b"precious")
        try:
            with xetstore.open(root) as store:
                store.get(file, out)
            assert out.read_bytes() == content
        except XetError as error:
            refused.append(error)
            assert out.read_bytes() == b"precious"
    return refused


def test_a_damaged_header_of_the_index_never_gives_wrong_bytes(sound: Sound, tmp_path: Path) -> None:
    chance = random.Random(10)
    places = [*range(16), *chance.sample(range(16, 100), 16)]
    refused = {}
    for at in places:
        root = copy_of(sound, tmp_path / str(at))
        data = bytearray((root / "index.sqlite3").read_bytes())
        flip(at, chance)(data)
        (root / "index.sqlite3").write_bytes(data)
        refused[at] = use(root, sound, tmp_path / "out")
    for at in range(16):  # the magic string: not a database any more, for anybody
        assert len(refused[at]) == 1 + len(sound.files)
        assert {type(error) for error in refused[at]} == {DamagedError}


def test_damage_anywhere_in_the_index_never_gives_wrong_bytes(sound: Sound, tmp_path: Path) -> None:
    chance = random.Random(11)
    size = (sound.root / "index.sqlite3").stat().st_size
    for number in range(40):
        root = copy_of(sound, tmp_path / str(number))
        data = bytearray((root / "index.sqlite3").read_bytes())
        if number % 4 == 0:
            del data[chance.randrange(1, size) :]
        else:
            used = [at for at, byte in enumerate(data) if byte]
            for at in chance.sample(used, 1 if number % 4 < 3 else 20):
                flip(at, chance)(data)
        (root / "index.sqlite3").write_bytes(data)
        use(root, sound, tmp_path / "out")


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_lost_index_is_not_an_empty_store(sound: Sound, tmp_path: Path, how: str) -> None:
    root = copy_of(sound, tmp_path / "store")
    (root / "index.sqlite3").unlink()
    if how == "empty":
        (root / "index.sqlite3").touch()
    with pytest.raises(IntegrityError):
        xetstore.open(root)


def test_an_unknown_file_stays_unknown_in_a_damaged_store(sound: Sound, tmp_path: Path) -> None:
    name = next(iter(sound.xorbs))
    with (
        damaged(sound.path_of(name), bytearray.clear),
        xetstore.open(sound.root) as store,
        pytest.raises(NotFoundError),
    ):
        store.get(Hash(b"x" * 32), tmp_path / "out")


def test_the_command_line_ends_with_4(sound: Sound, worker: Worker, tmp_path: Path) -> None:
    name, chunk, at = next(some_places(sound, 1))
    file = str(next(iter(sound.users(name, chunk))))
    store = ["--store", str(sound.root)]
    out = tmp_path / "out"
    with damaged(sound.path_of(name), flip(at, random.Random(1))):
        assert worker.run("cli", arguments=[*store, "check"]).code == 0
        assert worker.run("cli", arguments=[*store, "get", file, "-o", str(out)]).code == 4
        assert worker.run("cli", arguments=[*store, "cat", file]).code == 4
        assert worker.run("cli", arguments=[*store, "check", "--read-data"]).code == 4
        assert worker.run("cli", arguments=[*store, "check"]).code == 4
        assert not out.exists()
