"""The layout of a store: the keys of its objects."""

from __future__ import annotations

import os
import re
from typing import Final

from xetstore.protocol.hashes import Hash

XORBS: Final = "xorbs/"
SHARDS: Final = "shards/"
STORES: Final = "stores/"
PROBES: Final = "probes/"

_KEY_NAME: Final = re.compile(r"([0-9a-f]{64})(?:-([0-9a-f]{16}))?")


def xorb_key(name: Hash, generation: str = "") -> str:
    """The key of a xorb's object. One of 256 folders, so that no folder grows without end.

    Each object has a generation of its own, so that no key is ever written twice; but for those of older releases,
    the first of a xorb or shard, which have none.
    """
    return f"{XORBS}{str(name)[:2]}/{object_name(name, generation)}"


def object_name(name: Hash, generation: str) -> str:
    """An object, as the end of its key; and that of a xorb in URLs."""
    return f"{name}-{generation}" if generation else str(name)


def parse_object_name(text: str) -> tuple[Hash, str] | None:
    """The hash and the generation that make this name, or None."""
    match = _KEY_NAME.fullmatch(text)
    return None if match is None else (Hash.parse(match[1]), match[2] or "")


def new_generation() -> str:
    """A generation that no object has: 16 hexadecimal digits."""
    return os.urandom(8).hex()


def shard_key(name: Hash, generation: str = "") -> str:
    """The key of a shard's object."""
    return f"{SHARDS}{object_name(name, generation)}"


def store_key(store_id: str) -> str:
    """The key of the object that tells to which store objects belong."""
    return f"{STORES}{store_id}"


def named_by(key: str) -> tuple[Hash, str] | None:
    """The hash and the generation that an object's key gives it, or None if it is no key of a xorb or shard."""
    found = parse_object_name(key.rpartition("/")[2])
    return found if found is not None and key in (xorb_key(*found), shard_key(*found)) else None
