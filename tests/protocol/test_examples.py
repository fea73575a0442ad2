"""The examples in the protocol core's docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from xetstore import protocol

MODULES = [module.name for module in pkgutil.iter_modules(protocol.__path__, "xetstore.protocol.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    assert sum(doctest.testmod(importlib.import_module(name)).attempted for name in MODULES) > 4
