"""Quotas: the numbers change with the grants, are never exceeded, and stores without any pay nothing."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest

from tests.support import engines
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.check import check
from xetstore.cas.index import Index, Writer
from xetstore.cas.quotas import differences, quotas, recount, remove_quota, set_quota
from xetstore.errors import IntegrityError, NotFoundError, QuotaExceededError, UnavailableError, UsageError
from xetstore.testing import FaultPlan, FaultyDatabase, Sample, make_sample, random_bytes, upload

ENGINES = engines.BOTH
MOST = 1_000_000


def some(*seeds: int, size: int = 300_000) -> list[Sample]:
    return [make_sample(random_bytes(size, seed)) for seed in seeds]


def used(cas: EmbeddedCas, name: str) -> tuple[int, int]:
    """What is used of a quota, which is what its files have."""
    assert not [*differences(cas)]
    [quota] = [quota for quota in quotas(cas) if quota.name == name]
    return quota.used_bytes, quota.used_files


def mark_damaged(cas: EmbeddedCas, sample: Sample) -> None:
    with cas.index.snapshot() as reader:
        row = reader.xorb(sample.xorb.hash)
    assert row is not None
    cas.index.change(lambda writer: writer.mark(row, damaged_at=1.0))


def test_each_change_of_grants_is_counted(cas: EmbeddedCas) -> None:
    a, b = cas.in_namespace("a"), cas.in_namespace("b")
    first, second, third = some(1, 2, 3)
    upload(a, first)
    quota = set_quota(cas, "a", max_bytes=MOST, max_files=3)
    assert (quota.used_bytes, quota.used_files) == (300_000, 1)
    upload(a, second)
    upload(a, second)
    upload(b, second)
    upload(b, third)
    assert used(cas, "a") == (600_000, 2)
    names = {sample.file.hash for sample in (first, second, third)}
    cas.index.change(lambda writer: writer.copy_grants("b", "a", names, now=1.0))
    assert used(cas, "a") == (900_000, 3)
    cas.index.change(lambda writer: writer.revoke("a", [first.file.hash], now=1.0))
    cas.index.change(lambda writer: writer.revoke("a", [first.file.hash], now=1.0))
    assert used(cas, "a") == (600_000, 2)
    cas.index.change(lambda writer: writer.restore("a", [first.file.hash, second.file.hash], now=1.0))
    assert used(cas, "a") == (900_000, 3)
    cas.index.change(lambda writer: writer.revoke_all("a", now=1.0))
    assert used(cas, "a") == (0, 0)
    cas.index.change(lambda writer: writer.restore_all("a"))
    assert used(cas, "a") == (900_000, 3)
    cas.index.change(lambda writer: writer.revoke_all("a", now=1.0))
    cas.index.change(lambda writer: writer.add_grants([(name, "a", 1.0) for name in names]))
    cas.index.change(lambda writer: writer.add_grants([(name, "a", 1.0) for name in names]))
    assert used(cas, "a") == (900_000, 3)


def test_nothing_beyond_it_is_taken(cas: EmbeddedCas) -> None:
    a, b = cas.in_namespace("a"), cas.in_namespace("b")
    first, second, third, fourth = some(1, 2, 3, 4)
    set_quota(cas, "a", max_bytes=700_000, max_files=None)
    upload(a, first)
    upload(a, second)
    with pytest.raises(QuotaExceededError, match="the quota of a is exceeded: 600,000 of 700,000 bytes are used, and"):
        upload(a, third)
    assert used(cas, "a") == (600_000, 2)
    with pytest.raises(NotFoundError):
        a.stat(third.file.hash)
    upload(b, third)
    with pytest.raises(QuotaExceededError):
        cas.index.change(lambda writer: writer.copy_grants("b", "a", [third.file.hash], now=1.0))
    cas.index.change(lambda writer: writer.revoke("a", [first.file.hash], now=1.0))
    upload(a, third)
    with pytest.raises(QuotaExceededError):
        cas.index.change(lambda writer: writer.restore("a", [first.file.hash], now=1.0))
    with pytest.raises(QuotaExceededError):
        cas.index.change(lambda writer: writer.restore_all("a"))
    assert used(cas, "a") == (600_000, 2)
    cas.index.change(lambda writer: writer.add_grants([(first.file.hash, "a", 1.0)]))
    assert used(cas, "a") == (900_000, 3), "a copy of a store is counted, and not refused"
    with pytest.raises(QuotaExceededError, match=r"900,000 of 700,000 bytes are used$"):
        a.put_xorb(fourth.xorb.hash, fourth.body)
    with cas.index.snapshot() as reader:
        assert reader.xorb(fourth.xorb.hash) is None
    assert not a.put_xorb(first.xorb.hash, first.body), "what it has may come again"
    mark_damaged(cas, first)
    assert a.put_xorb(first.xorb.hash, first.body), "and heals"
    with a.receive_xorb(fourth.xorb.hash, is_care=True) as receiver:
        receiver.write(fourth.body)
        assert receiver.commit(), "care writes xorbs in its name"
    upload(a, second)
    set_quota(cas, "a", max_bytes=None, max_files=3)
    with pytest.raises(QuotaExceededError, match="3 of 3 files are used"):
        upload(a, fourth)
    remove_quota(cas, "a")
    upload(a, fourth)
    with pytest.raises(NotFoundError):
        remove_quota(cas, "a")
    for name, most in (("", 1), ("a\n", 1), ("a", -1)):
        with pytest.raises(UsageError):
            set_quota(cas, name, max_bytes=most, max_files=None)


def test_two_uploads_at_once_never_exceed_it(cas: EmbeddedCas) -> None:
    samples = some(*range(10), size=100_000)
    for sample in samples:
        cas.in_namespace("a").put_xorb(sample.xorb.hash, sample.body)
    set_quota(cas, "a", max_bytes=450_000, max_files=None)
    refused = []
    begun = threading.Barrier(len(samples))

    def put(sample: Sample) -> None:
        begun.wait()
        try:
            cas.in_namespace("a").put_shard(sample.shard)
        except QuotaExceededError as error:
            refused.append(error)

    threads = [threading.Thread(target=put, args=(sample,)) for sample in samples]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert used(cas, "a") == (400_000, 4)
    assert len(refused) == 6


def test_a_quota_waits_for_grants_that_have_begun(cas: EmbeddedCas, sample: Sample) -> None:
    """A grant that began without a quota is counted by the one that sets it, and one that comes then by itself."""
    upload(cas.in_namespace("b"), sample)
    reached, go_on, is_set = threading.Event(), threading.Event(), threading.Event()

    def grant(writer: Writer) -> None:
        writer.copy_grants("b", "a", [sample.file.hash], now=1.0)
        reached.set()
        go_on.wait(20)

    def set_it() -> None:
        set_quota(cas, "a", max_bytes=10, max_files=None)
        is_set.set()

    threads = [threading.Thread(target=cas.index.change, args=(grant,)), threading.Thread(target=set_it)]
    threads[0].start()
    assert reached.wait(20)
    threads[1].start()
    assert not is_set.wait(0.5), "it waits for the grant"
    go_on.set()
    for thread in threads:
        thread.join()
    assert used(cas, "a") == (len(sample.data), 1)


@pytest.mark.slow
def test_whichever_statement_fails_the_numbers_are_right(tmp_path: Path, opening: engines.Opening) -> None:
    plan, failed = FaultPlan(), 0
    with EmbeddedCas(LocalBlobStore(tmp_path), Index(FaultyDatabase(opening(), plan))) as cas:
        set_quota(cas, "default", max_bytes=MOST, max_files=1000)

        def change(sample: Sample) -> None:
            upload(cas, sample)
            cas.index.change(lambda writer: writer.revoke("default", [sample.file.hash], now=1.0))
            cas.index.change(lambda writer: writer.restore("default", [sample.file.hash], now=1.0))
            set_quota(cas, "default", max_bytes=MOST, max_files=999)

        for number in range(100):
            plan.fail_next(after=number)
            with contextlib.suppress(UnavailableError):
                change(make_sample(random_bytes(1000, number)))
            is_over = not plan.has_failed
            plan.disarm()
            if is_over:
                break
            failed += 1
            used(cas, "default")
        verify_invariants(cas)
    assert failed > 30


def test_numbers_that_are_wrong_are_found_and_mended(cas: EmbeddedCas, sample: Sample) -> None:
    upload(cas.in_namespace("a"), sample)
    set_quota(cas, "a", max_bytes=MOST, max_files=None)
    set_quota(cas, "b", max_bytes=MOST, max_files=None)
    cas.index.change(lambda writer: writer.connection.change("UPDATE quota SET used_bytes = 5, used_files = 7"))
    wrong = [(one.name, one.noted, one.counted) for one in differences(cas)]
    assert wrong == [("a", (5, 7), (len(sample.data), 1)), ("b", (5, 7), (0, 0))]
    with pytest.raises(IntegrityError, match="quota a: 5 bytes of 7 files are counted, and there are"):
        verify_invariants(cas)
    assert len(check(cas).problems) == 2
    assert not check(cas).problems, "they were mended"
    cas.index.change(lambda writer: writer.connection.change("UPDATE quota SET used_bytes = 5, used_files = 7"))
    assert [one.name for one in recount(cas)] == ["a", "b"]
    assert recount(cas) == []
    assert used(cas, "a") == (len(sample.data), 1)


def test_only_these_statements_change_grants() -> None:
    """What changes grants by another way would make numbers wrong."""
    root = Path(__file__).parents[2] / "src" / "xetstore"
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if any(f"{word} file_grant" in path.read_text() for word in ("INSERT INTO", "DELETE FROM", "UPDATE"))
    }
    counting = {f"cas/index/queries/{name}.py" for name in ("copying", "deletions", "files", "grants")}
    of_times = {"cas/index/queries/again.py"}
    assert found - counting - of_times == {"cas/index/queries/rebuilding.py"}, "after which quotas are counted anew"
