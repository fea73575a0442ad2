"""What the documents say is so: examples run, links lead somewhere, each dependency is explained, the design holds."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from tests.support.modules import modules
from tests.support.strategies import splitmix64
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.index import Index
from xetstore.cas.layout import SHARDS, XORBS, named_by
from xetstore.cas.stored_xorb import verify_object
from xetstore.cli.commands import SECTIONS
from xetstore.cli.main import cli
from xetstore.database.sqlite import SqliteDatabase
from xetstore.protocol.hashes import chunk_hash
from xetstore.protocol.shard import Shard

ROOT = Path(__file__).parents[1]
MAIN_DOCUMENTS = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "examples/README.md",
    "deploy/README.md",
)
DOCUMENTS = [
    *(ROOT / name for name in MAIN_DOCUMENTS),
    *sorted((ROOT / "docs").rglob("*.md")),
]


PARTS_OF_A_DECISION = ["## Context", "## Decision", "## Consequences", "## How to leave it"]


def prose(document: Path) -> str:
    """A document without its code blocks, in which nothing is a link or a heading."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """What can stand behind a # in a link to a document, by the rule of the code hosts."""
    headings = re.findall(r"^#+ (.+)$", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Links


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = document.parent / name if name else document
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_and_targets_that_are_named_are_there(document: Path) -> None:
    text = document.read_text()
    folders = "bench|docs|examples|kernel|src|tests"
    for path in re.findall(rf"`((?:{folders})/[a-z0-9_./-]*)`", text):
        assert (ROOT / path).exists() or (document.parent / path).exists(), path
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", text)) <= set(targets)


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        document = ahead.pop()
        reached.add(document)
        for target in re.findall(r"\]\(([^)#\s]+\.md)", prose(document)):
            linked = (document.parent / target).resolve()
            if linked not in reached and linked.is_file():
                ahead.append(linked)
    assert set(DOCUMENTS) <= reached


# Decisions


def test_decisions_are_numbered_short_and_listed() -> None:
    decisions = sorted((ROOT / "docs" / "adr").glob("0*.md"))
    assert len(decisions) >= 10
    listed = re.findall(
        r"^\| (\d+) \| \[(.+)\]\((.+)\) \|$", (ROOT / "docs" / "adr" / "README.md").read_text(), re.MULTILINE
    )
    titles = []
    for number, decision in enumerate(decisions, 1):
        lines = decision.read_text().splitlines()
        assert len(lines) <= 40, decision.name
        assert [line for line in lines if line.startswith("## ")] == PARTS_OF_A_DECISION, decision.name
        assert decision.name.startswith(f"{number:04}-")
        titles.append((str(number), lines[0].removeprefix(f"# {number}. "), decision.name))
    assert listed == titles


# Examples


def test_the_python_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```$", DOCUMENTS[0].read_text(), flags=re.MULTILINE | re.DOTALL)
    header = json.dumps({"weights": {"dtype": "U8", "shape": [300_000], "data_offsets": [0, 300_000]}}).encode()
    content = len(header).to_bytes(8, "little") + header + splitmix64(1, 300_000)
    (tmp_path / "model.safetensors").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert (tmp_path / "copy.safetensors").read_bytes() == content
    assert names["info"] == xetstore.hash_file("model.safetensors", sha256=True)
    assert names["head"] == content[:100]


def docstrings_with_examples() -> Iterator[doctest.DocTest]:
    for name in modules():
        for found in doctest.DocTestFinder().find(importlib.import_module(name), name):
            if found.examples:
                yield found


@pytest.mark.parametrize("docstring", list(docstrings_with_examples()), ids=lambda docstring: docstring.name)
def test_the_examples_of_a_docstring_are_true(
    docstring: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said: list[str] = []
    failed, _ = doctest.DocTestRunner().run(docstring, out=said.append)
    assert not failed, "".join(said)


@pytest.mark.parametrize("name", ["Store", "Hash", "hash_file"])
def test_what_people_begin_with_has_an_example_that_runs(name: str) -> None:
    examples = doctest.DocTestParser().get_examples(getattr(xetstore, name).__doc__)
    assert any(not example.options for example in examples)


def test_the_commands_of_the_readme_exist() -> None:
    text = DOCUMENTS[0].read_text()
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"demo", "docs", "test"} <= set(re.findall(r"\bmake ([a-z]+)", text)) <= set(targets)
    named = set(re.findall(r"\bxet ([a-z][a-z-]+)\b", text))
    assert set(cli.commands) - SECTIONS["The command"].keys() <= named <= set(cli.commands)


# The site


def pages_of(nav: object) -> Iterator[str]:
    """The pages of a navigation, in which titles lead to pages or to lists of the same."""
    if isinstance(nav, str):
        yield nav
    else:
        for below in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
            yield from pages_of(below)


def test_the_site_has_each_document_once_and_the_readers_pages_first() -> None:
    pages = list(pages_of(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    benches = [path.relative_to(ROOT) for path in (ROOT / "bench").glob("*.md")]
    documents = {str(path.relative_to(ROOT)) for path in DOCUMENTS} | set(map(str, benches))
    assert sorted(pages) == sorted(documents)
    assert pages[:2] == ["README.md", "docs/guide/get-started.md"]
    last_guide = max(index for index, page in enumerate(pages) if page.startswith("docs/guide/"))
    assert last_guide < min(map(pages.index, ("docs/cli.md", "docs/api/README.md", "docs/design.md")))


# Dependencies


def declared() -> Iterator[str]:
    """Every package that the project asks for, by the name it asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in project["project"].get("optional-dependencies", {}).values():
        wanted += extra
    for group in project["dependency-groups"].values():
        wanted += group
    for requirement in wanted:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name and name[0] != "xetstore":  # all its extras, as one of them
            yield name[0]
    crate = tomllib.loads((ROOT / "kernel" / "Cargo.toml").read_text())
    for section in ("dependencies", "dev-dependencies", "build-dependencies"):
        yield from crate.get(section, {})
    yield from json.loads((ROOT / "tests" / "interop" / "js" / "package.json").read_text())["dependencies"]


def test_each_dependency_is_explained_and_nothing_else_is() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", (ROOT / "docs" / "dependencies.md").read_text(), flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(declared())
    for name, cells in rows:
        what_for, instead_of, how_to_leave = (cell.strip() for cell in cells.split(" | "))
        assert what_for, name
        assert instead_of, name
        assert how_to_leave, name


# The design


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with two versions of a file and the empty file."""
    noise = splitmix64(2, 700_000)
    for name, content in (("one", noise), ("two", noise[:500_000] + b"an end"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
    with xetstore.open(tmp_path / "store") as opened:
        for name in ("one", "two", "empty"):
            opened.put(tmp_path / name)
    return tmp_path / "store"


def test_an_index_can_be_rebuilt_from_the_objects_as_the_design_says(store: Path, tmp_path: Path) -> None:
    with EmbeddedCas.open(store) as cas:
        files = {record.hash: (record.size, record.sha256, record.terms) for record in cas.files()}
        totals = cas.totals()
    (store / "index.sqlite3").unlink()
    blobs = LocalBlobStore(store)
    objects = [blob.key for blob in blobs.list()]
    with EmbeddedCas(blobs, Index(SqliteDatabase(store / "index.sqlite3"))) as cas:
        for key in (key for key in objects if key.startswith(XORBS)):
            named = named_by(key)
            assert named is not None
            info = verify_object(blobs, key, named[0])
            with cas.index.transaction() as writer:
                writer.add_xorb(info, namespace="default", now=0, generation=named[1])
        for key in (key for key in objects if key.startswith(SHARDS)):
            named, data = named_by(key), blobs.get(key)
            assert named is not None
            assert named[0] == chunk_hash(data)
            with cas.index.transaction() as writer:
                writer.add_shard(named[0], len(data), files=(), xorbs=(), now=0, generation=named[1])
            assert cas.put_shard(Shard.parse(data))
        assert {record.hash: (record.size, record.sha256, record.terms) for record in cas.files()} == files
        assert cas.totals() == totals
        verify_invariants(cas)
    assert [blob.key for blob in blobs.list()] == objects, "nothing was added to the objects"
    with xetstore.open(store) as opened:
        for file in files:
            opened.get(file, tmp_path / "copy")
            assert xetstore.hash_file(tmp_path / "copy").hash == file


@pytest.mark.parametrize("page", ["docs/server.md", "docs/hub.md", "deploy/README.md", "README.md"])
def test_a_newcomer_installs_from_a_clone_until_there_is_a_release(page: str) -> None:
    """The name on an index is not ours before that."""
    installed = re.findall(r"^[$# ]*.*pip install (\S+)", (ROOT / page).read_text(), re.MULTILINE)
    first = installed[0].strip("'\"`")
    assert first.startswith((".", "$CLONE"))
