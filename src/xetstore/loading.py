"""Names of a package that are loaded when they are first asked for, so that none pays for what it does not use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """The ``__getattr__`` of a package: ``homes`` says in which module each of its names lives, as ``MODULE`` or, where
    the name is another one there, ``MODULE:NAME``. A name that is not among them is an AttributeError.
    """

    def __getattr__(name: str) -> object:  # noqa: N807  # as the package has it
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = homes[name].partition(":")
        value: object = getattr(import_module(module), attribute or name)
        setattr(sys.modules[package], name, value)  # found at once from now on
        return value

    return __getattr__
