"""xetstore: the Xet protocol, whole, as one Python package.

>>> import xetstore  # doctest: +SKIP
>>> store = xetstore.open("./store")  # doctest: +SKIP
>>> info = store.put("model.safetensors")  # doctest: +SKIP
>>> store.get(info.hash, "copy.safetensors")  # doctest: +SKIP
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

# Before any thread can import the rest: a fork waits for it.
from xetstore.platform import forks as _forks  # noqa: F401

if TYPE_CHECKING:
    from xetstore import aio as aio
    from xetstore import errors as errors
    from xetstore import events as events
    from xetstore import protocol as protocol
    from xetstore.errors import XetError
    from xetstore.limits import Limits
    from xetstore.protocol.hashes import Hash
    from xetstore.records import FileInfo
    from xetstore.repositories.repository import Repository
    from xetstore.store import GetReport, Store, open_locator
    from xetstore.store import open_store as open  # noqa: A004  # the package's own verb, as in gzip.open
    from xetstore.transfer.scan import hash_file
    from xetstore.transfer.upload.pending import PutReport

    __version__: str

__all__ = [
    "FileInfo",
    "GetReport",
    "Hash",
    "Limits",
    "PutReport",
    "Repository",
    "Store",
    "XetError",
    "__version__",
    "hash_file",
    "open",
    "open_locator",
]

# Where each public name lives. Loaded when it is asked for: `xet --help` needs no database.
_HOMES = {
    "FileInfo": ("xetstore.records", "FileInfo"),
    "GetReport": ("xetstore.store", "GetReport"),
    "Hash": ("xetstore.protocol.hashes", "Hash"),
    "Limits": ("xetstore.limits", "Limits"),
    "PutReport": ("xetstore.transfer.upload.session", "PutReport"),
    "Repository": ("xetstore.repositories.repository", "Repository"),
    "Store": ("xetstore.store", "Store"),
    "XetError": ("xetstore.errors", "XetError"),
    "hash_file": ("xetstore.transfer.scan", "hash_file"),
    "open": ("xetstore.store", "open_store"),
    "open_locator": ("xetstore.store", "open_locator"),
}

# Modules that are there as `xetstore.errors` after `import xetstore`.
_MODULES = ("aio", "errors", "events", "protocol")


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _import_module("importlib.metadata").version("xetstore")
    if name in _MODULES:
        return _import_module(f"xetstore.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'xetstore' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(_import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, *_MODULES]
