"""A SHA-256 is the uploader's word until it was computed from the stored bytes; no pointer is committed before."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.support import engines
from tests.support.children import failures, in_child
from tests.support.hubs import create
from tests.support.live import live_server
from tests.support.objects import xorb_object
from xetstore.blobs.local import LocalBlobStore
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.folder import open_directory
from xetstore.cas.index import Index
from xetstore.cas.index.queries.sha256 import CANDIDATES
from xetstore.database.sqlite import SqliteDatabase
from xetstore.errors import DamagedError, InterruptedCallError, UnprocessableError
from xetstore.hub.arrivals import arrive
from xetstore.hub.hashing import AT_A_TIME
from xetstore.hub.operations import AddPointer
from xetstore.hub.service import EmbeddedHub
from xetstore.hub.sha256 import require_file, require_files
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.testing import Sample, make_sample, random_bytes, upload
from xetstore.testing.faults import CRASH_EXIT_CODE
from xetstore.transfer.download.small_files import SMALL_BYTES

ENGINES = engines.BOTH
LIE = bytes(range(32))


def sample(seed: int = 1, size: int = 60_000) -> Sample:
    return make_sample(random_bytes(size, seed))


def sha256_of(one: Sample) -> bytes:
    return hashlib.sha256(one.data).digest()


def claiming(one: Sample, sha256: bytes | None) -> Sample:
    """The sample as an uploader sends it who says that this is its SHA-256."""
    return replace(one, file=replace(one.file, sha256=sha256))


def is_known(cas: EmbeddedCas, one: Sample) -> bool:
    """True if the SHA-256 of a sample in the namespace was computed."""
    with cas.index.snapshot() as reader:
        found = reader.file_by_sha256(cas.tenant.namespace, sha256_of(one))
    return found is not None and found[1]


def lose_bytes(cas: EmbeddedCas, one: Sample) -> None:
    """From now on nothing can be computed from the bytes of a sample."""
    cas.blobs.delete_many([xorb_object(cas, one.xorb.hash)])
    assert require_fails_on_damage(cas, one) or is_known(cas, one)


def require_fails_on_damage(cas: EmbeddedCas, one: Sample) -> bool:
    try:
        require_file(cas, sha256_of(one))
    except DamagedError:
        return True
    return False


@pytest.fixture
def anna(cas: EmbeddedCas) -> EmbeddedCas:
    return cas.in_namespace("models/anna/one")


@pytest.fixture
def bert(cas: EmbeddedCas) -> EmbeddedCas:
    return cas.in_namespace("models/bert/two")


def test_the_file_with_a_sha256_is_found_and_computed_once(anna: EmbeddedCas) -> None:
    one = sample()
    upload(anna, one)
    assert not is_known(anna, one), "a shard's SHA-256 is a word"
    record = require_file(anna, sha256_of(one))
    assert (record.hash, record.size, record.sha256) == (one.file.hash, len(one.data), sha256_of(one).hex())
    assert is_known(anna, one)
    lose_bytes(anna, one)
    assert require_file(anna, sha256_of(one)) == record, "no byte is read again"


def test_many_are_asked_for_at_once(anna: EmbeddedCas) -> None:
    samples = [sample(seed, 1000 * seed) for seed in range(1, 20)]
    for one in samples:
        upload(anna, one)
    require_file(anna, sha256_of(samples[3]))
    asked = [sha256_of(one) for one in [*samples, samples[0]]]
    found = require_files(anna, asked)
    assert {sha256: record.hash for sha256, record in found.items()} == {
        sha256_of(one): one.file.hash for one in samples
    }
    assert all(is_known(anna, one) for one in samples)
    with pytest.raises(UnprocessableError, match=LIE.hex()):
        require_files(anna, [*asked, LIE])


def test_the_empty_file_has_a_sha256_too(anna: EmbeddedCas, bert: EmbeddedCas) -> None:
    empty = hashlib.sha256(b"").digest()
    anna.put_shard(Shard((FileEntry(Hash.ZERO, (), (), empty),)))
    assert require_file(anna, empty).hash == Hash.ZERO
    bert.put_shard(Shard((FileEntry(Hash.ZERO, (), (), LIE),)))
    assert require_file(bert, empty).size == 0
    with pytest.raises(UnprocessableError):
        require_file(bert, LIE)


# Bytes that this process has hashed


def test_what_arrives_here_is_hashed_meanwhile(anna: EmbeddedCas, tmp_path: Path) -> None:
    """By every way into the store that sees the bytes themselves: none is read again."""
    paths = [tmp_path / name for name in ("put", "arrived", "empty")]
    for number, path in enumerate(paths):
        path.write_bytes(random_bytes(100_000 * (2 - number), number))
    put, empty = (xetstore.Store(anna).put(path) for path in (paths[0], paths[2]))
    told = {paths[0]: put.hash, paths[1]: arrive(anna, paths[1]).file, paths[2]: empty.hash}
    with anna.index.snapshot() as reader:
        for path, file in told.items():
            sha256 = hashlib.sha256(path.read_bytes()).digest()
            assert reader.file_by_sha256(anna.tenant.namespace, sha256) == (anna.stat(file), True)


def test_what_comes_over_a_network_is_a_word(anna: EmbeddedCas, tmp_path: Path) -> None:
    """Also that of our own client, which a server cannot tell from another one."""
    path = tmp_path / "file"
    path.write_bytes(random_bytes(100_000, 1))
    with live_server(anna.in_namespace(), auth="none") as server, xetstore.open(server.url) as store:
        store.put(path)
    sha256 = hashlib.sha256(path.read_bytes()).digest()
    with anna.index.snapshot() as reader:
        found = reader.file_by_sha256("default", sha256)
    assert found is not None
    assert not found[1]


# Claims


def test_a_claim_that_is_a_lie_is_refused_and_the_truth_is_remembered(anna: EmbeddedCas) -> None:
    one = sample()
    upload(anna, claiming(one, LIE))
    for _ in range(2):
        with pytest.raises(UnprocessableError, match=LIE.hex()):
            require_file(anna, LIE)
    lose_bytes(anna, one)
    assert require_file(anna, sha256_of(one)).hash == one.file.hash


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("is_computed", [True, False])
def test_a_lie_in_another_namespace_changes_nothing(
    anna: EmbeddedCas, bert: EmbeddedCas, is_first: bool, is_computed: bool
) -> None:
    one = sample()
    for view, claimed in [(bert, LIE), (anna, sha256_of(one))][:: 1 if is_first else -1]:
        upload(view, claiming(one, claimed))
        if is_computed and view is bert:
            with pytest.raises(UnprocessableError):
                require_file(bert, LIE)
    assert require_file(anna, sha256_of(one)).hash == one.file.hash
    assert anna.stat(one.file.hash).sha256 == sha256_of(one).hex()
    with pytest.raises(UnprocessableError):
        require_file(bert, LIE)
    assert bert.stat(one.file.hash).sha256 == sha256_of(one).hex()


def test_a_claim_is_not_told_to_other_namespaces(anna: EmbeddedCas, bert: EmbeddedCas) -> None:
    one = sample()
    upload(bert, claiming(one, LIE))
    upload(anna, claiming(one, None))
    assert anna.stat(one.file.hash).sha256 is None
    assert [record.sha256 for record in anna.files()] == [None]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_lie_in_the_same_namespace_does_not_displace_the_truth(anna: EmbeddedCas, is_first: bool) -> None:
    one = sample()
    for claimed in [LIE, sha256_of(one)][:: 1 if is_first else -1]:
        upload(anna, claiming(one, claimed))
    assert require_file(anna, sha256_of(one)).hash == one.file.hash
    with pytest.raises(UnprocessableError):
        require_file(anna, LIE)


def test_a_file_that_is_claimed_to_be_another_does_not_hide_it(anna: EmbeddedCas) -> None:
    """Whichever came first, and however many there are: each is looked at once."""
    one = sample()
    lies = [sample(seed, 500) for seed in range(100, 100 + 2 * CANDIDATES)]
    upload(anna, one)
    for lie in lies:
        upload(anna, claiming(lie, sha256_of(one)))
    for _ in range(2):
        with pytest.raises(UnprocessableError):
            require_file(anna, sha256_of(one))
    assert require_file(anna, sha256_of(one)).hash == one.file.hash
    assert all(is_known(anna, lie) for lie in lies)


def test_files_of_another_size_are_not_looked_at(anna: EmbeddedCas) -> None:
    one, lie = sample(), sample(2, 500)
    upload(anna, one)
    upload(anna, claiming(lie, sha256_of(one)))
    lose_bytes_of_liar = xorb_object(anna, lie.xorb.hash)
    anna.blobs.delete_many([lose_bytes_of_liar])
    assert require_file(anna, sha256_of(one), size=len(one.data)).hash == one.file.hash
    with pytest.raises(UnprocessableError):
        require_file(anna, sha256_of(one), size=len(one.data) + 1)


def test_a_file_of_another_namespace_is_as_one_that_does_not_exist(anna: EmbeddedCas, bert: EmbeddedCas) -> None:
    one = sample()
    upload(bert, one)
    require_file(bert, sha256_of(one))
    with pytest.raises(UnprocessableError) as refused:
        require_file(anna, sha256_of(one))
    with pytest.raises(UnprocessableError) as unknown:
        require_file(anna, LIE)
    assert str(refused.value) == str(unknown.value).replace(LIE.hex(), sha256_of(one).hex())


def test_what_was_computed_for_one_namespace_is_known_in_all_that_have_the_file(
    anna: EmbeddedCas, bert: EmbeddedCas
) -> None:
    one = sample()
    upload(anna, one)
    upload(bert, claiming(one, None))
    require_file(anna, sha256_of(one))
    carl = anna.in_namespace("models/carl/three")
    upload(carl, claiming(one, LIE))
    lose_bytes(anna, one)
    assert require_file(bert, sha256_of(one)).hash == require_file(carl, sha256_of(one)).hash == one.file.hash


# Commits


def test_a_commit_has_no_pointer_with_a_lie_and_looks_at_no_file_of_another_size(cas: EmbeddedCas) -> None:
    hub = EmbeddedHub(cas)
    hub.accounts.add_user("Alice")
    ours, theirs = (create(hub, name) for name in ("Alice/one", "Alice/two"))
    one, lie, other = sample(1), sample(2, 500), sample(3)
    upload(ours.cas, one)
    upload(ours.cas, claiming(lie, LIE))
    upload(theirs.cas, other)
    before = ours.revision()
    for sha256 in (LIE, sha256_of(other)):
        with pytest.raises(UnprocessableError, match=sha256.hex()):
            ours.commit("main", [AddPointer("right", sha256_of(one)), AddPointer("wrong", sha256)], "both")
    with pytest.raises(UnprocessableError):
        ours.commit("main", [AddPointer("right", sha256_of(one), len(one.data) + 1)], "of another size")
    assert ours.revision() == before
    new, fake = sample(4), sample(5, 700)
    upload(ours.cas, new)
    upload(ours.cas, claiming(fake, sha256_of(new)))
    added = [AddPointer("right", sha256_of(one), len(one.data)), AddPointer("new", sha256_of(new), len(new.data))]
    revision, _ = ours.commit("main", added, "right")
    entries = ours.entries_at(revision, ["right", "new"])
    assert {(entry.path, entry.file, entry.sha256) for entry in entries} == {
        ("right", one.file.hash, sha256_of(one)),
        ("new", new.file.hash, sha256_of(new)),
    }
    assert not is_known(ours.cas, fake)
    assert is_known(ours.cas, new)


# Damage


@pytest.mark.parametrize("is_missing", [True, False])
def test_damage_is_no_lie_and_is_healed_by_the_next_put(anna: EmbeddedCas, root: Path, is_missing: bool) -> None:
    one = sample()
    upload(anna, one)
    path = root / xorb_object(anna, one.xorb.hash)
    if is_missing:
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[30_000] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)
    with pytest.raises(DamagedError):
        require_file(anna, sha256_of(one))
    assert not is_known(anna, one)
    upload(anna, one)
    assert require_file(anna, sha256_of(one)).hash == one.file.hash


def test_damage_of_one_candidate_does_not_hide_another(anna: EmbeddedCas) -> None:
    one, lie = sample(), sample(2, 500)
    upload(anna, one)
    upload(anna, claiming(lie, sha256_of(one)))
    anna.blobs.delete_many([xorb_object(anna, lie.xorb.hash)])
    assert require_file(anna, sha256_of(one)).hash == one.file.hash


# Callers beside each other


class Gate:
    """Before a blob store: ranges that are held are read only while the gate is open. Counts the reads."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gate = threading.Event()
        self.is_asked = threading.Event()
        self.is_held: Callable[[str], bool] = lambda _: True
        self.reads = 0

    def get_range(self, key: str, start: int, end: int) -> Any:
        self.reads += 1
        if self.is_held(key):
            self.is_asked.set()
            assert self.gate.wait(60)
        return super().get_range(key, start, end)  # type: ignore[misc]


