"""What a store is opened with: places, tokens, plain HTTP, the cache; and what is loaded for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from tests.support.hub_double import HubDouble, hub_double
from tests.support.live import LiveServer, live_server
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.errors import ForbiddenError, UnauthenticatedError, UsageError, XetError
from xetstore.events import CacheDisabled, Event, RangeFetched, TokenRenewed
from xetstore.hub.tables import MIGRATIONS

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as live:
        yield live


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(splitmix64(3, 300_000))
    return path


def loaded_after(program: str, tmp_path: Path) -> set[str]:
    code = f"import sys, xetstore\n{program}\nprint(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True, cwd=tmp_path).split())


def test_who_opens_a_url_loads_no_database(tmp_path: Path) -> None:
    loaded = loaded_after(f"store = xetstore.open({NOBODY!r}, cache=False)", tmp_path)
    assert "xetstore.remote.http" in loaded
    assert not loaded & {"xetstore.database.sqlite", "xetstore.cas", "click"}


def test_who_opens_a_directory_loads_no_http(tmp_path: Path) -> None:
    loaded = loaded_after("store = xetstore.open('store')", tmp_path)
    assert "xetstore.cas.service" in loaded
    assert not loaded & {"urllib3", "xetstore.remote.http", "click"}


def test_who_puts_and_gets_by_hash_loads_and_makes_nothing_for_names(tmp_path: Path, source: Path) -> None:
    loaded = loaded_after(
        "with xetstore.open('store') as store:\n"
        " file = store.put('source').hash\n store.get(file, 'out')\n store.check()\n list(store.files())",
        tmp_path,
    )
    assert not {name for name in loaded if name.partition(".")[0] == "dulwich"}
    assert not loaded & {"xetstore.hub.service", "xetstore.hub.check"}
    with EmbeddedCas.open(tmp_path / "store") as cas:
        assert cas.index.version_of(MIGRATIONS) == 0
    with xetstore.open(tmp_path / "store") as store:
        store.create_repo("alice/bert")
    with EmbeddedCas.open(tmp_path / "store") as cas:
        assert cas.index.version_of(MIGRATIONS) == MIGRATIONS.newest


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("ftp://127.0.0.1/store", "ftp:// is no kind of store"),
        ("s3://bucket", "s3:// is no kind of store"),
        ("http://", "names no host"),
        ("http://127.0.0.1:99999", "names no host"),
        ("https://user:xyzzy@127.0.0.1/", "holds a name or a password"),
        ("http://127.0.0.1/?token=xyzzy", "has a query"),
        ("hf://models/ns/name/file.bin", "is a file or folder, and no store"),
        ("hf://models", "is not the name of a repository"),
        ("localhost:8080", "looks like a server"),
    ],
)
def test_what_names_no_store_is_refused_with_a_hint(
    where: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said) as caught:
        xetstore.open(where, cache=False)
    assert caught.value.hint
    assert "xyzzy" not in f"{caught.value} {caught.value.hint}"


def test_plain_http_is_spoken_with_this_machine_only_unless_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The documentation's own network, where nobody is; and nothing is sent before the first call.
    with pytest.raises(UsageError) as caught:
        xetstore.open("http://192.0.2.1", cache=False)
    assert "https" in f"{caught.value} {caught.value.hint}"
    xetstore.open("http://192.0.2.1", cache=False, allow_http=True).close()
    monkeypatch.setenv("XET_ALLOW_HTTP", "1")
    xetstore.open("http://192.0.2.1", cache=False).close()


# Tokens


def test_a_directory_asks_for_no_token(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="asks for no token"):
        xetstore.open(tmp_path / "store", token="xyzzy")
    assert not (tmp_path / "store").exists()


def test_a_token_is_a_text_a_function_or_in_the_environment(
    live: LiveServer, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with xetstore.open(live.url, cache=False) as store, pytest.raises(UnauthenticatedError):
        store.put(source)
    token = live.token("write")
    with xetstore.open(live.url, cache=False, token=token) as store:
        info = store.put(source)
    asked: list[str] = []
    seen: list[Event] = []

    def give(scope: str) -> tuple[str, float | None]:
        asked.append(scope)
        return live.token(scope), None

    with xetstore.open(live.url, cache=False, token=give, on_event=seen.append) as store:
        assert store.stat(info.hash).size == 300_000
        assert asked == ["read"], "no more than is needed"
        store.put(source)
        assert asked == ["read", "write"]
    assert TokenRenewed("write") in seen
    monkeypatch.setenv("XET_TOKEN", token)
    with xetstore.open(live.url, cache=False) as store:
        assert store.stat(info.hash).size == 300_000
    monkeypatch.delenv("XET_TOKEN")
    (tmp_path / "token").write_text(token + "\n")
    monkeypatch.setenv("XET_TOKEN_FILE", str(tmp_path / "token"))
    with xetstore.open(live.url, cache=False) as store:
        assert store.stat(info.hash).size == 300_000


def test_a_token_that_may_only_read_cannot_write(live: LiveServer, source: Path) -> None:
    with (
        xetstore.open(live.url, cache=False, token=live.token("read")) as store,
        pytest.raises(ForbiddenError) as caught,
    ):
        store.put(source)
    assert caught.value.exit_code == 5


def test_no_message_of_a_store_holds_the_token(live: LiveServer, source: Path) -> None:
    with xetstore.open(live.url, cache=False, token="xyzzy-not-a-token") as store:
        with pytest.raises(XetError) as caught:
            store.put(source)
        assert "xyzzy" not in f"{caught.value} {caught.value.hint} {caught.value!r} {store.location} {store!r}"


# The cache


def test_ranges_come_from_the_cache_and_only_if_it_is_wanted(live: LiveServer, source: Path, tmp_path: Path) -> None:
    token = live.token("write")
    with xetstore.open(live.url, cache=tmp_path / "cache", token=token) as store:
        info = store.put(source)
        assert b"".join(store.iter_range(info.hash, 5, 1000)) == source.read_bytes()[5:1000]
    for cache, expected in ((tmp_path / "cache", True), (False, False)):
        seen: list[Event] = []
        with xetstore.open(live.url, cache=cache, token=token, on_event=seen.append) as store:
            # The first one asks for the bytes along with the reconstruction: it does not know the chunks yet.
            for _ in range(2):
                assert b"".join(store.iter_range(info.hash, 5, 1000)) == source.read_bytes()[5:1000]
        assert [event.cached for event in seen if isinstance(event, RangeFetched)] == [False, expected]


def test_the_cache_is_where_it_is_said_to_be(
    live: LiveServer, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XET_CACHE", str(tmp_path / "elsewhere"))
    with xetstore.open(live.url, token=live.token("write")) as store:
        store.put(source)
    [known] = (tmp_path / "elsewhere").glob("127.0.0.1-*/known.sqlite3")
    assert known.stat().st_size
    assert (tmp_path / "elsewhere").stat().st_mode & 0o077 == 0, "for its owner alone"


def test_without_a_place_for_a_cache_everything_works(live: LiveServer, source: Path, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    seen: list[Event] = []
    with xetstore.open(
        live.url, cache=tmp_path / "a file" / "cache", token=live.token("write"), on_event=seen.append
    ) as store:
        info = store.put(source)
        assert b"".join(store.iter_range(info.hash)) == source.read_bytes()
    assert any(isinstance(event, CacheDisabled) for event in seen)


# Repositories on a Hub


@pytest.fixture
def named(live: LiveServer, source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[HubDouble, str]]:
    monkeypatch.setenv("HF_TOKEN_PATH", "/nonexistent")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with xetstore.open(live.url, cache=False, token=live.token("write")) as store:
        info = store.put(source)
    with hub_double(live) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub, hub.add("datasets", "ns/name", "v1", "a/file", info.hash, info.size)


def test_a_repository_is_opened_with_the_hubs_own_tokens(
    named: tuple[HubDouble, str], source: Path, tmp_path: Path
) -> None:
    hub, locator = named
    with xetstore.open("hf://datasets/ns/name@v1", cache=False) as store:
        assert store.location == "hf://datasets/ns/name@v1"
        assert store.get(locator, tmp_path / "copy").verified
        assert (tmp_path / "copy").read_bytes() == source.read_bytes()
        assert {scope for scope, _ in hub.issued} == {"read"}, "no more than is needed"
        assert store.put(source).hash == store.resolve(locator)
        with pytest.raises(UsageError, match="is not in hf://datasets/ns/name@v1"):
            store.resolve("hf://datasets/ns/other/file")
    assert {scope for scope, _ in hub.issued} == {"read", "write"}


def test_a_name_leads_to_a_store_and_a_hash(named: tuple[HubDouble, str], source: Path) -> None:
    hub, locator = named
    hub.token = "hf_mine"
    store, name = xetstore.open_locator(locator, token="hf_mine", cache=False)
    with store, store.open(name) as file:
        assert file.read() == source.read_bytes()
    with pytest.raises(XetError):
        xetstore.open_locator(locator, token="hf_others", cache=False)
    for wrong in ("ab" * 32, "hf://datasets/ns/name@v1"):
        with pytest.raises(UsageError):
            xetstore.open_locator(wrong, cache=False)
    with pytest.raises(UsageError, match="gives the tokens"):
        xetstore.open("hf://datasets/ns/name", token=lambda scope: (scope, None), cache=False)


def test_a_store_that_is_no_hub_knows_no_names(tmp_path: Path) -> None:
    with xetstore.open(tmp_path / "store") as store, pytest.raises(UsageError, match="name of a file on a Hub"):
        store.get("hf://models/ns/name/file", tmp_path / "copy")
