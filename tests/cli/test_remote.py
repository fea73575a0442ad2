"""The commands over a server and over a Hub: the same as over a directory, or a sentence that says why not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.runner import Xet, flip_byte
from tests.support.hub_double import HubDouble, hub_double
from tests.support.live import LiveServer, live_server
from tests.support.scripted import reply, scripted
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas

DATA = splitmix64(21, 900_000)
UNKNOWN = "ab" * 32


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as live:
        yield live


@pytest.fixture
def xet(live: LiveServer, tmp_path: Path) -> Xet:
    return Xet(tmp_path / "store", live.url, XET_TOKEN=live.token("write"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def hub(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with hub_double(live) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "")
        monkeypatch.setenv("HF_TOKEN_PATH", "/nonexistent")
        yield hub


def test_a_file_goes_up_and_comes_back(xet: Xet, file: Path, tmp_path: Path) -> None:
    [stored] = xet("put", "--json", file).records
    assert (stored["size"], stored["new_bytes"]) == (len(DATA), len(DATA))
    out = tmp_path / "copy"
    ran = xet.process("get", "--json", stored["hash"], "-o", out)
    [record] = ran.records
    assert (ran.code, ran.stderr) == (0, "")
    assert len(DATA) <= record.pop("fetched_bytes") < 1.01 * len(DATA)
    assert record == {
        "path": str(out),
        "hash": stored["hash"],
        "size": len(DATA),
        "verified": True,
        "reused_bytes": 0,
    }
    assert out.read_bytes() == DATA
    assert xet("cat", stored["hash"], "--range", "5:900").data == DATA[5:900]
    assert xet("stat", stored["hash"]).stdout == f"hash     {stored['hash']}\nsize     900,000 (878.9 KiB)\n"
    assert xet("diff", stored["hash"], file).code == 0
    [told] = xet("get", "--json", "--dry-run", stored["hash"]).records
    assert (told["size"], told["xorbs"]) == (len(DATA), 1)


def test_what_is_there_is_not_sent_again(xet: Xet, file: Path, tmp_path: Path) -> None:
    xet.put(file)
    [again] = xet("put", "--json", file).records
    assert (again["new_bytes"], again["deduped_bytes"]) == (0, len(DATA))
    file.write_bytes(DATA + b"more")
    [planned] = xet("put", "--json", "--dry-run", file).records
    assert 0 < planned["new_bytes"] < 200_000
    assert xet("stat", planned["hash"]).code == 3, "nothing was stored"
    [told] = xet("estimate", "--json", file).records
    assert told["stored_bytes"] == planned["deduped_bytes"]


def test_an_older_version_saves_the_way(xet: Xet, file: Path, tmp_path: Path) -> None:
    (tmp_path / "newer").write_bytes(DATA + b"more")
    name = xet.put(tmp_path / "newer")
    ran = xet("get", name, "-o", tmp_path / "copy", "--base", file, "--fsync", "--keep-partial")
    assert ran.code == 0
    assert "of it from here, verified" in ran.stderr
    assert (tmp_path / "copy").read_bytes() == DATA + b"more"


def test_events_are_json_lines_on_stderr(xet: Xet, file: Path, tmp_path: Path) -> None:
    ran = xet("put", "--json", "--events", file)
    [stored] = [event for event in ran.errors if event["event"] == "xorb_stored"]
    assert (stored["raw_bytes"], stored["is_new"]) == (len(DATA), True)
    assert ran.errors[-1] == {"event": "files_registered", "files": 1}
    name = ran.records[0]["hash"]
    ran = xet("get", "--json", "--events", name, "-o", tmp_path / "copy")
    assert {event["event"] for event in ran.errors} >= {"range_fetched"}


def test_limits_hold_a_transfer_up_and_do_not_break_it(xet: Xet, file: Path, tmp_path: Path) -> None:
    limits = ("--max-memory", "256M", "--limit-rate", "50M", "--jobs", "1", "--no-cache")
    assert xet("put", *limits, file).code == 0
    assert xet("get", *limits, xet.put(file), "-o", tmp_path / "copy").code == 0
    assert (tmp_path / "copy").read_bytes() == DATA


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (("--max-memory", "1M"), "1.0 MiB of memory are not enough"),
        (("--limit-rate", "fast"), "'fast' is not a size"),
        (("--jobs", "0"), "0 is not in the range"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(xet: Xet, limit: tuple[str, str], said: str) -> None:
    ran = xet("cat", *limit, UNKNOWN)
    assert (ran.code, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert "hint: " in ran.stderr


# Tokens


def test_a_token_comes_from_a_file_or_from_stdin(live: LiveServer, file: Path, tmp_path: Path) -> None:
    xet = Xet(tmp_path / "store", live.url)
    ran = xet("put", file)
    assert (ran.code, ran.stdout) == (5, "")
    assert "hint: " in ran.stderr
    (tmp_path / "token").write_text(live.token("write") + "\n")
    assert xet("put", "--token-file", tmp_path / "token", file).code == 0
    assert xet("put", "--token-file", "-", file, stdin=live.token("write") + "\n").code == 0
    assert Xet(tmp_path / "store", live.url, XET_TOKEN_FILE=str(tmp_path / "token"))("put", file).code == 0
    assert xet("put", "--token-file", tmp_path / "missing", file).code == 3
    ran = xet("put", "--token-file", "-", file, stdin="")
    assert (ran.code, ran.stderr.splitlines()[0]) == (2, "xet: the token is empty")
    assert xet("stat", "--store", tmp_path / "store", "--token-file", "-", stdin="xyzzy").code == 2


def with_config(xet: Xet, token: str, store: str | None, mode: int = 0o600) -> Path:
    """The user's file, which names a token file; that file."""
    folder = Path(xet.variables["XDG_CONFIG_HOME"]) / "xet"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(f"{token}\n")
    (folder / "token").chmod(mode)
    named = f'store = "{store}"\n' if store else ""
    (folder / "config.toml").write_text(f'{named}token_file = "token"\n')
    return folder / "token"


