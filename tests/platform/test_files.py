"""Durable files on systems that are not here: macOS flushes in another way, and Windows refuses to move open files."""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from xetstore.platform import files
from xetstore.platform.files import remove_open, replace


class HeldError(PermissionError):
    """The error of Windows for a file that another process has open."""

    winerror = 32


@pytest.fixture
def reloaded(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A function that gives the module as another system would load it. The real one is not touched."""

    def load(platform: str) -> ModuleType:
        spec = importlib.util.find_spec(files.__name__)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "platform", platform)
            spec.loader.exec_module(module)
        return module

    return load


def test_a_file_that_is_held_is_replaced_when_it_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "new", tmp_path / "old"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    real, refusals = os.replace, [HeldError(errno.EACCES, "in use")] * 2

    def held(*args: Any) -> None:
        if refusals:
            raise refusals.pop()
        real(*args)

    monkeypatch.setattr(os, "replace", held)
    replace(source, target)
    assert target.read_bytes() == b"new"
    assert not refusals


def test_a_file_that_may_not_be_replaced_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def refuses(*args: Any) -> None:
        calls.append(args)
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuses)
    with pytest.raises(PermissionError):
        replace(tmp_path / "a", tmp_path / "b")
    assert len(calls) == 1


def test_a_file_that_stays_held_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*args: Any) -> None:
        raise HeldError(errno.EACCES, "in use")

    monkeypatch.setattr(os, "replace", held)
    monkeypatch.setattr(files, "_HELD_SECONDS", (0.0, 0.0))
    with pytest.raises(HeldError):
        replace(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("removes_open", [True, False])
def test_an_open_file_is_removed_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removes_open: bool
) -> None:
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    real = os.unlink

    def unlink(name: Path) -> None:
        try:
            os.fstat(fd)
        except OSError:
            real(name)
        else:
            if not removes_open:
                raise HeldError(errno.EACCES, "in use")
            real(name)

    monkeypatch.setattr(os, "unlink", unlink)
    remove_open(path, fd)
    assert not path.exists()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


@pytest.mark.parametrize("knows", [True, False])
def test_macos_flushes_the_disk_too(
    reloaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows: bool
) -> None:
    import fcntl

    calls: list[object] = []

    def control(fd: int, command: int) -> int:
        calls.append(command)
        if not knows:
            raise OSError(errno.ENOTSUP, "Operation not supported")
        return 0

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    module = reloaded("darwin")
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync"))
    monkeypatch.setattr(sys, "platform", "darwin")
    with (tmp_path / "file").open("wb") as file:
        module.sync_file(file.fileno())
    assert calls == ([51] if knows else [51, "fsync"])
    calls.clear()
    module.sync_folder(tmp_path)
    assert calls[0] == 51


def test_a_flush_that_fails_on_macos_is_final(reloaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def fails(fd: int, command: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    module = reloaded("darwin")
    monkeypatch.setattr(fcntl, "fcntl", fails)
    monkeypatch.setattr(sys, "platform", "darwin")
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="Input/output"):
        module.sync_file(file.fileno())


def test_windows_has_no_folders_to_flush(reloaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = reloaded("win32")
    assert not module.MOVES_OPEN_FILES
    monkeypatch.setattr(sys, "platform", "win32")
    module.sync_folder(tmp_path / "missing")
