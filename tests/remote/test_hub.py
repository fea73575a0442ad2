"""The Hub's API: names become files, tokens come by least scope, and the Hub's own token goes nowhere else."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub_double import HubDouble, hub_double
from tests.support.live import LiveServer, live_server
from xetstore.cancellation import Cancellation
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import (
    ForbiddenError,
    FormatError,
    InterruptedCallError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
    XetError,
)
from xetstore.events import Event, Retrying, TokenRenewed
from xetstore.protocol.hashes import Hash
from xetstore.records import FOLDER_MODE, RepoFile
from xetstore.remote.http import HttpCas
from xetstore.remote.hub.answers import entries_of, link, same_origin, size_of, token_of
from xetstore.remote.hub.client import Hub
from xetstore.remote.hub.locators import HubLocator
from xetstore.remote.hub.settings import hub_endpoint, hub_token
from xetstore.remote.transport import Patience, Transport
from xetstore.testing import make_sample, random_bytes, upload

SECRET = "hf_mellon-1234"
DATA = random_bytes(50_000)
QUICK = Patience(base_delay=0.001, attempts=3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path_factory.mktemp("hub") / "store") as cas:
        upload(cas, make_sample(DATA))
        with live_server(cas) as running:
            yield running


@pytest.fixture(scope="module")
def file() -> Hash:
    return make_sample(DATA).file.hash


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))


@pytest.fixture
def double(server: LiveServer) -> Iterator[HubDouble]:
    with hub_double(server) as running:
        yield running


@pytest.fixture
def hub(double: HubDouble) -> Iterator[Hub]:
    yield from opened(double)


def opened(double: HubDouble, **options: Any) -> Iterator[Hub]:
    with Transport(patience=QUICK) as transport:
        hub = Hub(endpoint=double.url, transport=transport, **options)
        yield hub
        hub.close()


def at(text: str) -> HubLocator:
    return HubLocator.parse(text)


def reads(server: LiveServer, hub: Hub, locator: HubLocator, file: Hash) -> bool:
    """Whether the hub's token for a locator reads the file from the server."""
    token = hub.tokens(locator).token(write=False)
    assert token is not None
    return server.request("GET", f"/v1/reconstructions/{file}", token=token.secret.reveal()).status == 200


@pytest.mark.parametrize(
    ("kind", "repo", "revision", "path"),
    [
        ("models", "ns/name", "main", "model.bin"),
        ("models", "gpt2", "main", "model.bin"),
        ("datasets", "ns/name", "refs/convert/parquet", "a/b c#?%.parquet"),
        ("spaces", "ns/name", "dev/x y", "ü.bin"),
        ("buckets", "ns/name", None, "logs/x.bin"),
    ],
)
@pytest.mark.parametrize("redirects_to", [None, "http://elsewhere.invalid/bridge?signed"])
def test_a_name_is_resolved_to_a_file_that_its_token_reads(
    server: LiveServer,
    double: HubDouble,
    hub: Hub,
    file: Hash,
    kind: str,
    repo: str,
    revision: str | None,
    path: str,
    redirects_to: str | None,
) -> None:
    double.redirects_to = redirects_to
    locator = at(double.add(kind, repo, revision, path, file, len(DATA)))
    found = hub.resolve(locator)
    assert (found.hash, found.size, found.locator) == (file, len(DATA), locator)
    assert [asked.method for asked in double.asked] == ["HEAD"]
    assert hub.cas_url(locator) == server.url
    assert reads(server, hub, locator, file)


def test_the_redirect_to_the_bytes_is_not_followed(double: HubDouble, hub: Hub, file: Hash, server: LiveServer) -> None:
    with hub_double(server) as elsewhere:
        double.redirects_to = f"{elsewhere.url}/bytes"
        hub.resolve(at(double.add("models", "ns/name", "main", "x", file, len(DATA))))
        assert not elsewhere.asked
        double.redirects_to = f"{double.url}/ns/name/resolve/main/other"
        hub.resolve(at("hf://ns/name/x"))
    assert len(double.asked) == 2


