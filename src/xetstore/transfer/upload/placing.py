"""Placer: where the chunks of an upload go. Known ones are looked for in the session, on this machine, everywhere."""

from __future__ import annotations

from functools import partial
from typing import Final

from xetstore.errors import AccessDeniedError, DamagedError, InterruptedCallError, NotFoundError, XetError
from xetstore.interfaces import Cas
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.dedup import DedupPlanner
from xetstore.protocol.hashes import Hash
from xetstore.protocol.known_chunks import Revision, Run
from xetstore.protocol.reconstruction import Reconstruction
from xetstore.protocol.shard import Shard
from xetstore.protocol.suite import AlgorithmSuite
from xetstore.transfer.scan import Block, FileInfo
from xetstore.transfer.upload.known import KnownXorbs
from xetstore.transfer.upload.queries import BackgroundQueries

RECENT_FROM_BYTES: Final = 4 << 20
"""From which size on a file is worth a look at what was stored last, where a query finds nothing."""

MAX_RECENT_CHUNKS: Final = 32_768

RECOGNISED_BYTES: Final = 4 << 30
"""How long a file may be to be looked for by its hash: 2 MB of chunk hashes. Of a longer one the index finds enough."""


class Recent:
    """How much of what was stored last a session has been told: as much as some versions of its files would be."""

    def __init__(self) -> None:
        self._told = 0

    def wanted(self, file_bytes: int) -> int:
        """How many chunks are worth looking at for a file, 8 times its own; 0 if half of them have been."""
        wanted = min(file_bytes >> 13, MAX_RECENT_CHUNKS)
        if file_bytes < RECENT_FROM_BYTES or wanted < 2 * self._told:
            return 0
        self._told = wanted
        return wanted


class Placer:
    """Places the chunks of one file after another: draft 10.1, then 10.2, then 10.3. To be closed.

    For each block: :meth:`look_up`, then :meth:`place`. What is learned of a block may show that chunks before it are
    stored already: they are dropped from their xorb again as long as it is being filled. With ``dry_run`` every answer
    is waited for, and none of them is remembered. Not thread-safe. Raises what the Cas raises, where it is waited for.
    """

    def __init__(
        self,
        cas: Cas,
        known: KnownXorbs | None,
        *,
        suite: AlgorithmSuite,
        max_xorb_bytes: int | None = None,
        max_known_chunks: int,
        dry_run: bool = False,
    ) -> None:
        self._cas = cas
        self._known = known
        self._new_planner = partial(DedupPlanner, suite, cas.queries, max_known_chunks, max_xorb_bytes)
        self._planner = self._new_planner()
        self._large_bytes = min(suite.max_xorb_bytes, max_xorb_bytes or suite.max_xorb_bytes)
        self._remembering = None if dry_run else known
        self._asks = True
        self._background: BackgroundQueries | None = None
        if cas.queries.in_background and not dry_run:
            self._background = BackgroundQueries(cas, self._remember)
        self._holds = False
        self._has_news = False
        self._size = 0
        self._recent = Recent()

    def start_file(self, size: int) -> None:
        """The next chunks are those of another file."""
        self._planner.start_file(size)
        self._holds = size > self._large_bytes
        self._size = size

    def look_up(self, chunks: ChunkList) -> list[Revision]:
        """Look for the chunks of the next block; which of those before it are to be dropped, in order."""
        self._has_news = False
        if self._background is not None:
            self._learn(self._background.arrived())
        if self._known is not None and (unknown := self._planner.unknown(chunks)):
            self._learn(self._known.find(unknown))
        if self._asks:
            self._ask(chunks)
        self._holds = False
        revisions = [self._planner.revise(whole_xorb=False)] if self._has_news else []
        if not self._planner.has_room_for(chunks):
            revisions.append(self._planner.revise(whole_xorb=True))
        return [revision for revision in revisions if revision is not None]

    def place(self, block: Block) -> list[Run]:
        """Where the chunks of the next block are, or are to be put."""
        return self._planner.plan(block.chunks, block.is_uniform)

    def stored_file(self, file: FileInfo) -> Reconstruction | None:
        """A file as it is stored, with its chunk hashes; None if it is not, or a question takes long, or the answer
        much memory.
        """
        if not self._asks or self._cas.queries.in_background or file.size > RECOGNISED_BYTES:
            return None
        try:
            stored = self._cas.reconstruct(file.hash, hashes=True)
        except (NotFoundError, DamagedError):
            return None
        return stored if stored.term_hashes is not None else None

    def withdraw_file(self) -> Revision | None:
        """What this file has brought to the xorb that is being filled is to be dropped: it is stored as it is."""
        return self._planner.withdraw_file()

    @property
    def again_bytes(self) -> int:
        """How much of this file is stored again only because it would become fragmented (10.4)."""
        return self._planner.again_bytes

    def last_revision(self) -> Revision | None:
        """What is to be dropped from the open xorb before it is cut short."""
        if self._background is not None:
            self._learn(self._background.arrived())
        return self._planner.revise(whole_xorb=True)

    def close_xorb(self) -> None:
        """Let new chunks go to a fresh xorb: the open one is being cut short."""
        self._planner.close_xorb()

    def forget(self) -> None:
        """Start anew, and believe from now on only what this session has stored itself."""
        self._planner = self._new_planner()
        self._known = None
        self._asks = False
        self.close()
        self._background = None

    def close(self) -> None:
        """Ask no more."""
        if self._background is not None:
            self._background.close()

    def _ask(self, chunks: ChunkList) -> None:
        for chunk in self._planner.worth_asking(chunks):
            if self._background is None:
                answers = self._answers(chunk)
                if not answers and self._asks and (most := self._recent.wanted(self._size)):
                    # What it begins with is new, or changed: it may be a version of what was stored before.
                    recent = self._cas.find_recent(most)
                    answers = [] if recent is None else [recent]
                self._learn(answers)
                continue
            self._background.ask(chunk)
            if self._holds:
                self._holds = False
                self._background.hold_for(chunk)
                self._learn(self._background.arrived())

    def _answers(self, chunk: Hash) -> list[Shard]:
        """The answer to a query, waited for."""
        try:
            answer = self._cas.find_chunks(chunk) if self._asks else None
        except (AccessDeniedError, InterruptedCallError):
            raise
        except XetError:
            if not self._cas.queries.in_background:
                raise
            # An upload would go on without answers, too.
            self._asks = False
            return []
        return [] if answer is None else [answer]

    def _learn(self, answers: list[Shard]) -> None:
        for answer in answers:
            self._has_news |= self._planner.learn(answer)

    def _remember(self, answer: Shard) -> None:
        if self._remembering is not None:
            self._remembering.learn(answer)