class GatedBlobs(Gate, MemoryBlobStore):
    """Objects in memory behind a gate."""


class GatedFiles(Gate, LocalBlobStore):
    """Objects in a directory behind a gate."""


class Patience:
    """Ends a wait that has no end."""

    def __init__(self) -> None:
        self.left = 100

    def check(self) -> None:
        self.left -= 1
        assert self.left, "it waits for others"


@pytest.fixture
def gated() -> Iterator[tuple[EmbeddedCas, GatedBlobs]]:
    blobs = GatedBlobs()
    blobs.gate.set()
    with EmbeddedCas(blobs, Index.in_memory()) as cas:
        yield cas, blobs


def test_callers_at_once_share_the_work(gated: tuple[EmbeddedCas, GatedBlobs]) -> None:
    cas, blobs = gated
    one, other = sample(), sample(2)
    for view in (cas, cas.in_namespace("other")):
        upload(view, one)
    upload(cas, other)
    blobs.reads = 0
    require_file(cas, sha256_of(other))
    alone, blobs.reads = blobs.reads, 0
    blobs.gate.clear()
    blobs.is_asked.clear()
    callers = 8
    arrived = threading.Barrier(callers + 1)

    def ask(number: int) -> Hash:
        arrived.wait(60)
        return require_file(cas.in_namespace(["default", "other"][number % 2]), sha256_of(one)).hash

    with ThreadPoolExecutor(callers) as pool:
        asked = [pool.submit(ask, number) for number in range(callers)]
        arrived.wait(60)
        assert blobs.is_asked.wait(60)
        blobs.gate.set()
        assert {each.result(60) for each in asked} == {one.file.hash}
    assert 0 < blobs.reads <= alone


