"""xetstore: the Xet protocol, whole, as one Python package.

>>> import xetstore  # doctest: +SKIP
>>> with xetstore.open("./store") as store:  # doctest: +SKIP
...     info = store.put("model.safetensors")
...     store.get(info, "copy.safetensors")
...     head = store.read(info, 0, 100)

A store is a directory, a store file, the URL of a server, or ``hf://models/NAMESPACE/NAME``; :class:`Store` has its
verbs, ``xetstore.aio`` the same for asyncio, ``xetstore.protocol`` chunks, hashes, xorbs and shards for tools.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

# Before any thread can import the rest: a fork waits for it.
from xetstore.platform import forks as _forks  # noqa: F401
from xetstore.version import __version__ as __version__

if TYPE_CHECKING:
    from xetstore import aio as aio
    from xetstore import errors as errors
    from xetstore import events as events
    from xetstore import protocol as protocol
    from xetstore.errors import XetError
    from xetstore.limits import Limits
    from xetstore.protocol.hashes import Hash
    from xetstore.records import DeletedFile, FileInfo, FileRecord
    from xetstore.repositories.repository import Repository
    from xetstore.store import GetReport, Store, What, open_locator
    from xetstore.store import open_store as open  # noqa: A004  # the package's own verb, as in gzip.open
    from xetstore.transfer.scan import hash_file
    from xetstore.transfer.upload.pending import PutReport

__all__ = [
    "DeletedFile",
    "FileInfo",
    "FileRecord",
    "GetReport",
    "Hash",
    "Limits",
    "PutReport",
    "Repository",
    "Store",
    "What",
    "XetError",
    "__version__",
    "hash_file",
    "open",
    "open_locator",
]

# Where each public name lives. Loaded when it is asked for: `xet --help` needs no database.
_HOMES = {
    "DeletedFile": ("xetstore.records", "DeletedFile"),
    "FileInfo": ("xetstore.records", "FileInfo"),
    "FileRecord": ("xetstore.records", "FileRecord"),
    "GetReport": ("xetstore.store", "GetReport"),
    "Hash": ("xetstore.protocol.hashes", "Hash"),
    "Limits": ("xetstore.limits", "Limits"),
    "PutReport": ("xetstore.transfer.upload.pending", "PutReport"),
    "Repository": ("xetstore.repositories.repository", "Repository"),
    "Store": ("xetstore.store", "Store"),
    "What": ("xetstore.store", "What"),
    "XetError": ("xetstore.errors", "XetError"),
    "hash_file": ("xetstore.transfer.scan", "hash_file"),
    "open": ("xetstore.store", "open_store"),
    "open_locator": ("xetstore.store", "open_locator"),
}

# Modules that are there as `xetstore.errors` after `import xetstore`.
_MODULES = ("aio", "errors", "events", "protocol")

if not TYPE_CHECKING:  # where types are checked, a name that is not there stays an error

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return _import_module(f"xetstore.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'xetstore' has no attribute {name!r}")
        module, attribute = _HOMES[name]
        return getattr(_import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, *_MODULES]
