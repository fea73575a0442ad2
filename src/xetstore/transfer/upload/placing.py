"""Placer: where the chunks of an upload go. Known ones are looked for in the session, on this machine, everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

from xetstore.batches import batches
from xetstore.errors import AccessDeniedError, DamagedError, InterruptedCallError, NotFoundError, XetError
from xetstore.protocol.dedup import WIRE_QUERIES, DedupPlanner
from xetstore.protocol.hashes import Hash
from xetstore.protocol.known_chunks import Revision, Run
from xetstore.protocol.reconstruction import Reconstruction
from xetstore.protocol.shard import Shard
from xetstore.transfer.scan import Block
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.known import KnownXorbs
from xetstore.transfer.upload.queries import BackgroundQueries, DirectQueries

if TYPE_CHECKING:
    from xetstore.interfaces import Cas
    from xetstore.protocol.chunking import ChunkList
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.known_chunks import Revision, Run
    from xetstore.protocol.reconstruction import Reconstruction
    from xetstore.protocol.shard import Shard
    from xetstore.records import FileInfo
    from xetstore.transfer.scan import Block
    from xetstore.transfer.upload.context import UploadOptions
    from xetstore.transfer.upload.known import KnownXorbs

LONG_ANSWER_XORBS: Final = 12
"""An answer of 12 xorbs may have ended before the files that it tells of: 64 are the most, or fewer large ones."""

QUERY_SPACING_BYTES: Final = 12 << 20
"""Content between two queries that name many chunks: half a xorb. A file that is as long begins with one."""

RECOGNISED_BYTES: Final = 4 << 30
"""The longest file that is looked for by its hash: 2 MB of chunk hashes. Of a longer one the index finds enough."""


class Placer:
    """Places the chunks of one file after another: draft 10.1, then 10.2, then 10.3. To be closed.

    For each block: :meth:`look_up`, then :meth:`place`. What is learned of a block may show that chunks before it are
    stored already: they are dropped from their xorb again as long as it is being filled, and before it is complete all
    answers about it are waited for. ``sending_seconds`` tells how long it takes to send some bytes, 0 if that is not
    known yet. Without a ``cas`` nothing is asked. In a dry run every answer is waited for at once, and none of them is
    remembered. Not thread-safe. Raises what the Cas raises, where it is waited for.
    """

    def __init__(
        self,
        cas: Cas | None,
        known: KnownXorbs | None,
        options: UploadOptions,
        sending_seconds: Callable[[int], float] = lambda _: 0.0,
    ) -> None:
        self._cas = cas
        self._known = known
        rule = WIRE_QUERIES if cas is None else cas.queries
        sizes = options.sizes_for(remote=cas is not None and cas.is_remote)
        self._new_planner = partial(DedupPlanner, rule, sizes.known_chunks, sizes.xorb_bytes)
        self._planner = self._new_planner()
        self._sending_seconds = sending_seconds
        self._remembering = None if options.dry_run else known
        self._background: BackgroundQueries | None = None
        self._direct: DirectQueries | None = None
        if cas is not None and cas.is_remote and not options.dry_run:
            self._background = BackgroundQueries(cas, self._remember, options.query_patience)
        elif cas is not None:
            self._direct = DirectQueries(cas)
        # What is to be asked for with the next query that names many chunks, and how much was read since the last one.
        self._questions: list[Hash] = []
        self._unasked_bytes = 0
        self._has_news = False
        # Files that are looked for ahead are not asked for again, one by one.
        self._is_ahead = False
        # Of a file that begins with what an answer told there may be more than it told.
        self._has_more = cas is not None and not cas.is_remote
        self._size = 0

    def look_ahead(self, files: Iterable[tuple[int, ChunkList]]) -> bool:
        """Look for small files, each a size and all of its chunks, before they are placed: many by one question, where
        answers are waited for at once. True if that was done, and :meth:`start_file` is to be told so.
        """
        if self._direct is None:
            return False
        asked: dict[Hash, None] = {}
        for size, chunks in files:
            self._planner.start_file(size)
            asked.update(dict.fromkeys(self._planner.worth_asking(chunks)))
        for question in batches(asked, self._planner.queries.most_at_once):
            # An answer tells of some xorbs: of others the next one does, until there are no more.
            while question and self._learn(self._direct.answers(question, 0)):
                question = [chunk for chunk in question if self._planner.may_tell_more(chunk.digest)]
        self._planner.queries = self._direct.rule
        return True

    def start_file(self, size: int | None, *, is_ahead: bool = False) -> None:
        """The next chunks are those of another file; one whose size is not known is taken to be long. Of one that
        ``is_ahead`` all was asked already.
        """
        self._planner.start_file(size)
        self._is_ahead = is_ahead
        self._size = RECOGNISED_BYTES if size is None else size
        if self._size >= QUERY_SPACING_BYTES:
            self._unasked_bytes = QUERY_SPACING_BYTES

    def look_up(self, chunks: ChunkList) -> Revision | None:
        """Look for the chunks of the next block; which of those before it are to be dropped."""
        self._has_news = False
        self._take_rule()
        if self._background is not None:
            self._learn(self._background.arrived())
        if self._known is not None and (unknown := self._planner.unknown(chunks)):
            self._learn(self._known.find(unknown))
        self._ask(chunks)
        is_completed = not self._planner.has_room_for(chunks)
        if is_completed:
            self._settle()
        return self._planner.revise(whole_xorb=is_completed) if is_completed or self._has_news else None

    def place(self, block: Block) -> list[Run]:
        """Places of the chunks of the next block: where they are, or are to be put."""
        return self._planner.plan(block.chunks, block.is_uniform)

    def end_file(self, new_bytes: int) -> list[Revision]:
        """Learn all that there is to learn of a file that was read to its end, and of which ``new_bytes`` are new:
        it may be stored as it is. What is to be dropped.
        """
        self._has_news = False
        if self._has_more and self._is_worth_a_call(new_bytes):
            self._settle()
        revisions = [self._planner.revise(whole_xorb=False)] if self._has_news else []
        revisions.append(self._planner.drop_guarded())
        return [revision for revision in revisions if revision is not None]

    def stored_file(self, file: FileInfo, new_bytes: int) -> Reconstruction | None:
        """A file as it is stored, with its chunk hashes; None if it is not, or the answers have told all of it, or the
        question takes longer than sending what is new of it, or the answer much memory.

        They have not told all where nothing is new but what is stored again on purpose.
        """
        cas = self._cas
        if cas is None or not self._asks or file.size > RECOGNISED_BYTES:
            return None
        tells_chunks = not cas.is_remote or self._planner.queries.most_at_once > 1  # servers of ours do
        is_likely = new_bytes == self.again_bytes or (self._has_more and tells_chunks)
        if not is_likely or not self._is_worth_a_call(new_bytes):
            return None
        try:
            stored = cas.reconstruct(file.hash, hashes=True)
        except (NotFoundError, DamagedError):
            return None
        except (AccessDeniedError, InterruptedCallError):
            raise
        except XetError:
            if not cas.is_remote:
                raise
            return None
        return stored if stored.term_hashes is not None else None

    def withdraw_file(self) -> Revision | None:
        """Drop all that this file has brought to the xorb that is being filled: it is stored as it is."""
        return self._planner.withdraw_file()

    @property
    def again_bytes(self) -> int:
        """Bytes of this file that are stored again only because it would become fragmented (10.4)."""
        return self._planner.again_bytes

    def last_revision(self) -> Revision | None:
        """Drop from the open xorb, before it is cut short, all that is stored already."""
        self._settle()
        return self._planner.revise(whole_xorb=True)

    def close_xorb(self) -> None:
        """Let new chunks go to a fresh xorb: the open one is being cut short."""
        self._planner.close_xorb()

    def forget(self) -> None:
        """Start anew, and believe from now on only what this session has stored itself."""
        self._planner = self._new_planner()
        self._known = None
        self.close()
        self._background = self._direct = None

    @property
    def questions(self) -> int:
        """The number of questions that were asked and waited for, one by one."""
        return 0 if self._direct is None else self._direct.count

    def close(self) -> None:
        """Ask no more."""
        if self._background is not None:
            self._background.close()

    @property
    def _asks(self) -> bool:
        return self._background is not None or self._direct is not None

    def _ask(self, chunks: ChunkList) -> None:
        if self._direct is not None and not self._is_ahead:
            for question in self._planner.questions(chunks):
                self._learn(self._direct.answers(question, self._size))
                self._planner.queries = self._direct.rule
        if self._background is None:
            return
        self._questions += self._planner.worth_asking(chunks)
        self._unasked_bytes += chunks.total_bytes
        most = self._planner.queries.most_at_once
        if most == 1 or self._unasked_bytes >= QUERY_SPACING_BYTES or len(self._questions) >= most:
            self._send_questions()

    def _send_questions(self) -> None:
        if self._background is not None and self._questions:
            self._background.ask(self._questions)
            self._questions, self._unasked_bytes = [], 0

    def _settle(self) -> None:
        """Ask all that is worth asking about the xorb that is being filled, and wait for the answers."""
        if self._background is None:
            return
        sending_seconds = self._sending_seconds(self._planner.filled_bytes)
        self._send_questions()
        self._learn(self._background.answers(sending_seconds))
        if self._take_rule():
            self._send_questions()
            self._learn(self._background.answers(sending_seconds))

    def _take_rule(self) -> bool:
        """Ask by the rule of the server as it is now. True if there is more to ask for now."""
        if self._background is None or self._background.rule == self._planner.queries:
            return False
        self._planner.queries = self._background.rule
        self._questions += self._planner.worth_asking_again()
        return bool(self._questions)

    def _is_worth_a_call(self, nbytes: int) -> bool:
        """True if sending ``nbytes`` takes longer than a question, as far as that is known."""
        seconds = self._sending_seconds(nbytes)
        return self._background is None or not seconds or seconds > self._background.seconds

    def _learn(self, answers: list[Shard]) -> bool:
        """Take in answers. True if they told of a xorb that was not known."""
        is_news = False
        for answer in answers:
            is_news |= self._planner.learn(answer)
            self._has_more |= len(answer.xorbs) >= LONG_ANSWER_XORBS
        self._has_news |= is_news
        return is_news

    def _remember(self, answer: Shard) -> None:
        if self._remembering is not None:
            self._remembering.learn(answer)