def test_the_hubs_token_goes_to_the_hub_only(server: LiveServer, double: HubDouble, file: Hash) -> None:
    double.token = SECRET
    with hub_double(server) as elsewhere:
        double.link_origin = elsewhere.url
        double.next_origin = elsewhere.url
        double.page_size = 1
        locator = at(double.add("models", "ns/name", "main", "x", file, len(DATA)))
        double.add("models", "ns/name", "main", "y", file, len(DATA))
        for hub in opened(double, token=SECRET):
            hub.resolve(locator)
            assert hub.cas_url(locator) == server.url
            with pytest.raises(FormatError, match="another origin"):
                list(hub.tree(locator.at("")))
            double.add("models", "ns/name", "main", "plain", None, 3)
            double.redirects_to = f"{elsewhere.url}/plain"
            with pytest.raises(UsageError, match="not stored by Xet"):
                hub.resolve(locator.at("plain"))
        assert not elsewhere.asked
    assert all(asked.headers["authorization"] == f"Bearer {SECRET}" for asked in double.asked)


def test_without_a_token_none_is_sent(double: HubDouble, hub: Hub, file: Hash) -> None:
    hub.resolve(at(double.add("models", "ns/name", "main", "x", file, len(DATA))))
    assert "authorization" not in double.asked[0].headers


def test_a_renamed_repository_is_found_under_its_old_name(
    server: LiveServer, double: HubDouble, hub: Hub, file: Hash
) -> None:
    double.add("models", "new/name", "main", "a/x", file, len(DATA))
    double.renamed["models/old/name"] = "models/new/name"
    old = at("hf://old/name/a/x")
    assert reads(server, hub, old, file)
    assert [entry.path for entry in hub.tree(at("hf://old/name/a"))] == ["a/x"]
    assert hub.resolve(old).hash == file


def test_redirects_have_an_end(double: HubDouble, hub: Hub) -> None:
    double.renamed["models/a/a"] = "models/a/a"
    with pytest.raises(UsageError, match="redirects more than 5 times"):
        hub.resolve(at("hf://a/a/x"))


def test_what_does_not_exist_is_told_apart(double: HubDouble, hub: Hub, file: Hash) -> None:
    double.add("models", "ns/name", "main", "x", file, len(DATA))
    with pytest.raises(NotFoundError, match="has no 'y' at main"):
        hub.resolve(at("hf://ns/name/y"))
    with pytest.raises(NotFoundError, match="has no revision 'v9'"):
        hub.resolve(at("hf://ns/name@v9/x"))
    with pytest.raises(NotFoundError, match="no repository models/ns/other") as caught:
        hub.resolve(at("hf://ns/other/x"))
    assert "HF_TOKEN" in str(caught.value.hint)
    with pytest.raises(NotFoundError, match="no repository"):
        hub.cas_url(at("hf://ns/other"))


def test_a_file_that_xet_does_not_store_says_where_it_is(double: HubDouble, hub: Hub) -> None:
    locator = at(double.add("models", "ns/name", "main", "README.md", None, 5))
    with pytest.raises(UsageError, match=r"README\.md is not stored by Xet") as caught:
        hub.resolve(locator)
    assert f"{double.url}/ns/name/resolve/main/README.md" in str(caught.value.hint)


def test_a_repository_alone_is_no_file(hub: Hub) -> None:
    with pytest.raises(UsageError, match="names a repository") as caught:
        hub.resolve(at("hf://models/gpt2/config.json"))
    assert "gpt2@main" in str(caught.value.hint)


