"""A store whose index is lost gets it back: contents from objects, names and grants from the newest snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub.copies import content, fill
from tests.support.lost_index import MORE, PAIRS, placed, shown
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.collecting import collect_all
from xetstore.cas.grace import Grace
from xetstore.cas.lease import Lease
from xetstore.cas.repair.rebuild import rebuild_index
from xetstore.cas.snapshots.journal import note_deleted
from xetstore.cas.snapshots.take import take_snapshot_now
from xetstore.errors import DamagedError, NotFoundError
from xetstore.hub.check import verify_names
from xetstore.hub.collecting import names_to_collect
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.quotas import set_quota
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub
from xetstore.hub.snapshot import NAMES
from xetstore.hub.undeleting import undelete_repository
from xetstore.protocol.shard import Shard
from xetstore.testing import FakeClock, make_sample, random_bytes, read_back, upload


@pytest.mark.parametrize("pair", PAIRS)
def test_all_is_there_again(pair: str, tmp_path: Path, request: pytest.FixtureRequest, clock: FakeClock) -> None:
    with placed(pair, tmp_path, request) as place:
        with EmbeddedCas.open(place.parts, clock=clock) as cas:
            hub = EmbeddedHub(cas)
            fill(hub)
            samples = [make_sample(random_bytes(200_000, seed), before=random_bytes(90_000, 1)) for seed in range(5)]
            files = [upload(cas.in_namespace(name), one) for one in samples for name in ("default", "alice")][::2]
            # A file of a shard is collected, which is rewritten then; and a xorb is healed.
            pair_of = [make_sample(random_bytes(100_000, seed)) for seed in (50, 51)]
            for one in pair_of:
                cas.put_xorb(one.xorb.hash, one.body)
            cas.put_shard(
                Shard(tuple(one.file for one in pair_of), tuple(x for one in pair_of for x in one.shard.xorbs))
            )
            cas.index.change(lambda writer: writer.revoke("default", [pair_of[0].file.hash], now=clock()))
            note_deleted(cas, "default", [pair_of[0].file.hash])
            clock.advance(1000)
            with Lease.take(cas.index, "collect") as lease:  # type: ignore[union-attr]
                collect_all(cas, lease, Grace(unused=1, undelete=1), names=names_to_collect(cas))
            with cas.index.snapshot() as reader:
                row = reader.xorbs([samples[3].xorb.hash])[samples[3].xorb.hash]
            cas.healing.mark(row)
            assert cas.put_xorb(samples[3].xorb.hash, samples[3].body)
            set_quota(cas, "Alice", max_bytes=1 << 40, max_files=1000)
            set_quota(cas, "default", max_bytes=1 << 40, max_files=None)
            clock.advance(100)
            cas.index.change(lambda writer: writer.revoke("alice", files[:2], now=clock()))
            note_deleted(cas, "alice", files[:2])
            take_snapshot_now(cas, [NAMES])
            clock.advance(100)
            cas.index.change(lambda writer: writer.revoke("default", files[4:], now=clock()))
            note_deleted(cas, "default", files[4:])
            hub.delete(LOCAL, Kind.DATASETS, "acme/facts")
            hub.delete(LOCAL, Kind.MODELS, "Alice/bert")
            clock.advance(1)
            undelete_repository(hub, LOCAL, RepositoryName(Kind.DATASETS, "acme", "facts"))
            before, names = shown(cas), content(hub)
        parts = place.lose()
        with pytest.raises(DamagedError, match=r"."):
            EmbeddedCas.open(parts)
        report = rebuild_index(parts, [NAMES], checksums=True)
        assert report.problems == ()
        assert (report.counts.found, report.found_in) == (0, "lost-found")
        assert report.counts.entries >= 5
        with EmbeddedCas.open(parts, clock=clock) as cas:
            hub = EmbeddedHub(cas)
            after = shown(cas)
            for name, rows in before.items():
                assert rows == [row for row in after[name] if name not in MORE or row in rows], name
            assert content(hub) == names
            verify_invariants(cas)
            assert verify_names(hub) == []
            assert read_back(cas, files[0]) == samples[0].data
            assert read_back(cas, pair_of[1].file.hash) == pair_of[1].data
            gone = (pair_of[0].file.hash, "default")
            for file, namespace in ((files[0], "alice"), (files[4], "default"), gone):
                with pytest.raises(NotFoundError):
                    read_back(cas.in_namespace(namespace), file)
            cas.index.change(lambda writer: writer.restore("default", files[4:], now=clock()))
            assert read_back(cas, files[4]) == samples[4].data
            bert = undelete_repository(hub, LOCAL, RepositoryName(Kind.MODELS, "Alice", "bert"))
            assert verify_names(hub) == []
            assert [ref.name for ref in bert.refs()] != []
