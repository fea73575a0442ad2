"""A store against a dictionary: whatever is done in whatever order, with collections, jumps of time and processes that
die in between, it has what the dictionary has, and at the end nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.faults.model_store import CALLS, FILES, GRACE, NAMESPACES, XORBS, files_of, gc, mend, put
from tests.support.process import Worker
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.layout import SHARDS
from xetstore.cas.layout import XORBS as XORB_OBJECTS
from xetstore.errors import MissingXorbError, NotFoundError
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock, read_back
from xetstore.testing.faults import CRASH_EXIT_CODE

EXAMPLES: Final = int(os.environ.get("XET_MODEL_EXAMPLES", "12"))
STEPS: Final = int(os.environ.get("XET_MODEL_STEPS", "40"))
DAY: Final = 24 * 3600.0

namespaces = st.sampled_from(NAMESPACES)
numbers = st.integers(0, len(FILES) - 1)
some = st.lists(numbers, min_size=1, max_size=3, unique=True)
picks = st.integers(0, 1_000_000)


def _picked(of: list[tuple[str, int]], pick: int) -> tuple[str, int]:
    return of[pick % len(of)]


class Model(RuleBasedStateMachine):
    """``granted`` has the files of each namespace, ``deleted`` those that can be given back, and since when;
    ``offered`` when each namespace was last told of a xorb, or has put it.
    """

    worker: ClassVar[Worker]

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FakeClock(time.time())
        self.granted: set[tuple[str, int]] = set()
        self.deleted: dict[tuple[str, int], float] = {}
        self.offered: dict[tuple[str, int], float] = {}
        self._open()

    def _open(self) -> None:
        self.cas = EmbeddedCas.open(self.folder / "store", clock=self.clock)
        self.cas.grace = GRACE

    def at(self, namespace: str) -> EmbeddedCas:
        return self.cas.in_namespace(namespace)

    # --- Uploads

    @rule(namespace=namespaces, files=some)
    def put(self, namespace: str, files: list[int]) -> None:
        """Files, as a client sends them that knows nothing; those that are deleted are there again."""
        put(self.at(namespace), files)
        self._note_put(namespace, files)

    def _note_put(self, namespace: str, files: list[int]) -> None:
        for number in files:
            self.granted.add((namespace, number))
            self.deleted.pop((namespace, number), None)
            for xorb in FILES[number].xorbs:
                self.offered[namespace, xorb] = self.clock()

    @rule(namespace=namespaces, xorb=st.integers(0, len(XORBS) - 1))
    def put_xorb(self, namespace: str, xorb: int) -> None:
        """A xorb, whose shard comes later or never."""
        self.at(namespace).put_xorb(XORBS[xorb].info.hash, XORBS[xorb].body)
        self.offered[namespace, xorb] = self.clock()

    @rule(namespace=namespaces, number=numbers)
    def ask(self, namespace: str, number: int) -> None:
        """A dedup answer, which the client keeps."""
        first = FILES[number].xorbs[0]
        term = FILES[number].entry.terms[0]
        answer = self.at(namespace).find_chunks(Hash(XORBS[first].info.chunks.digest(term.chunk_start)))
        told = set() if answer is None else {entry.hash for entry in answer.xorbs}
        for other, xorb in enumerate(XORBS):
            if xorb.info.hash in told:
                self.offered[namespace, other] = self.clock()
        assert answer is not None or (namespace, number) not in self.granted

    def _told(self) -> list[tuple[str, int]]:
        """Files of whose xorbs a namespace was told."""
        return [
            (namespace, number)
            for namespace in NAMESPACES
            for number, file in enumerate(FILES)
            if all((namespace, xorb) in self.offered for xorb in file.xorbs)
        ]

    @precondition(lambda self: self._told())
    @rule(pick=picks)
    def use(self, pick: int) -> None:
        """A shard of what the client was told of: good within the grace, else it may be told to send the xorbs."""
        namespace, number = _picked(self._told(), pick)
        file = FILES[number]
        told = [self.offered[namespace, xorb] for xorb in file.xorbs]
        is_fresh = all(self.clock() - at <= GRACE.unused for at in told)
        if is_fresh:
            self.at(namespace).put_shard(file.shard)
        else:
            try:
                self.at(namespace).put_shard(file.shard)
            except MissingXorbError:
                put(self.at(namespace), [number])
        self._note_put(namespace, [number])

    # --- Reads

    @rule(namespace=namespaces, number=numbers, start=st.integers(0, 3000), size=st.integers(1, 3000))
    def read_range(self, namespace: str, number: int, start: int, size: int) -> None:
        data = FILES[number].data
        start = min(start, len(data) - 1)
        if (namespace, number) in self.granted:
            found = read_back(self.at(namespace), FILES[number].hash, start, start + size)
            assert found == data[start : start + size]
        else:
            with pytest.raises(NotFoundError):
                self.at(namespace).reconstruct(FILES[number].hash, start, start + size)

    def read_all(self) -> None:
        for namespace in NAMESPACES:
            for number, file in enumerate(FILES):
                if (namespace, number) in self.granted:
                    assert read_back(self.at(namespace), file.hash) == file.data
                else:
                    with pytest.raises(NotFoundError):
                        self.at(namespace).stat(file.hash)

    # --- Deleting

    @precondition(lambda self: self.granted)
    @rule(pick=picks)
    def delete_one(self, pick: int) -> None:
        namespace, number = _picked(sorted(self.granted), pick)
        self.delete(namespace, [number])

    @precondition(lambda self: self.deleted)
    @rule(pick=picks)
    def undelete_one(self, pick: int) -> None:
        namespace, number = _picked(sorted(self.deleted), pick)
        self.undelete(namespace, [number])

    @rule(namespace=namespaces, files=some, gives_back=st.booleans())
    def delete_any(self, namespace: str, files: list[int], gives_back: bool) -> None:
        """Several, some of which may not be there, or not be deleted."""
        (self.undelete if gives_back else self.delete)(namespace, files)

    def delete(self, namespace: str, files: list[int]) -> None:
        cas, keys = self.at(namespace), [(namespace, number) for number in files]
        if all(key in self.granted or key in self.deleted for key in keys):
            done = cas.delete(files_of(files))
            for key in keys:
                if key in self.granted:
                    self.granted.discard(key)
                    self.deleted[key] = self.clock()
            assert [one.deleted_at for one in done] == [self.deleted[key] for key in keys]
        else:
            with pytest.raises(NotFoundError):
                cas.delete(files_of(files))

    def undelete(self, namespace: str, files: list[int]) -> None:
        cas, keys = self.at(namespace), [(namespace, number) for number in files]
        if all(key in self.granted or key in self.deleted for key in keys):
            cas.undelete(files_of(files))
            for key in keys:
                self.deleted.pop(key, None)
                self.granted.add(key)
        else:
            with pytest.raises(NotFoundError):
                cas.undelete(files_of(files))

    # --- Care

    @rule()
    def gc(self) -> None:
        gc(self.cas)
        self._forget_expired()
        self.read_all()

    @rule(files=some)
    def lose(self, files: list[int]) -> None:
        """Files go everywhere, and can soon be given back no more; what they are made of is kept for the grace."""
        for namespace in NAMESPACES:
            its = [number for number in files if (namespace, number) in self.granted]
            if its:
                self.delete(namespace, its)
        for seconds in (GRACE.undelete + 1, 1, 1):
            self.clock.advance(seconds)
            self.gc()

    def _forget_expired(self) -> None:
        before = self.clock() - GRACE.undelete
        self.deleted = {key: at for key, at in self.deleted.items() if at >= before}

    @rule(how=st.sampled_from(["check", "repair", "reopen"]))
    def look(self, how: str) -> None:
        """Nothing is damaged: nothing is changed that is seen."""
        match how:
            case "check":
                assert check(self.cas, read_data=True).problems == ()
            case "repair":
                mend(self.cas)
            case "reopen":
                self.cas.close()
                self._open()
        self.read_all()

    @rule(xorb=st.integers(0, len(XORBS) - 1), namespace=namespaces, place=st.integers(0, 4000))
    def damage_and_heal(self, xorb: int, namespace: str, place: int) -> None:
        """A bit of an object flips; it is found, and the next upload of the xorb heals it."""
        name = XORBS[xorb].info.hash
        with self.cas.index.snapshot() as reader:
            row = reader.xorb(name)
        if row is None:
            return
        path = self.folder / "store" / row.key
        content = bytearray(path.read_bytes())
        content[place % row.region_bytes] ^= 1
        path.chmod(0o644)
        path.write_bytes(content)
        assert check(self.cas, read_data=True).problems
        assert self.at(namespace).put_xorb(name, XORBS[xorb].body)
        self.offered[namespace, xorb] = self.clock()
        verify_invariants(self.cas)
        self.read_all()

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0, 15.0, 90.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(
        verb=st.sampled_from(sorted(CALLS)),
        namespace=namespaces,
        files=some,
        die_at=st.integers(0, 60),
        closed=st.booleans(),
    )
    def die(self, verb: str, namespace: str, files: list[int], die_at: int, closed: bool) -> None:
        """Another process dies in the middle of a call: then either all of it is done or nothing."""
        keys = [(namespace, number) for number in files]
        if verb in ("delete", "undelete") and not all(key in self.granted or key in self.deleted for key in keys):
            return
        if closed:
            self.cas.close()
        ended = self.worker.run(
            "model",
            store=str(self.folder / "store"),
            now=self.clock(),
            namespace=namespace,
            verb=verb,
            files=files,
            die_at=die_at,
        )
        assert ended.code in (0, CRASH_EXIT_CODE), ended
        if closed:
            self._open()
        self._learn(verb, keys, is_done=bool(ended.told))

    def _learn(self, verb: str, keys: list[tuple[str, int]], *, is_done: bool) -> None:
        """Take in what a call has done that was cut off."""
        now, namespace = self.clock(), keys[0][0]
        there = {record.hash for record in self.at(namespace).files()}
        held = [key for key in keys if FILES[key[1]].hash in there]
        if verb == "put":
            before = [key for key in keys if key in self.granted]
            assert held in (before, keys), "all or nothing"
            assert held == keys or not is_done
            if held == keys:
                self._note_put(namespace, [number for _, number in keys])
        elif verb == "delete":
            before = [key for key in keys if key in self.granted]
            assert held in (before, []), "all or nothing"
            assert not (held and is_done)
            for key in before if not held else ():
                self.granted.discard(key)
                self.deleted[key] = now
        elif verb == "undelete":
            before = [key for key in keys if key in self.granted]
            assert held in (before, keys), "all or nothing"
            assert held == keys or not is_done
            for key in held:
                self.deleted.pop(key, None)
                self.granted.add(key)
        elif verb == "gc":
            listed = {(name, one.hash) for name in NAMESPACES for one in self.at(name).deleted()}
            gone = {key: at for key, at in self.deleted.items() if (key[0], FILES[key[1]].hash) not in listed}
            assert all(at < now - GRACE.undelete for at in gone.values())
            if is_done:
                self._forget_expired()
            self.deleted = {key: at for key, at in self.deleted.items() if key not in gone}
        verify_invariants(self.cas)
        self.read_all()

    # --- At each moment, and at the end

    @invariant()
    def agrees(self) -> None:
        for namespace in NAMESPACES:
            cas = self.at(namespace)
            assert {record.hash for record in cas.files()} == {
                FILES[number].hash for name, number in self.granted if name == namespace
            }
            assert {(one.hash, one.deleted_at) for one in cas.deleted()} == {
                (FILES[number].hash, at) for (name, number), at in self.deleted.items() if name == namespace
            }

    def teardown(self) -> None:
        if not hasattr(self, "cas"):
            return
        try:
            self._expect_nothing_is_left()
        finally:
            self.cas.close()
            shutil.rmtree(self.folder)

    def _expect_nothing_is_left(self) -> None:
        """With everything deleted and collected the store is as small as an empty one."""
        self.read_all()
        verify_invariants(self.cas)
        for namespace in NAMESPACES:
            cas = self.at(namespace)
            cas.delete([record.hash for record in cas.files()])
        for _ in range(6):
            self.clock.advance(8 * DAY)
            gc(self.cas)
            verify_invariants(self.cas)
        left = [blob.key for prefix in (XORB_OBJECTS, SHARDS) for blob in self.cas.blobs.list(prefix)]
        assert left == []
        with self.cas.index.snapshot() as reader:
            for table in TABLES:
                assert reader.connection.value(f"SELECT count(*) FROM {table}") == 0, table


TABLES: Final = (
    *("file", "file_segment", "file_grant", "sha256_claim", "deleted_grant", "deleted_claim", "edge", "xorb"),
    *("xorb_holder", "dedup", "shard", "shard_file", "shard_xorb", "superseded_object"),
)
"""The tables that have no row in an empty store."""


@contextmanager
def dying() -> Iterator[Worker]:
    with Worker(module="tests.faults.model_worker") as worker:
        yield worker


@pytest.mark.slow
@pytest.mark.timeout(36_000 if "XET_MODEL_EXAMPLES" in os.environ else 300)
def test_a_store_is_a_dictionary() -> None:
    """Some examples, the same each time; many more with XET_MODEL_EXAMPLES, at random then."""
    with dying() as worker:
        Model.worker = worker
        run_state_machine_as_test(
            Model,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize="XET_MODEL_EXAMPLES" not in os.environ,
                database=None,
                suppress_health_check=list(HealthCheck),
                print_blob=False,
                report_multiple_bugs=False,
                phases=(Phase.generate, Phase.shrink) if "XET_MODEL_SHRINK" in os.environ else (Phase.generate,),
            ),
        )
