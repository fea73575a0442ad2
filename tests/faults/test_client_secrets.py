"""Tokens, and the queries of signed URLs: in nothing that the client says, and sent to nobody else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from tests.support import double_faults as faults
from tests.support.double import Double, Fault, Kind
from tests.support.live import LiveServer, live_server
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import XetError
from xetstore.events import Event
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken
from xetstore.remote.transport import Patience, Transport
from xetstore.store import Store

KIB, MIB = 1 << 10, 1 << 20
_QUERY = re.compile(r"X-Xet-(?:Signature|Signed|Expires|Key)|signature=")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    with EmbeddedCas.open(folder / "store") as cas, live_server(cas, log_level="error") as running:
        yield running


@pytest.fixture(scope="module")
def file(server: LiveServer, folder: Path) -> str:
    source = folder / "stored"
    source.write_bytes(splitmix64(1, MIB))
    return str(Store(server.site.cas).put(source).hash)


FAULTS = [
    (Kind.XORB_GET, faults.status(403)),
    (Kind.XORB_GET, faults.redirect_loop()),
    (Kind.XORB_GET, faults.flip(0.5)),
    (Kind.XORB_GET, faults.garbage()),
    (Kind.RECONSTRUCTION_V2, faults.status(401)),
    (Kind.RECONSTRUCTION_V2, faults.truncate(0.5, honest=True)),
    (Kind.RECONSTRUCTION_V2, faults.change_json("an odd URL", lambda told: _spoil(told))),
]
UPLOAD_FAULTS = [
    (Kind.XORB_POST, faults.status(403)),
    (Kind.XORB_POST, faults.html()),
    (Kind.SHARD_V2, faults.status(401)),
]


def _spoil(told: dict[str, dict[str, list[dict[str, str]]]]) -> None:
    for places in told["xorbs"].values():
        for place in places:
            place["url"] = place["url"].replace("http://", "gopher://")


def command_line(server: LiveServer, folder: Path, token: str, url: str, *arguments: str) -> str:
    """Everything that the command says, with --debug."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XET")},
        "XET_TOKEN": token,
        "XET_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, "-X", "dev", "-m", "xetstore", "--store", url, *arguments, "--debug"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert ended.returncode != 0
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(("kind", "fault"), [FAULTS[0], FAULTS[4], UPLOAD_FAULTS[0]])
def test_no_secret_is_in_what_a_command_says(
    server: LiveServer, folder: Path, file: str, kind: Kind, fault: Fault
) -> None:
    token = server.token("write")
    source = folder / "source"
    source.write_bytes(splitmix64(2, MIB))
    with Double(server.url) as double:
        double.plan(kind, fault, times=None)
        call = ["put", str(source)] if (kind, fault) in UPLOAD_FAULTS else ["get", file, "-o", str(folder / "out")]
        said = command_line(server, folder, token, double.url, *call)
    assert "Error" in said, "it was to fail, and to tell all of it"
    assert token not in said
    assert not _QUERY.search(said), said
    for part in token.split("."):  # nor a piece of it
        assert part not in said


def everything(
    store: object, cas: HttpCas, tokens: FixedToken, events: list[Event], errors: list[BaseException]
) -> str:
    """What can be shown of all that is involved, the causes and notes of errors among it."""
    shown = [
        repr(store),
        repr(cas),
        str(cas),
        repr(tokens),
        str(tokens),
        repr(vars(tokens)) if hasattr(tokens, "__dict__") else "",
    ]
    shown += [repr(event) for event in events]
    chain: list[BaseException | None] = list(errors)
    while chain:
        error = chain.pop()
        if error is not None:
            shown += [repr(error), str(error), repr(error.args), repr(getattr(error, "hint", None))]
            shown += getattr(error, "__notes__", [])
            chain += [error.__cause__, None if error.__suppress_context__ else error.__context__]
    return "\n".join(shown)


@pytest.mark.parametrize(("kind", "fault"), [*FAULTS, *UPLOAD_FAULTS])
def test_no_secret_is_in_an_event_an_error_or_a_repr(
    server: LiveServer, folder: Path, file: str, kind: Kind, fault: Fault
) -> None:
    token = server.token("write")
    tokens = FixedToken(token)
    events: list[Event] = []
    errors: list[BaseException] = []
    source = folder / f"source of {fault.name}".replace("/", "")
    source.write_bytes(splitmix64(3, 300 * KIB))
    patience = Patience(answer=1, idle=0.5, attempts=2, base_delay=0.01)
    with Double(server.url) as double, Transport(patience=patience) as transport:
        double.plan(kind, fault, times=None)
        cas = HttpCas(double.url, tokens=tokens, transport=transport, emit=events.append)
        with Store(cas, on_event=events.append) as store:
            try:
                if (kind, fault) in UPLOAD_FAULTS:
                    store.put(source)
                else:
                    store.get(file, folder / "out")
            except XetError as error:
                errors.append(error)
            shown = everything(store, cas, tokens, events, errors)
    assert errors
    assert token not in shown
    assert not _QUERY.search(shown), shown


def test_a_token_goes_to_its_server_and_to_nobody_else(server: LiveServer, folder: Path, file: str) -> None:
    """Xorbs come from another host, which redirects as it likes: it never sees the token."""
    token = server.token("write")
    with Double(server.url, grants=True) as xorbs, Double(server.url, grants=True) as double:
        double.xorb_host = xorbs.url
        double.granted = xorbs.granted
        source = folder / "another source"
        source.write_bytes(splitmix64(4, 300 * KIB))
        with xetstore.open(double.url, token=token, cache=False) as store:
            stored = store.put(source)
            for name in (file, str(stored.hash)):
                store.get(name, folder / "copy")
    assert len([seen for seen in xorbs.seen if seen.kind is Kind.XORB_GET]) >= 2
    assert [seen for seen in xorbs.seen if seen.authorization is not None] == []
    asked = [seen for seen in double.seen if seen.kind is Kind.RECONSTRUCTION_V2]
    assert {seen.authorization for seen in asked} == {f"Bearer {token}"}


def test_a_token_does_not_follow_a_redirect(server: LiveServer, folder: Path, file: str) -> None:
    """Where URLs are bare the token is what opens them; whoever they are redirected to has to do without."""
    with (
        live_server(server.site.cas, xorb_urls="edge", log_level="error") as edge,
        Double(edge.url) as other,
        Double(edge.url) as double,
    ):
        token = edge.token("read")
        with xetstore.open(double.url, token=token, cache=False) as store:
            store.get(file, folder / "copy")
            assert {seen.authorization for seen in double.seen if seen.kind is Kind.XORB_GET} == {f"Bearer {token}"}
            for kind in (Kind.XORB_GET, Kind.RECONSTRUCTION_V2, Kind.SHARD_V2, Kind.XORB_POST):
                double.plan(kind, faults.redirect(other.url), times=None)
            with pytest.raises(XetError):
                store.get(file, folder / "copy")
            with pytest.raises(XetError):
                store.put(folder / "stored")
    assert [seen for seen in other.seen if seen.authorization is not None] == []
