"""The page at ``/`` and who may see what: on this machine, from elsewhere, with and without a token."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from tests.server.in_process import Answer, ask
from tests.support.live import LiveServer, live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.server.app import create_app
from xetstore.testing import make_sample, upload

ELSEWHERE = "192.0.2.1"


class Page(HTMLParser):
    """What of a page matters: its text, its links, and anything that could load or run something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []
        self.tags: set[str] = set()
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