def test_a_private_repository_needs_the_hubs_token(double: HubDouble, file: Hash) -> None:
    double.token = SECRET
    locator = at(double.add("models", "ns/name", "main", "x", file, len(DATA)))
    for hub in opened(double):
        with pytest.raises(NotFoundError, match="does not show it"):
            hub.resolve(locator)
    for hub in opened(double, token="hf_another-5678"):
        with pytest.raises(UnauthenticatedError) as caught:
            hub.resolve(locator)
        assert "HF_TOKEN" in str(caught.value.hint)
        with pytest.raises(UnauthenticatedError) as told:
            hub.cas_url(locator)
        shown = "".join(traceback.format_exception(caught.value) + traceback.format_exception(told.value)) + repr(hub)
        assert "5678" not in shown
    for hub in opened(double, token=SECRET):
        assert hub.resolve(locator).hash == file


def test_a_write_token_is_asked_for_only_to_write(double: HubDouble, hub: Hub, file: Hash) -> None:
    locator = at(double.add("models", "ns/name", "main", "x", file, len(DATA)))
    tokens = hub.tokens(locator)
    hub.resolve(locator)
    hub.cas_url(locator)
    tokens.token(write=False)
    assert double.issued == [("read", "main")]
    written = tokens.token(write=True)
    assert double.issued == [("read", "main"), ("write", "main")]
    assert tokens.token(write=False) == written


def test_who_may_not_write_is_told_so(double: HubDouble, hub: Hub, file: Hash) -> None:
    double.may_write = False
    locator = at(double.add("models", "ns/name", "main", "x", file, len(DATA)))
    assert hub.tokens(locator).token(write=False) is not None
    with pytest.raises(ForbiddenError, match="give a write token") as caught:
        hub.tokens(locator).token(write=True)
    assert "right" in str(caught.value.hint)


@pytest.mark.parametrize(("body_tells", "headers_tell"), [(True, False), (False, True)])
def test_a_token_is_taken_from_body_or_headers(
    server: LiveServer, double: HubDouble, hub: Hub, file: Hash, body_tells: bool, headers_tell: bool
) -> None:
    double.body_tells, double.headers_tell = body_tells, headers_tell
    locator = at(double.add("models", "ns/name", "main", "x", file, len(DATA)))
    token = hub.tokens(locator).token(write=False)
    assert token is not None
    assert token.expires_at is not None
    assert token.cas_url == server.url
    assert reads(server, hub, locator, file)


def test_the_token_route_that_came_with_a_file_is_used(double: HubDouble, hub: Hub, file: Hash) -> None:
    locator = at(double.add("models", "ns/name", "main", "x", file, len(DATA)))
    hub.resolve(locator)
    hub.cas_url(locator)
    commit = double.commit_of("models/ns/name", "main")
    assert double.asked[-1].path == f"/api/models/ns/name/xet-read-token/{commit}"


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:9"])
def test_without_one_on_the_hub_the_documented_route_is_used(
    double: HubDouble, hub: Hub, file: Hash, origin: str | None
) -> None:
    double.link_origin = origin
    locator = at(double.add("datasets", "ns/name", "dev/x", "x", file, len(DATA)))
    hub.resolve(locator)
    hub.cas_url(locator)
    assert double.asked[-1].path == "/api/datasets/ns/name/xet-read-token/dev%2Fx"


def test_another_revision_has_another_token(double: HubDouble, hub: Hub, file: Hash) -> None:
    first = at(double.add("models", "ns/name", "main", "x", file, len(DATA)))
    second = at(double.add("models", "ns/name", "v1", "x", file, len(DATA)))
    hub.cas_url(first)
    hub.cas_url(second)
    hub.cas_url(first.at("y"))
    assert double.issued == [("read", "main"), ("read", "v1")]


def test_a_branch_that_moved_on_has_another_token(double: HubDouble, hub: Hub, file: Hash) -> None:
    locator = at(double.add("models", "ns/name", "main", "x", file, len(DATA)))
    tokens = hub.tokens(locator)
    hub.resolve(locator)
    first = tokens.token(write=False)
    hub.resolve(locator)
    assert tokens.token(write=False) == first
    double.commits["models/ns/name", "main"] = 1
    hub.resolve(locator)
    second = tokens.token(write=False)
    assert second != first
    assert double.asked[-1].path.endswith(double.commit_of("models/ns/name", "main"))