def test_the_users_file_names_the_server_and_its_token(live: LiveServer, file: Path, tmp_path: Path) -> None:
    xet = Xet(tmp_path / "store", XET_STORE="")
    with_config(xet, live.token("write"), live.url)
    name = xet.put(file)
    assert xet("stat", "--json", name).records[0]["size"] == len(DATA)
    xet.variables["XET_TOKEN"] = "other"
    assert xet("stat", name).code == 5, "the environment comes first"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o622])
def test_a_token_file_that_others_may_read_is_refused_with_the_line_that_names_it(
    live: LiveServer, file: Path, tmp_path: Path, mode: int
) -> None:
    xet = Xet(tmp_path / "store", live.url)
    path = with_config(xet, live.token("write"), live.url, mode)
    [error] = xet("put", "--json", file).errors
    assert error["code"] == "denied"
    assert error["message"].startswith(f"line 2 of {path.parent / 'config.toml'}: others than its owner may read")
    assert error["hint"].startswith(f"chmod 600 {path}")
    path.unlink()
    [error] = xet("put", "--json", file).errors
    assert (error["code"], str(path) in error["message"]) == ("not_found", True)


def test_the_token_of_the_users_file_goes_to_its_server_only(
    live: LiveServer, hub: HubDouble, file: Path, tmp_path: Path
) -> None:
    with scripted(reply(404)) as other:
        xet = Xet(tmp_path / "store", other.url)
        with_config(xet, "hf_xyzzy", live.url)
        xet("stat", UNKNOWN)
        xet("ls", "hf://models/ns/name")
        xet("cat", "hf://models/ns/name/file")
        xet("log", "hf://models/ns/name")
        assert other.requests
        assert "xyzzy" not in str([seen.headers for seen in (*other.requests, *hub.asked)])
        with_config(xet, "hf_xyzzy", None)
        xet("stat", UNKNOWN)
        xet("cat", "hf://models/ns/name/file")
        assert "xyzzy" in str([seen.headers for seen in other.requests]), "without a store it is for any server"
        assert "xyzzy" not in str([seen.headers for seen in hub.asked])


def test_a_token_is_shown_nowhere(live: LiveServer, file: Path, tmp_path: Path) -> None:
    xet = Xet(tmp_path / "store", live.url, XET_TOKEN="xyzzy-not-a-token")
    for more in ((), ("--debug",), ("--json", "--events")):
        ran = xet("put", *more, file)
        assert ran.code == 5
        assert "xyzzy" not in ran.stdout + ran.stderr


def test_there_is_no_option_for_a_token_itself(xet: Xet, file: Path) -> None:
    assert xet("put", "--token", "xyzzy", file).code == 2


# What a server cannot do, and what goes wrong


@pytest.mark.parametrize(
    "command",
    [["stat"], ["check"], ["serve"], ["token", "issue", "--scope", "read"], ["token", "rotate"]],
    ids=" ".join,
)
def test_what_takes_a_directory_says_so(xet: Xet, command: list[str]) -> None:
    ran = xet(*command)
    assert (ran.code, ran.stdout) == (2, "")
    message, hint = ran.stderr.splitlines()
    assert "director" in message + hint or "server" in message
    assert hint.startswith("hint: ")


def test_plain_http_beyond_this_machine_has_to_be_allowed(tmp_path: Path) -> None:
    ran = Xet(tmp_path / "store", "http://192.0.2.1")("cat", UNKNOWN)
    assert ran.code == 2
    assert "hint: " in ran.stderr


