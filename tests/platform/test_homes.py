"""The folders of a user, on each system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from xetstore.errors import UsageError
from xetstore.platform.homes import user_folder

KINDS = ("data", "config", "cache")


@pytest.mark.parametrize(
    ("system", "folders"),
    [
        ("linux", (".local/share/xet", ".config/xet", ".cache/xet")),
        ("darwin", ("Library/Application Support/xet", "Library/Application Support/xet", "Library/Caches/xet")),
        ("win32", ("AppData/Local/xet", "AppData/Local/xet", "AppData/Local/xet/Cache")),
    ],
)
def test_each_system_has_its_folders(
    system: str, folders: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (*(f"XDG_{kind.upper()}_HOME" for kind in KINDS), "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    assert [user_folder(kind, "xet", "") for kind in KINDS] == [tmp_path / folder for folder in folders]


@pytest.mark.parametrize("kind", KINDS)
def test_a_variable_names_another_folder_unless_it_is_relative(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", str(tmp_path))
    assert user_folder(kind, "xet", "") == tmp_path / "xet"
    monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", "here")
    assert user_folder(kind, "xet", "").is_relative_to(Path.home())


def test_without_a_home_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "nowhere")
    with pytest.raises(UsageError) as raised:
        user_folder("cache", "xet", "set HOME")
    assert raised.value.hint == "set HOME"
