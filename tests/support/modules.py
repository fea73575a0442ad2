"""The modules of the package that this system can load."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator

import xetstore

_OF_WINDOWS = "xetstore.platform.windows"


def modules() -> Iterator[str]:
    """The names of all modules, but for programs and for those of other systems."""
    yield "xetstore"
    for module in pkgutil.walk_packages(xetstore.__path__, "xetstore."):
        if not module.name.endswith("__main__") and (module.name != _OF_WINDOWS or sys.platform == "win32"):
            yield module.name