def test_a_token_is_renewed_before_it_expires_and_that_is_an_event(double: HubDouble, file: Hash) -> None:
    events: list[Event] = []
    double.ttl_seconds = 20
    locator = at(double.add("models", "ns/name", "main", "x", file, len(DATA)))
    for hub in opened(double, emit=events.append):
        hub.cas_url(locator)
        double.ttl_seconds = 900
        hub.cas_url(locator)
        hub.cas_url(locator)
    assert events == [TokenRenewed("read"), TokenRenewed("read")]


def test_a_failure_that_may_pass_is_tried_again(double: HubDouble, file: Hash) -> None:
    events: list[Event] = []
    locator = at(double.add("models", "ns/name", "main", "x", file, len(DATA)))
    for hub in opened(double, emit=events.append):
        double.failures = [503, 429]
        assert hub.resolve(locator).hash == file
        assert [event.call for event in events if isinstance(event, Retrying)] == ["HEAD /ns/name/resolve/main/x"] * 2
        double.failures = [500] * 3
        with pytest.raises(UnavailableError):
            hub.cas_url(locator)


def test_a_call_that_waits_can_be_interrupted(double: HubDouble, file: Hash) -> None:
    locator = at(double.add("models", "ns/name", "main", "x", file, len(DATA)))
    waits = threading.Event()
    with Transport(patience=Patience(base_delay=1000, max_delay=1000)) as transport, ThreadPoolExecutor(1) as threads:
        hub = Hub(endpoint=double.url, transport=transport, emit=lambda event: waits.set())
        double.failures = [503]
        call = Cancellation()
        asking = threads.submit(hub.under(call).resolve, locator)
        assert waits.wait(60)
        call.cancel()
        assert isinstance(asking.exception(), InterruptedCallError)
        assert hub.resolve(locator).hash == file
        hub.close()


def test_a_call_that_waits_for_a_token_is_interrupted_alone(double: HubDouble, file: Hash) -> None:
    locator = at(double.add("models", "ns/name", "main", "x", file, len(DATA)))
    waits = threading.Event()
    with Transport(patience=Patience(base_delay=1000, max_delay=1000)) as transport, ThreadPoolExecutor(1) as threads:
        hub = Hub(endpoint=double.url, transport=transport, emit=lambda event: waits.set())
        cas = HttpCas(double.server.url, tokens=hub.tokens(locator), transport=transport)
        double.failures = [503]
        call = Cancellation()
        asking = threads.submit(cas.under(call).stat, file)
        assert waits.wait(60)
        call.cancel()
        assert isinstance(asking.exception(60), InterruptedCallError)
        assert cas.under(Cancellation()).stat(file).size == len(DATA)
        cas.close()
        hub.close()


@pytest.fixture
def folders(double: HubDouble, file: Hash) -> HubDouble:
    for kind, revision in (("models", "main"), ("buckets", None)):
        for path in ("logs.json", "logs/a", "logs/b/c", "x y/ü"):
            double.add(kind, "ns/name", revision, path, file, 7)
        double.add(kind, "ns/name", revision, "README.md", None, 5)
    return double


@pytest.mark.parametrize("root", ["hf://models/ns/name", "hf://buckets/ns/name"])
@pytest.mark.parametrize("page_size", [1000, 2])
def test_a_listing_has_files_and_folders_from_every_page(
    folders: HubDouble, hub: Hub, file: Hash, root: str, page_size: int
) -> None:
    folders.page_size = page_size
    top = sorted(hub.tree(at(root)), key=lambda entry: entry.path)
    assert [entry.path for entry in top] == ["README.md", "logs", "logs.json", "x y"]
    assert top[0] == RepoFile("README.md", 5, top[0].oid)
    assert top[1] == RepoFile("logs", 0, top[1].oid, mode=FOLDER_MODE)
    assert top[2] == RepoFile("logs.json", 7, top[2].oid, file)
    assert {entry.path for entry in hub.tree(at(f"{root}/logs"))} == {"logs/a", "logs/b"}
    assert {entry.path for entry in hub.tree(at(f"{root}/logs"), recursive=True)} == {"logs/a", "logs/b", "logs/b/c"}
    assert [entry.path for entry in hub.tree(at(f"{root}/logs/a"))] == ["logs/a"]
    assert [entry.path for entry in hub.tree(at(f"{root}/x y"))] == ["x y/ü"]
    with pytest.raises(NotFoundError):
        list(hub.tree(at(f"{root}/log")))


