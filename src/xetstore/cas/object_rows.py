"""object_rows(): objects, as a listing gives their keys, compared with the rows that name them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from xetstore.cas.layout import XORBS, named_by

if TYPE_CHECKING:
    from xetstore.cas.index import ObjectRow, Reader
    from xetstore.protocol.hashes import Hash


def object_rows(reader: Reader, keys: Iterable[str]) -> dict[str, ObjectRow | None]:
    """For each key of a xorb or a shard the row of that, whose object may be another one; None where there is no row.

    A key that is none of ours is left out.
    """
    named = {key: found[0] for key in keys if (found := named_by(key)) is not None}
    is_xorb = {key: key.startswith(XORBS) for key in named}
    xorbs = reader.xorbs([name for key, name in named.items() if is_xorb[key]])
    shards = reader.shards([name for key, name in named.items() if not is_xorb[key]])

    def row_of(key: str, name: Hash) -> ObjectRow | None:
        return xorbs.get(name) if is_xorb[key] else shards.get(name)

    return {key: row_of(key, name) for key, name in named.items()}