def test_what_is_no_store_is_refused(xet: Xet) -> None:
    ran = xet("cat", "--store", "gopher://127.0.0.1", UNKNOWN)
    assert (ran.code, ran.stderr.splitlines()[0]) == (2, "xet: gopher:// is no kind of store")


def test_what_is_unknown_is_not_found(xet: Xet, tmp_path: Path) -> None:
    assert xet("get", UNKNOWN, "-o", tmp_path / "copy").code == 3
    assert not list(tmp_path.glob("*copy*"))


def test_a_server_that_is_not_there_for_now_ends_with_6(tmp_path: Path) -> None:
    """It asks everybody to come back tomorrow."""
    with scripted(reply(503, headers={"Retry-After": "86400"})) as server:
        ran = Xet(tmp_path / "store", server.url)("get", UNKNOWN, "-o", tmp_path / "copy")
    assert ran.code == 6
    assert "86400 seconds" in ran.stderr
    assert not list(tmp_path.glob("*copy*"))


def test_damage_ends_with_4_and_says_what_to_do(xet: Xet, file: Path, tmp_path: Path) -> None:
    name = xet.put(file)
    [xorb] = xet.xorbs()
    flip_byte(xorb, 500_000)
    ran = xet("get", name, "-o", tmp_path / "copy")
    assert ran.code == 4
    assert xorb.name[:64] in ran.stderr
    assert "hint: " in ran.stderr
    assert not list(tmp_path.glob("*copy*"))


def test_the_servers_directory_is_put_as_any_other_and_its_own_never(xet: Xet, file: Path, tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "below").mkdir(parents=True)
    (top / "below" / "one").write_bytes(DATA)
    assert len(xet("put", "--json", top).records) == 1
    local = Xet(top / "store")
    local.put(file)
    assert len(local("put", "--json", top).records) == 1


# Names on a Hub


@pytest.fixture
def named(hub: HubDouble, xet: Xet, file: Path) -> str:
    from xetstore.protocol.hashes import Hash

    name = xet.put(file)
    hub.add("models", "ns/name", "main", "config.json", None, 12)
    return hub.add("models", "ns/name", "main", "below/model.bin", Hash.parse(name), len(DATA))


def test_a_file_on_a_hub_is_had_by_its_name(xet: Xet, named: str, file: Path, tmp_path: Path) -> None:
    assert xet("get", named, "-o", tmp_path / "copy").code == 0
    assert (tmp_path / "copy").read_bytes() == DATA
    assert xet("cat", named, "--range", "7:70").data == DATA[7:70]
    [record] = xet("stat", "--json", named).records
    assert record["size"] == len(DATA)
    assert xet("diff", named, file).code == 0
    assert xet("cat", named, "--store", tmp_path / "store").code == 2, "a name says where it is"


def test_a_repository_is_a_store_and_lists_its_files(xet: Xet, named: str, tmp_path: Path) -> None:
    repository = "hf://models/ns/name"
    flat = xet("ls", repository).stdout
    assert f"{'-' * 64}               12  config.json\n" in flat
    assert flat.endswith("below/\n") or "below/\n" in flat
    records = xet("ls", "--json", "-r", repository).records
    assert {record["path"]: record["size"] for record in records if not record["is_folder"]} == {
        "config.json": 12,
        "below/model.bin": len(DATA),
    }
    [name] = [record["hash"] for record in records if record["hash"]]
    assert xet("cat", "--store", repository, name).data == DATA
    assert xet("ls", "--store", repository).code == 0


def test_what_a_hub_does_not_have_is_not_found(xet: Xet, named: str, tmp_path: Path) -> None:
    for missing in ("hf://models/ns/name/nothing", "hf://models/ns/other/file", "hf://models/ns/name@v9/file"):
        ran = xet("get", missing, "-o", tmp_path / "copy")
        assert ran.code == 3, missing
    ran = xet("cat", "hf://models/ns/name/config.json")
    assert (ran.code, "not stored by Xet" in ran.stderr) == (2, True)
    ran = xet("cat", "hf://models/ns/name")
    assert (ran.code, "is a repository, and no file" in ran.stderr) == (2, True)


def test_the_token_at_the_hub_comes_from_a_file_too(xet: Xet, hub: HubDouble, named: str, tmp_path: Path) -> None:
    hub.token = "hf_mine"
    assert xet("cat", named).code in (3, 5)
    (tmp_path / "token").write_text("hf_mine\n")
    assert xet("cat", named, "--token-file", tmp_path / "token").data == DATA
    assert xet("ls", "hf://models/ns/name", "--token-file", "-", stdin="hf_mine").code == 0
    assert json.dumps("hf_mine") not in xet("ls", "hf://models/ns/name", "--json").stderr
