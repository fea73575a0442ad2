"""Collections in tests: one at a time, at a moment of the store's clock."""

from __future__ import annotations

from collections.abc import Collection

from xetstore.cas import EmbeddedCas
from xetstore.cas.collecting import CollectReport, collect
from xetstore.cas.grace import DAY_SECONDS, Grace
from xetstore.cas.lease import Lease
from xetstore.protocol.hashes import Hash

DAY = DAY_SECONDS
GRACE = Grace()


def collected(cas: EmbeddedCas, grace: Grace = GRACE) -> CollectReport:
    """Collect, and tell what was deleted: what was foreseen just before."""
    foreseen = collect(cas, None, grace, dry_run=True)
    lease = Lease.take(cas.index, "collect")
    assert lease is not None
    with lease:
        report = collect(cas, lease, grace)
    gone = ("grants", "files", "xorbs", "shards", "objects", "bytes", "abandoned", "abandoned_objects")
    assert [getattr(foreseen, name) for name in gone] == [getattr(report, name) for name in gone]
    return report


def revoke(cas: EmbeddedCas, *files: Hash) -> None:
    """Take files out of the namespace."""
    revoked = cas.index.change(lambda writer: writer.revoke(cas.tenant.namespace, files, now=cas.now()))
    assert revoked == set(files)


def xorb_objects(cas: EmbeddedCas) -> set[str]:
    """The keys of all objects of xorbs."""
    return {blob.key for blob in cas.blobs.list("xorbs/")}


def registered(cas: EmbeddedCas, names: Collection[Hash]) -> dict[Hash, bool]:
    """Those of these xorbs that are registered, and if they are doomed."""
    with cas.index.snapshot() as reader:
        return {name: row.is_doomed for name, row in reader.xorbs(names).items()}
