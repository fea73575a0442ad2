"""docs/server.md lists the settings with their defaults, the routes, and the codes of errors as they are."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tests.cli.test_documented import error_classes
from xetstore.errors import XetError
from xetstore.server.app import ROUTES
from xetstore.server.problems import InternalError, MethodNotAllowedError
from xetstore.server.settings import ServerSettings, load_settings

TEXT = (Path(__file__).parents[2] / "docs" / "server.md").read_text()
SETTINGS = re.findall(r"^\| `([a-z_]+)` \| (?:`(.*?)`)? *\| (.+) \|$", TEXT, flags=re.MULTILINE)


def test_every_setting_is_listed_with_what_it_is_for() -> None:
    assert [(name, text) for name, _, text in SETTINGS if name in _names()] == [
        (knob.name, knob.metadata["help"]) for knob in fields(ServerSettings)
    ]


@pytest.mark.parametrize(("name", "default"), [(name, default) for name, default, _ in SETTINGS if default])
def test_a_default_is_as_listed(name: str, default: str) -> None:
    if name in _names():
        assert load_settings({name: default}, {}, None) == ServerSettings()


def test_every_route_is_listed_and_no_other() -> None:
    listed = re.findall(r"`(/[^`]*)`", TEXT.split("\n## Routes\n")[1].split("\n## ")[0])
    assert set(listed) == {route.path for route in ROUTES}


def test_every_error_a_client_can_get_is_listed_with_its_status() -> None:
    listed = {
        code: int(status)
        for status, codes in re.findall(r"^\| (\d+) \| (`[^|]*) \|", TEXT, flags=re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    kinds: list[type[XetError]] = [*error_classes(), InternalError, MethodNotAllowedError]
    expected = {kind.code: kind.http_status for kind in kinds}
    # Of a client's own work, or only the base of others.
    for code in ("error", "integrity", "source_changed"):
        del expected[code]
    assert listed == expected


def _names() -> set[str]:
    return {knob.name for knob in fields(ServerSettings)}
