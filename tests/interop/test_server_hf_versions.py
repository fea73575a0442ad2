"""Versions of files that the reference client puts from a machine that knows nothing: what is new of them is sent.

The client asks for the first chunk of a file, and for one in 1,024 behind it: so of many a file nothing is found by
itself. What is known of such is told by the answers about others, and by those to the first queries of a session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.hf_process import HfProcess, Uploaded
from tests.support.servers import Server
from tests.support.versions import (
    MIB,
    Content,
    Ideal,
    Version,
    a_growing_table,
    a_mix_of_short_pieces,
    deletions,
    edits,
    edits_of_the_first_chunk,
    insertions,
    moved_members,
    prepends,
    small_files,
    two_files_interleaved,
    write,
    zeros,
)
from xetstore.protocol.chunking import chunk_bytes
from xetstore.protocol.dedup import WIRE_QUERIES

ROOM = 1.02
"""New bytes by those of an ideal store."""


def not_asked_for(content: Content, size: int) -> bytes:
    """Random bytes without a chunk that the protocol asks for, unless it begins a file (10.3.1)."""
    while True:
        data = content.fresh(size)
        if not WIRE_QUERIES.selected(chunk_bytes(data)):
            return data


class Machines:
    """Clients that put versions into one server, each from a machine of its own."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._count = 0

    def put(self, paths: list[Path], how: str = "upload_session") -> tuple[int, Uploaded]:
        """Put files; the raw bytes of xorbs that the store gained, and what the client tells."""
        self._count += 1
        before = self._server.totals()
        client = HfProcess(self._server.connect(), self._folder / f"machine{self._count}")
        told = client.upload(paths, how)
        return self._server.totals().unique_bytes - before.unique_bytes, told


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    with Server(tmp_path / "store") as server:
        yield Machines(server, tmp_path)


@pytest.mark.parametrize(
    "corpus",
    [
        *(edits, edits_of_the_first_chunk, insertions, prepends, deletions, moved_members),
        *(a_growing_table, two_files_interleaved, small_files),
    ],
)
def test_an_edited_file_is_sent_as_far_as_it_is_new_and_never_twice(
    machines: Machines, tmp_path: Path, corpus: Callable[[Content], list[Version]]
) -> None:
    ideal = Ideal()
    made = corpus(Content(1))
    for version in made:
        paths = write(tmp_path, version)
        least = ideal.new_bytes(paths)
        new, told = machines.put(paths)
        assert told.bytes_kept_together == 0
        assert new <= ROOM * least
    for version in made:
        assert machines.put(write(tmp_path, version))[0] == 0


@pytest.mark.parametrize("corpus", [zeros, a_mix_of_short_pieces])
def test_what_else_is_sent_of_files_of_short_pieces_is_what_the_guard_of_the_client_keeps_together(
    machines: Machines, tmp_path: Path, corpus: Callable[[Content], list[Version]]
) -> None:
    ideal = Ideal()
    kept_together = 0
    for version in corpus(Content(1)):
        paths = write(tmp_path, version)
        least = ideal.new_bytes(paths)
        new, told = machines.put(paths)
        assert new <= ROOM * least + told.bytes_kept_together
        kept_together += told.bytes_kept_together
    assert kept_together, "the guard was at work"


def test_of_a_chunk_that_repeats_the_longest_run_is_found(machines: Machines, tmp_path: Path) -> None:
    """Else the client would take each for a fragment, and send it again."""
    content = Content(1)
    piece = content.fresh(300_000)
    version = {"sparse": piece + bytes(MIB) + piece[::-1] + bytes(60 * MIB), "repeats": piece * 100}
    paths = write(tmp_path, version)
    machines.put(paths)
    assert machines.put(paths)[0] == 0
    version["sparse"] += content.fresh(MIB)
    assert machines.put(write(tmp_path, version))[0] <= 1.2 * MIB


def test_a_file_of_which_nothing_can_be_found_is_found_by_what_it_was_put_with(
    machines: Machines, tmp_path: Path
) -> None:
    """An archive that gains a member at its front is known by the label that was put after it."""
    content = Content(1)
    archive, label = not_asked_for(content, 12 * MIB), content.fresh(1000)
    ideal = Ideal()
    for version in ({"archive": archive}, {"label": label}):
        paths = write(tmp_path, version)
        assert machines.put(paths)[0] == ideal.new_bytes(paths)
    for size in (MIB, 2 * MIB):
        archive = not_asked_for(content, size) + archive
        paths = write(tmp_path, {"label": label, "archive": archive})
        least = ideal.new_bytes(paths)
        assert machines.put(paths, "upload_stream")[0] <= ROOM * least
