"""The page at ``/`` and who may see what: on this machine, from elsewhere, with and without a token."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.server.in_process import Answer, ask
from tests.support.live import LiveServer, live_server
from xetstore.access.scope import Scope
from xetstore.cas.lease import COLLECT, SCRUB, Lease
from xetstore.cas.service import EmbeddedCas
from xetstore.hub.accounts import Accounts
from xetstore.records import Totals
from xetstore.server.app import create_app
from xetstore.server.ops.holdings import NamespaceSize
from xetstore.server.routes import status
from xetstore.server.web.page import Insight
from xetstore.sizes import size_text
from xetstore.testing import make_sample, upload

ELSEWHERE = "192.0.2.1"
PATIENCE_SECONDS = 60.0


class Page(HTMLParser):
    """What of a page matters: its text, its links, and anything that could load or run something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.blocks = re.findall(r"<pre>(.*?)</pre>", html, re.DOTALL)
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in ("src", "style")
            if name == "href":
                assert value is not None
                self.links.append(value)

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def page_of(server: LiveServer) -> Page:
    return Page(server.request("GET", "/").body.decode())


def as_json(answer: Answer) -> set[str]:
    assert answer.status == 200
    return set(answer.json())


def test_the_page_says_what_the_store_holds_and_what_was_saved(cas: EmbeddedCas) -> None:
    text = b"the same line, again and again\n" * 40_000
    upload(cas, make_sample(text))
    with live_server(cas) as server:
        shown = page_of(server).text
        totals = cas.totals()
    assert "Files 1 " in shown
    assert "Logical size of all files 1.2 MiB" in shown
    assert f"Chunks {totals.chunks:,}" in shown
    saved = re.search(r"Compression saved (\S+) (\S+) \((\d+\.\d)%\)", shown)
    assert saved is not None
    assert float(saved[3]) == pytest.approx(100 * (1 - totals.stored_bytes / totals.unique_bytes), abs=0.1)


def test_the_page_of_an_empty_store_is_a_page(server: LiveServer) -> None:
    shown = page_of(server).text
    assert "Files 0 " in shown
    assert "Deduplication saved nothing" in shown
    assert f"Version {server.request('GET', '/', headers={'Accept': 'application/json'}).json()['version']}" in shown


def test_the_page_loads_nothing_and_runs_nothing(server: LiveServer) -> None:
    answer = server.request("GET", "/")
    page = Page(answer.body.decode())
    assert not page.tags & {"script", "link", "img", "iframe", "form", "base", "object"}
    assert set(page.links) == {"openapi.json", "metrics"}
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_same_is_there_as_json(server: LiveServer, cas: EmbeddedCas) -> None:
    upload(cas, make_sample(b"some file"))
    answer = server.request("GET", "/", headers={"Accept": "application/json"})
    assert answer.headers["Content-Type"] == "application/json"
    known = answer.json()
    assert (known["name"], known["files"], known["logical_bytes"]) == ("xetstore", 1, 9)
    browser = server.request("GET", "/", headers={"Accept": "text/html,application/json;q=0.9,*/*;q=0.8"})
    assert browser.headers["Content-Type"].startswith("text/html")


JSON = {"Accept": "application/json"}
OTHERS_SEE = {"name", "version"}


def sees_all(answer: Answer) -> bool:
    keys = as_json(answer)
    assert keys >= OTHERS_SEE
    return keys != OTHERS_SEE


@pytest.mark.parametrize(
    ("setting", "peer", "headers", "token", "expected"),
    [
        ("local", "127.0.0.1", {}, None, True),
        ("local", "::1", {}, None, True),
        ("local", "::ffff:127.0.0.1", {}, None, True),
        ("local", ELSEWHERE, {}, None, False),
        ("local", "127.0.0.1", {"X-Forwarded-For": ELSEWHERE}, None, False),
        ("local", "127.0.0.1", {"Forwarded": f"for={ELSEWHERE}"}, None, False),
        ("local", "127.0.0.1", {"Host": "rebound.example.org"}, None, False),
        ("local", ELSEWHERE, {}, "read", False),
        ("local", ELSEWHERE, {}, "write", False),
        ("local", ELSEWHERE, {}, "admin", True),
        ("open", ELSEWHERE, {"Host": "example.org"}, None, True),
        ("token", "127.0.0.1", {}, None, False),
        ("token", "127.0.0.1", {}, "write", False),
        ("token", ELSEWHERE, {}, "admin", True),
    ],
)
def test_who_sees_the_totals_and_the_metrics_is_a_setting(
    cas: EmbeddedCas, setting: str, peer: str, headers: dict[str, str], token: str | None, expected: bool
) -> None:
    with live_server(cas, status=setting) as server:
        app = create_app(server.site)
        known = server.token(token) if token else None
        assert sees_all(ask(app, "/", peer=peer, headers=JSON | headers, token=known)) == expected
        metrics = ask(app, "/metrics", peer=peer, headers=headers, token=known)
    assert metrics.status == (200 if expected else 403 if token else 401)