def test_a_listing_that_goes_in_a_circle_ends(folders: HubDouble, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folders.page_size = 0
    with pytest.raises(FormatError, match="circle"):
        list(hub.tree(at("hf://ns/name")))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1]",
        b'[{"type": "file"}]',
        b'[{"type": "file", "path": "", "size": 1}]',
        b'[{"type": "file", "path": "../x", "size": 1}]',
        b'[{"type": "file", "path": "/etc/x", "size": 1}]',
        b'[{"type": "directory", "path": "a/../b"}]',
        b'[{"type": "file", "path": "a\\u0000", "size": 1}]',
        b'[{"type": "file", "path": "x", "size": -1}]',
        b'[{"type": "file", "path": "x", "size": true}]',
        b'[{"type": "file", "path": "x", "size": 1, "xetHash": "zz"}]',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_listing_that_is_none_or_leads_out_of_its_repository_is_refused(body: bytes) -> None:
    with pytest.raises(FormatError):
        entries_of(body)


def test_a_hash_that_is_none_is_refused(double: HubDouble, hub: Hub) -> None:
    class Odd(Hash):
        def __str__(self) -> str:
            return "no-hash"

    locator = at(double.add("models", "ns/name", "main", "x", Odd(bytes(32)), 5))
    with pytest.raises(FormatError, match="no hash"):
        hub.resolve(locator)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"accessToken": SECRET},
        {"casUrl": "https://cas.example"},
        {"accessToken": 5, "casUrl": "https://cas.example"},
        {"accessToken": SECRET + "\r\nx: y", "casUrl": "https://cas.example"},
        {"accessToken": SECRET * 10_000, "casUrl": "https://cas.example"},
        {"accessToken": SECRET, "casUrl": "https://cas.example", "exp": "soon"},
        {"accessToken": SECRET, "casUrl": "https://cas.example", "exp": [1]},
        {"accessToken": SECRET, "casUrl": "file:///etc/passwd"},
        {"accessToken": SECRET, "casUrl": "https://user:pass@cas.example"},
        {"accessToken": SECRET, "casUrl": "https://cas.example/\r\n"},
        {"accessToken": SECRET, "casUrl": "https://cas.example/?x"},
        {"accessToken": SECRET, "casUrl": "https://" + "c" * 64_001},
        {"accessToken": SECRET, "casUrl": "/relative"},
    ],
)
def test_a_token_answer_that_is_none_is_refused_without_showing_it(answer: dict[str, object]) -> None:
    with pytest.raises(FormatError) as caught:
        token_of({}, json.dumps(answer).encode())
    assert "mellon" not in "".join(traceback.format_exception(caught.value))


