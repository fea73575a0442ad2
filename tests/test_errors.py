"""Errors: what each is called, what it is for callers that know only builtin errors, and that all of it travels."""

from __future__ import annotations

import copy
import errno
import importlib
import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import xetstore
from tests.support.modules import modules
from tests.support.strategies import splitmix64
from xetstore import errors, events
from xetstore.errors import XetError
from xetstore.protocol.hashes import Hash

BUILTINS: dict[type[XetError], tuple[type[Exception], int | None]] = {
    errors.UsageError: (ValueError, None),
    errors.RangeError: (ValueError, None),
    errors.TooLargeError: (ValueError, None),
    errors.NotPicklableError: (TypeError, None),
    errors.WrongTypeError: (TypeError, None),
    errors.NotFoundError: (FileNotFoundError, errno.ENOENT),
    errors.RepositoryNotFoundError: (FileNotFoundError, errno.ENOENT),
    errors.RevisionNotFoundError: (FileNotFoundError, errno.ENOENT),
    errors.EntryNotFoundError: (FileNotFoundError, errno.ENOENT),
    errors.ExistsError: (FileExistsError, errno.EEXIST),
    errors.UnprocessableError: (ValueError, None),
    errors.GatedError: (PermissionError, errno.EACCES),
    errors.FormatError: (ValueError, None),
    errors.AccessDeniedError: (PermissionError, errno.EACCES),
    errors.UnauthenticatedError: (PermissionError, errno.EACCES),
    errors.MissingTokenError: (PermissionError, errno.EACCES),
    errors.ForbiddenError: (PermissionError, errno.EACCES),
    errors.UnavailableError: (OSError, None),
    errors.UnreachableError: (ConnectionError, None),
    errors.ConflictError: (OSError, None),
    errors.LeaseLostError: (OSError, None),
    errors.UnknownOutcomeError: (OSError, None),
    errors.StorageFullError: (OSError, errno.ENOSPC),
    errors.QuotaExceededError: (OSError, errno.EDQUOT),
    errors.TimedOutError: (TimeoutError, errno.ETIMEDOUT),
    errors.TooManyRequestsError: (OSError, None),
}
NO_BUILTIN = {
    errors.OutdatedError,
    errors.IntegrityError,
    errors.HashMismatchError,
    errors.DamagedError,
    errors.RejectedShardError,
    errors.MissingXorbError,
    errors.SourceChangedError,
    errors.InterruptedCallError,
}


def _all_kinds() -> list[type[XetError]]:
    """Every kind of XetError anywhere in the package."""
    for module in modules():
        importlib.import_module(module)

    def below(kind: type[XetError]) -> Iterator[type[XetError]]:
        yield kind
        for one in kind.__subclasses__():
            yield from below(one)

    return [kind for kind in dict.fromkeys(below(XetError)) if kind.__module__.startswith("xetstore.")]


KINDS = _all_kinds()
_SAMPLES: dict[object, Any] = {str: "a text", int: 7, Collection[str]: ["GET", "PUT"], str | None: "a hint"}


def _made(kind: type[XetError]) -> XetError:
    """An error of a kind, with every field set to something."""
    hints = get_type_hints(kind.__init__)
    arguments = list(inspect.signature(kind).parameters.values())
    positional = [_SAMPLES[hints[one.name]] for one in arguments if one.kind is not one.KEYWORD_ONLY]
    named = {one.name: _SAMPLES[hints[one.name]] for one in arguments if one.kind is one.KEYWORD_ONLY}
    error = kind(*positional, **named)
    error.hint = "try again"
    error.retry_after = 2.5
    error.add_note("a note")
    return error


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("how", ["pickle", "copy", "deepcopy"])
def test_an_error_travels_whole(kind: type[XetError], how: str) -> None:
    error = _made(kind)
    ways: dict[str, Callable[[XetError], XetError]] = {
        "pickle": lambda one: pickle.loads(pickle.dumps(one)),
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
    }
    again = ways[how](error)
    assert type(again) is kind
    assert again is not error
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)
    assert (again.hint, again.retry_after, again.errno, again.__notes__) == ("try again", 2.5, error.errno, ["a note"])