def test_whoever_may_not_see_the_totals_sees_a_page_without_them(cas: EmbeddedCas) -> None:
    with live_server(cas, status="token") as server:
        answer = server.request("GET", "/")
        page = Page(answer.body.decode())
        assert answer.status == 200
        assert "Version" in page.text
        assert "Files" not in page.text
        assert "table" not in page.tags
        assert page.links == ["openapi.json"]
        assert server.request("GET", "/metrics").json()["code"] == "unauthenticated"
        assert server.request("GET", "/metrics", token=server.token("admin")).status == 200


def test_the_page_is_never_cached_for_somebody_else(server: LiveServer) -> None:
    answer = server.request("GET", "/")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Vary"] == "Accept, Authorization"


def test_head_of_the_page_has_no_body(server: LiveServer) -> None:
    answer = server.request("HEAD", "/")
    assert (answer.status, answer.body) == (200, b"")


def test_totals_are_not_summed_up_for_everyone_who_asks(server: LiveServer, cas: EmbeddedCas) -> None:
    assert json.loads(server.request("GET", "/", headers=JSON).body)["files"] == 0
    upload(cas, make_sample(b"some file"))
    assert json.loads(server.request("GET", "/", headers=JSON).body)["files"] == 0


# --- Disks, care, namespaces, and the ways to connect ---------------------------------------------------------