def test_the_work_goes_on_when_the_caller_gives_up(gated: tuple[EmbeddedCas, GatedBlobs]) -> None:
    cas, blobs = gated
    one = sample()
    upload(cas, one)
    blobs.gate.clear()

    def give_up() -> None:
        raise InterruptedCallError("the client went away")

    with pytest.raises(InterruptedCallError):
        require_files(cas, [sha256_of(one)], on_wait=give_up)
    assert not is_known(cas, one)
    blobs.gate.set()
    for _ in range(1000):
        if is_known(cas, one):
            break
        threading.Event().wait(0.05)
    lose_bytes(cas, one)
    assert require_file(cas, sha256_of(one)).hash == one.file.hash


def test_one_owner_does_not_hold_up_the_others(gated: tuple[EmbeddedCas, GatedBlobs]) -> None:
    """However many files are asked for, and however long they take."""
    cas, blobs = gated
    mallory, bert = cas.in_namespace("models/mallory/one"), cas.in_namespace("models/bert/two")
    slow = [sample(seed, SMALL_BYTES + 1) for seed in range(10, 10 + 2 * AT_A_TIME)]
    for number, each in enumerate(slow):
        upload(mallory if number % 2 else cas.in_namespace("datasets/mallory/three"), each)
    quick = sample(1)
    upload(bert, quick)
    blobs.is_held = {xorb_object(cas, each.xorb.hash) for each in slow}.__contains__
    blobs.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        held = [
            pool.submit(require_files, view, [sha256_of(each) for each in slow[start::2]])
            for start, view in enumerate([cas.in_namespace("datasets/mallory/three"), mallory])
        ]
        assert blobs.is_asked.wait(60)
        assert require_file(bert, sha256_of(quick)).hash == quick.file.hash
        assert not any(is_known(mallory, each) for each in slow)
        blobs.gate.set()
        assert [len(done.result(60)) for done in held] == [AT_A_TIME, AT_A_TIME]