POOL = """
import multiprocessing, pickle, sys

def fail(error):
    raise error

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for error in pickle.loads(sys.stdin.buffer.read()):
            try:
                pool.apply_async(fail, (error,)).get(timeout=60)
            except Exception as caught:
                print(type(caught).__name__, caught, caught.hint, sep="|")
"""


def test_a_pool_hands_every_error_to_its_parent(tmp_path: Path) -> None:
    (tmp_path / "pool.py").write_text(POOL)
    made = [_made(kind) for kind in KINDS]
    told = subprocess.run(
        [sys.executable, tmp_path / "pool.py"], input=pickle.dumps(made), capture_output=True, check=True, timeout=120
    )
    assert told.stdout.decode().splitlines() == [f"{type(error).__name__}|{error}|try again" for error in made]


def test_every_error_of_the_tree_says_which_builtin_it_is() -> None:
    of_the_tree = {kind for kind in KINDS if kind.__module__ == "xetstore.errors"} - {XetError}
    assert of_the_tree == set(BUILTINS) | NO_BUILTIN
    tree = {line.partition("── ")[2].split()[0]: line for line in _tree()}
    for kind, (natural, number) in BUILTINS.items():
        error = _made(kind)
        assert isinstance(error, natural)
        assert error.errno == number
        named = re.search(r"\((?:an? )?(\w+Error)\)$", tree[kind.__name__])
        assert (named[1] if named else None) == (None if issubclass(kind.__mro__[1], natural) else natural.__name__)
    for kind in NO_BUILTIN:
        assert not issubclass(kind, OSError | ValueError)


def _tree() -> list[str]:
    assert errors.__doc__ is not None
    return [line for line in errors.__doc__.splitlines() if "──" in line]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_an_error_says_is_its_one_sentence(kind: type[XetError]) -> None:
    error = _made(kind)
    assert str(error) == error.args[0] == getattr(error, "strerror", None)
    error.args = (f"{error}; 3 attempts were made",)
    assert str(error) == error.strerror == pickle.loads(pickle.dumps(error)).strerror == error.args[0]  # type: ignore[attr-defined]
    assert not str(error).startswith("[Errno")


def test_callers_that_know_builtin_errors_only_are_served(tmp_path: Path) -> None:
    with xetstore.open(tmp_path / "store") as store:
        with pytest.raises(FileNotFoundError) as caught:
            store.put(tmp_path / "missing")
        assert caught.value.errno == errno.ENOENT
        with pytest.raises(FileNotFoundError):
            store.stat("ab" * 32)
        with pytest.raises(ValueError, match="hash"):
            store.stat("no hash")
        (tmp_path / "file").write_bytes(splitmix64(1, 100))
        info = store.put(tmp_path / "file")
        with pytest.raises(ValueError, match="100"):
            store.get(info.hash, tmp_path / "copy", start=200)


@pytest.mark.parametrize("kind", get_args(events.Event), ids=lambda kind: kind.__name__)
def test_an_event_travels_whole(kind: type[Any]) -> None:
    hints = get_type_hints(kind)
    samples = {str: "a text", int: 7, float: 0.5, bool: True, Path: Path("file"), Hash: Hash(bytes(range(32)))}
    event = kind(*(samples[hints[field.name]] for field in fields(kind)))
    assert pickle.loads(pickle.dumps(event)) == copy.copy(event) == event


@pytest.mark.parametrize("module", ["errors", "aio", "events", "protocol"])
def test_modules_are_there_after_the_import_of_the_package(module: str) -> None:
    code = (
        f"import xetstore; assert xetstore.{module}.__name__ == 'xetstore.{module}'; assert {module!r} in dir(xetstore)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