def test_those_who_wait_for_sums_keep_none_from_the_health(cas: EmbeddedCas, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store so large that its rows are looked at for long; the page waits for that, /health/ready does not."""
    waiting, go_on = threading.Semaphore(0), threading.Event()
    totals, insight = cas.totals, status.Status.insight

    def long_totals() -> Totals:
        go_on.wait(PATIENCE_SECONDS)
        return totals()

    def counted(of: status.Status, with_namespaces: bool) -> Insight:
        waiting.release()
        return insight(of, with_namespaces)

    monkeypatch.setattr(cas, "totals", long_totals)
    monkeypatch.setattr(status.Status, "insight", counted)
    monkeypatch.setattr(status, "COUNT_SECONDS", PATIENCE_SECONDS)
    with live_server(cas) as server, ThreadPoolExecutor(8) as pool:
        pages = [pool.submit(server.request, "GET", "/") for _ in range(8)]
        try:
            assert all(waiting.acquire(timeout=PATIENCE_SECONDS) for _ in range(4))
            assert server.request("GET", "/health/ready").status == 200
            assert not any(page.done() for page in pages)
        finally:
            go_on.set()
        assert {page.result().status for page in pages} == {200}


def test_the_page_says_how_much_room_is_left_and_when_the_store_was_looked_after(cas: EmbeddedCas) -> None:
    with live_server(cas) as server:
        before = server.request("GET", "/", headers=JSON).json()
        shown = page_of(server).text
        assert before["last_collection"] is before["last_check"] is None
        assert "Last collection never" in shown
        for name in (COLLECT, SCRUB):
            lease = Lease.take(cas.index, name)
            assert lease is not None
            with lease:
                lease.finish("{}")
        after = server.request("GET", "/", headers=JSON).json()
        shown = page_of(server).text
    now = time.time()
    assert now - 60 < after["last_collection"] <= now + 1
    assert now - 60 < after["last_check"] <= now + 1
    assert re.search(r"Last check \d{4}-\d\d-\d\d \d\d:\d\d UTC", shown)
    assert re.search(r"Last collection \d{4}-\d\d-\d\d \d\d:\d\d UTC", shown)
    usage = shutil.disk_usage(cas.folders["objects"])
    assert after["disks"]["objects"]["size_bytes"] == usage.total
    assert f"of {size_text(usage.total)}" in shown
    assert "Free disk for the index" in shown
    assert "Damaged objects none" in shown


def test_namespaces_are_shown_to_who_may_read_them_all(cas: EmbeddedCas) -> None:
    upload(cas.in_namespace("secret/project"), make_sample(b"some file"))
    cases: list[tuple[dict[str, Any], str | None, bool]] = [
        ({"auth": "none"}, None, True),
        ({"status": "local"}, None, False),  # all who are on this machine
        ({"status": "open"}, None, False),
        ({"status": "open"}, "read", False),
        ({"status": "open"}, "write", False),
        ({"status": "open"}, "admin", True),
        ({"status": "token"}, "admin", True),
    ]
    for settings, token, expected in cases:
        with live_server(cas, **settings) as server:
            known = server.token(token, namespace="secret/project") if token else None
            page = server.request("GET", "/", token=known)
            told = server.request("GET", "/", headers=JSON, token=known).json()
            assert ("secret/project" in page.body.decode()) == expected, (settings, token)
            assert "xetstore" in page.body.decode()
            if expected:
                assert told["namespaces"] == [{"name": "secret/project", "files": 1, "logical_bytes": 9}]
            else:
                assert told["namespaces"] is None


def test_what_a_name_holds_is_text_and_no_markup(cas: EmbeddedCas) -> None:
    from xetstore.server.web.page import Insight, render

    insight = Insight(1, None, {}, 0, None, None, None, [NamespaceSize("<script>alert(1)</script>", 1, 1)])
    html = render("1<b>", insight, [("<i>", 'https://x/"><script>')])
    assert Page(html).tags & {"script", "b", "i"} == set()
    assert "are being counted" in html


@pytest.mark.parametrize(
    ("settings", "host", "expected"),
    [
        ({}, "xet.example.org:8443", "http://xet.example.org:8443"),
        ({}, "[::1]:80", "http://[::1]:80"),
        ({"public_url": "https://xet.example.org/store"}, "inner.example.org", "https://xet.example.org/store"),
        ({}, "a b", None),
        ({}, "<script>", None),
        ({}, 'x"onload="y', None),
    ],
)
def test_the_lines_to_connect_have_the_name_that_the_client_has_for_the_server(
    cas: EmbeddedCas, settings: dict[str, Any], host: str, expected: str | None
) -> None:
    with live_server(cas, **settings) as server:
        html = ask(create_app(server.site), "/", peer=ELSEWHERE, headers={"Host": host}).body.decode()
    page = Page(html)
    assert not page.tags & {"script"}
    if expected is None:
        assert "XET_STORE" not in html
        return
    assert f"export XET_STORE={expected} " in page.text
    assert f'xetstore.open("{expected}")' in page.text
    assert "export XET_TOKEN=TOKEN" in page.text
    is_plain = expected.startswith("http://") and "[::1]" not in expected
    assert ("XET_ALLOW_HTTP=1" in page.text) == is_plain
    assert ("HF_ENDPOINT" in page.text) == (server.site.hub is not None)


def test_the_lines_to_connect_do_as_they_are_written(cas: EmbeddedCas, tmp_path: Path) -> None:
    (tmp_path / "FILE").write_bytes(b"some content of a file" * 10_000)
    with live_server(cas, hub=True) as server:
        names = Accounts(cas.index, cas.now)
        names.add_user("alice")
        hub_token = names.issue("alice", scope=Scope.WRITE, name="", ttl_seconds=None)
        page = Page(server.request("GET", "/").body.decode())
        xet, python, hf = (unescape(text) for text in page.blocks)
        token = server.token("write")
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
        }
        environment |= {"XET_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        variables = "\n".join(line for line in xet.splitlines() if line.startswith("export "))
        scripts = (
            xet.replace("TOKEN ", f"{token} "),
            f"{variables}\ncat > program.py <<'END'\n{python}\nEND\npython program.py".replace("TOKEN ", f"{token} "),
            hf.replace("hf_TOKEN ", f"{hub_token} ").replace("OWNER/NAME", "alice/bert"),
        )
        for script in scripts:
            ran = subprocess.run(
                ["sh", "-ec", script],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert ran.returncode == 0, f"{script}\n{ran.stdout}{ran.stderr}"
        with xetstore.open(server.url, token=hub_token, cache=False) as store:
            assert store.read("xet://alice/bert/FILE") == (tmp_path / "FILE").read_bytes()