def test_strangers_who_propose_changes_do_not_hold_up_the_owner(gated: tuple[EmbeddedCas, GatedBlobs]) -> None:
    """The work counts for its caller, wherever the files are."""
    cas, blobs = gated
    bert = cas.in_namespace("models/bert/two")
    slow = [sample(seed, SMALL_BYTES + 1) for seed in range(10, 10 + AT_A_TIME)]
    quick = sample(1)
    for each in (*slow, quick):
        upload(bert, each)
    blobs.is_held = {xorb_object(cas, each.xorb.hash) for each in slow}.__contains__
    blobs.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(require_files, bert, [sha256_of(each) for each in slow], caller="mallory")
        try:
            assert blobs.is_asked.wait(60)
            [own] = require_files(bert, [sha256_of(quick)], caller="bert", on_wait=Patience().check).values()
        finally:
            blobs.gate.set()
        assert own.hash == quick.file.hash
        assert len(held.result(60)) == AT_A_TIME


def test_a_child_that_was_forked_computes_for_itself(root: Path) -> None:
    """It does not wait for what its parent had under way."""
    one = sample()
    open_directory(root, create=True)
    blobs = GatedFiles(root)
    with EmbeddedCas(blobs, Index(SqliteDatabase(root / "index.sqlite3"))) as cas:
        upload(cas, one)

        def compute() -> None:
            blobs.is_held = lambda _: False
            assert require_file(cas, sha256_of(one)).hash == one.file.hash

        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(require_file, cas, sha256_of(one))
            try:
                assert blobs.is_asked.wait(60)
                assert failures([in_child(compute)]) == []
            finally:
                blobs.gate.set()
            assert asked.result(60).hash == one.file.hash


