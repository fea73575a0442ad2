"""docs/client.md and what it says of events, patience and the environment."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
import typing
from pathlib import Path

import xetstore
from xetstore import cache_folder, events
from xetstore.cli.watcher import event_record
from xetstore.errors import XetError
from xetstore.events import Event
from xetstore.limits import ANSWER_SHARE
from xetstore.opening import ALLOW_HTTP_VARIABLE
from xetstore.protocol.hashes import Hash
from xetstore.remote import tokens
from xetstore.remote.http import ANSWER_SIZES, QUERY_BODY
from xetstore.remote.hub.client import MAX_EMPTY_PAGES, MAX_PAGE_BYTES, MAX_PAGES, MAX_TOKEN_BYTES
from xetstore.remote.problems import MAX_PROBLEM_BYTES
from xetstore.remote.reply_head import MAX_HEAD_BYTES
from xetstore.remote.retry import Patience
from xetstore.remote.server import MAX_REDIRECTS
from xetstore.remote.shards import COMMITS
from xetstore.remote.transport import ANSWER_RATE
from xetstore.transfer.download.new_file import RESERVE_BYTES, RESERVE_SHARE
from xetstore.transfer.download.partial_file import KEPT_BYTES
from xetstore.transfer.download.reconstructions import MOST_CHUNKS, WINDOW_SHARE
from xetstore.transfer.download.through import READER_SECONDS

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "client.md").read_text()
SECTIONS = {part.split("\n", 1)[0]: part for part in TEXT.split("\n## ")[1:]}
EVENTS = typing.get_args(Event)


def test_every_event_is_named_and_no_other() -> None:
    named = set(re.findall(r"`([A-Z][a-zA-Z]+)`", SECTIONS["Events"]))
    assert named == {kind.__name__ for kind in EVENTS}


def test_every_event_has_the_name_in_json_that_the_command_documents() -> None:
    text = (DOCS / "cli.md").read_text()
    samples = {"Hash": Hash.ZERO, "Path": Path("there"), "str": "x", "int": 1, "float": 0.5, "bool": True}
    for kind in EVENTS:
        record = event_record(kind(**{field.name: samples[str(field.type)] for field in dataclasses.fields(kind)}))
        assert f"`{record['event']}`" in text
        assert all(isinstance(value, str | int | float | bool) for value in record.values())
    assert events.ignore(EVENTS[0]) is None  # type: ignore[func-returns-value]


def test_the_patience_is_as_long_as_it_is_said_to_be() -> None:
    section, patience = SECTIONS["Patience"], Patience()
    for seconds in (patience.connect, patience.answer, patience.idle, patience.hedge, patience.shard):
        assert f"{seconds:g} s" in section
    assert f"up to {patience.max_retry_after:g} s" in section
    assert f"{patience.query:g} s for the head and {QUERY_BODY * patience.query:g} s for the body" in section
    assert f"below {patience.floor / 1024:g} KiB/s, as the mean of {patience.floor_seconds:g} s" in section
    assert f"{patience.commit:g} s, and ten times that for all of it" in section
    assert COMMITS == 10
    limits = xetstore.Limits()
    assert (limits.min_rate, limits.commit_seconds) == (patience.floor, patience.commit)
    assert f"`Limits(min_rate={limits.min_rate:g})`" in section
    assert f"`Limits(commit_seconds={limits.commit_seconds:g})`" in section
    of_an_error, of_a_token = (patience.answer + most / ANSWER_RATE for most in (MAX_PROBLEM_BYTES, MAX_TOKEN_BYTES))
    of_a_page = patience.answer + MAX_PAGE_BYTES / ANSWER_RATE
    assert f"{of_an_error:g} s of an error, {of_a_token:g} s of a token, {of_a_page / 60:.0f} min of a page" in section
    assert (f"| {MAX_REDIRECTS}, one after the other" in section, MAX_HEAD_BYTES) == (True, 1 << 20)
    assert f"{MAX_PAGES:,}; {MAX_EMPTY_PAGES} without an entry in a row" in section
    assert f"{READER_SECONDS:g} s" in section
    bounds = [patience.base_delay * 2**n for n in range(patience.attempts - 1)]
    assert patience.attempts == 6
    assert ", ".join(f"{bound:g}" for bound in bounds[:-1]) + f" and {bounds[-1]:g} s" in section
    assert max(bounds) <= patience.max_delay


def test_answers_and_disks_are_bounded_as_it_is_said() -> None:
    section = SECTIONS["Limits"]
    sizes = (ANSWER_SIZES.reconstruction, ANSWER_SIZES.chunks, ANSWER_SIZES.batch, MAX_PAGE_BYTES)
    assert [size >> 20 for size in sizes] == [256, 64, 32, 16]
    for text in ("256 MiB of a reconstruction", "64 MiB of a dedup", "32 MiB for several", "16 MiB of"):
        assert text in section
    assert f"one part in {ANSWER_SHARE} of that" in section
    assert f"({WINDOW_SHARE} times" in section
    assert f"more than {MOST_CHUNKS:,} chunks" in section
    assert f"1 part in {RESERVE_SHARE} of the disk, {RESERVE_BYTES >> 30} GiB at most" in SECTIONS["Downloads"]


def test_the_variables_are_those_that_count() -> None:
    known = {
        cache_folder.CACHE_VARIABLE,
        ALLOW_HTTP_VARIABLE,
        tokens.TOKEN_VARIABLE,
        tokens.TOKEN_FILE_VARIABLE,
        "XET_STORE",
    }
    assert set(re.findall(r"XET_[A-Z_]+", TEXT)) == known


def test_what_is_kept_is_as_much_as_it_is_said_to_be() -> None:
    assert f"from {KEPT_BYTES >> 20} MiB on" in SECTIONS["Downloads"]


def test_the_errors_of_a_network_have_the_exit_codes_that_are_said() -> None:
    codes = {kind.code: kind.exit_code for kind in XetError.__subclasses__()}
    assert (codes["integrity"], codes["denied"], codes["unavailable"], codes["interrupted"]) == (4, 5, 6, 130)


def test_the_examples_are_python_and_use_what_is_there() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        compile(block, "client.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for name in re.findall(r"\bxetstore\.(\w+)", block):
            assert hasattr(xetstore, name) or importlib.util.find_spec(f"xetstore.{name}"), name
    public = {name for name in dir(xetstore.Store) if not name.startswith("_")}
    assert set(re.findall(r"\bstore\.(\w+)\(", TEXT)) <= public