def test_a_token_answer_may_be_as_long_as_is_allowed_and_lack_its_expiry() -> None:
    token = token_of({}, json.dumps({"accessToken": "x" * 64_000, "casUrl": "https://cas.example/"}).encode())
    assert token.cas_url == "https://cas.example"
    assert token.expires_at is None


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<https://h/t>; rel="xet-auth"', "https://h/t"),
        ('<https://h/a>; rel="next", <https://h/t>; rel="xet-auth"', "https://h/t"),
        ("<https://h/t>;rel=xet-auth", "https://h/t"),
        ('<https://h/t,;x>; title="a, <b>; c"; rel="other xet-auth"', "https://h/t,;x"),
        ('<https://h/t>; rel="xet-authority"', None),
        ("", None),
        ("<", None),
        ("<" * 60_000, None),
        ("<>" * 30_000, None),
        ("<a>" + "; " * 30_000, None),
        ("<a>;b" + " " * 60_000, None),
    ],
)
def test_links_are_found_by_their_relation(header: str, target: str | None) -> None:
    assert link({"link": header}, "xet-auth") == target


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/x", "https://hub.example/x"),
        ("https://HUB.example:443/x", "https://HUB.example:443/x"),
        ("http://hub.example/x", None),
        ("https://hub.example:444/x", None),
        ("//elsewhere.example/x", None),
        ("https://hub.example@elsewhere.example/x", None),
        ("https://user@hub.example/x", None),
        ("https://hub.example\\@elsewhere.example/x", None),
        ("https://[/x", None),
        ("javascript:x", None),
    ],
)
def test_an_origin_is_compared_whole(url: str, expected: str | None) -> None:
    assert same_origin(url, "https://hub.example/api") == expected


def test_a_size_is_that_of_the_file_and_not_of_a_redirect() -> None:
    both = {"x-linked-size": "7", "content-length": "0"}
    assert size_of(both, whole=False) == 7
    assert size_of({"content-length": "0"}, whole=False) is None
    assert size_of({"content-length": "5"}, whole=True) == 5
    assert size_of({"x-linked-size": "-7"}, whole=False) is None


def test_the_hub_and_its_token_are_found_as_its_own_clients_do(tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path)}
    assert hub_endpoint({}) == "https://huggingface.co"
    assert hub_endpoint({"HF_ENDPOINT": "https://hub.example"}) == "https://hub.example"
    assert hub_token(home) is None
    (tmp_path / "token").write_text("hf_home\n")
    (tmp_path / "other").write_text("hf_other")
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "token").write_text("hf_cache")

    def revealed(environment: dict[str, str]) -> str | None:
        secret = hub_token(environment)
        return None if secret is None else secret.reveal()

    assert revealed(home) == "hf_home"
    assert revealed({"XDG_CACHE_HOME": str(tmp_path)}) == "hf_cache"
    assert revealed(home | {"HF_TOKEN_PATH": str(tmp_path / "other")}) == "hf_other"
    assert revealed(home | {"HUGGING_FACE_HUB_TOKEN": "hf_old"}) == "hf_old"
    assert revealed(home | {"HUGGING_FACE_HUB_TOKEN": "hf_old", "HF_TOKEN": " hf_new\n"}) == "hf_new"
    for yes in ("1", "true", "YES", "on"):
        assert revealed(home | {"HF_TOKEN": "hf_new", "HF_HUB_DISABLE_IMPLICIT_TOKEN": yes}) is None
    assert revealed(home | {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}) == "hf_home"
    with pytest.raises(UsageError) as caught:
        hub_token({"HF_TOKEN": "hf_a\r\nb"})
    assert "hf_a" not in str(caught.value)
    (tmp_path / "token").unlink()
    (tmp_path / "token").mkdir()
    with pytest.raises(XetError, match="cannot be read"):
        hub_token(home)


@pytest.mark.parametrize(
    "endpoint",
    ["", "hub.example", "ftp://hub.example", "https://", "https://user:secret@hub.example", "https://h/?q=1"],
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Hub(endpoint=endpoint)
    assert "secret" not in str(caught.value)


def test_plain_http_to_another_machine_needs_to_be_allowed() -> None:
    hub = Hub(endpoint="http://hub.invalid", token=SECRET)
    with pytest.raises(UsageError, match="plain http"):
        hub.resolve(at("hf://ns/name/x"))
    hub.close()


def test_a_hub_may_live_below_a_path(hub: Hub) -> None:
    assert Hub(endpoint="https://h/prefix/").endpoint == "https://h/prefix"