REQUIRE = """
import sys
from pathlib import Path
from tests.support import engines
from xetstore.cas import EmbeddedCas
from xetstore.hub.arrivals import arrive
from xetstore.hub.hashing import AT_A_TIME
from xetstore.hub.operations import AddPointer
from xetstore.hub.service import EmbeddedHub
from xetstore.hub.sha256 import require_file
from xetstore.testing import FaultPlan
root, url, sha256, fail_at = Path(sys.argv[1]), sys.argv[2], bytes.fromhex(sys.argv[3]), int(sys.argv[4])
with engines.open_on_postgres(root, url) if url else EmbeddedCas.open(root) as cas:
    print("open", flush=True)
    sys.stdin.readline()
    if fail_at < 0:
        print(require_file(cas, sha256).hash)
    else:
        with FaultPlan(fail_at=fail_at, crash=True).installed():
            print(require_file(cas, sha256).hash)
"""


@pytest.fixture
def url(engine: str, request: pytest.FixtureRequest) -> str:
    return "" if engine == engines.SQLITE else str(request.getfixturevalue("postgres_url"))


def start(root: Path, url: str, sha256: bytes, fail_at: int = -1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", REQUIRE, str(root), url, sha256.hex(), str(fail_at)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_at_once_agree(open_store: engines.OpenStore, root: Path, url: str) -> None:
    one = sample(1, 8_000_000)
    with open_store() as cas:
        upload(cas, one)
        children = [start(root, url, sha256_of(one)) for _ in range(3)]
        try:
            for child in children:
                assert child.stdout is not None
                assert child.stdout.readline() == "open\n"
            for child in children:
                assert child.stdin is not None
                child.stdin.write("\n")
                child.stdin.flush()
            answers = [child.communicate(timeout=60)[0] for child in children]
        finally:
            for child in children:
                child.kill()
                child.wait()
        assert answers == [f"{one.file.hash}\n"] * 3
        assert is_known(cas, one)
        verify_invariants(cas)


def test_a_process_that_dies_leaves_what_it_knew_or_nothing(
    open_store: engines.OpenStore, root: Path, url: str
) -> None:
    """At whichever of its operations on the disk, or at none."""
    one = sample()
    with open_store() as cas:
        upload(cas, one)
    crashes = 0
    for number in range(60):
        child = start(root, url, sha256_of(one), number)
        child.communicate("\n", timeout=60)
        with open_store() as cas:
            verify_invariants(cas)
            known = is_known(cas, one)
        if child.returncode == 0:
            break
        assert child.returncode == CRASH_EXIT_CODE
        crashes += 1
        if known:  # it died behind its commit: from the start
            break
    assert known
    assert crashes
