"""docs/server.md lists the routes, and the codes of errors, as they are."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.test_documented import error_classes
from xetstore.errors import XetError
from xetstore.server.app import ROUTES
from xetstore.server.http.problems import InternalError, MethodNotAllowedError

TEXT = (Path(__file__).parents[2] / "docs" / "server.md").read_text()


def test_every_route_is_listed_and_no_other() -> None:
    listed = re.findall(r"`(/[^`]*)`", TEXT.split("\n## Routes\n")[1].split("\n## ")[0])
    assert set(listed) == {route.template for route in ROUTES}


def test_every_error_a_client_can_get_is_listed_with_its_status() -> None:
    listed = {
        code: int(status)
        for status, codes in re.findall(r"^\| (\d+) \| (`[^|]*) \|", TEXT, flags=re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    kinds: list[type[XetError]] = [*error_classes(), InternalError, MethodNotAllowedError]
    expected = {kind.code: kind.http_status for kind in kinds}
    # Of a client's own work, or only the base of others.
    for code in ("error", "integrity", "interrupted", "source_changed"):
        del expected[code]
    assert listed == expected
