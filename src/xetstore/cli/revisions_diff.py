"""``xet diff`` of two revisions: the files that differ, then the bytes and chunks of the large ones among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from xetstore.cli.context import Settings
from xetstore.cli.names import escaped
from xetstore.cli.output import count_text
from xetstore.cli.places import Places, parse_locator, revision_of
from xetstore.errors import UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.repositories.differences import Difference
    from xetstore.transfer.compare.comparison import Comparison

DIFFERENT: Final = 1


def diff_revisions(settings: Settings, a: str, b: str) -> int:
    """Print what came, went and changed from A to B; 1 if there is anything."""
    old, new = parse_locator(a), parse_locator(b)
    if old.id != new.id or old.path != new.path:
        raise UsageError(
            "two revisions of the same repository and path are compared",
            hint="compare files of two repositories by their hashes, which xet ls prints",
        )
    before, after = revision_of(old), revision_of(new)
    output = settings.output
    shared = total = count = 0
    with Places(settings) as places:
        repository = places.repository(new)
        for difference in repository.diff(before, after, new.path):
            count += 1
            told = repository.compare(difference, before, after)
            total += difference.new.size if difference.new is not None else 0
            shared += told.shared_bytes if told is not None else 0
            if output.json:
                output.record(**_fields(difference, told))
            else:
                output.line(_line(difference, told))
    if output.json:
        output.record(equal=not count, files=count, bytes=total, shared_bytes=shared)
    elif not count:
        output.note("equal")
    else:
        output.note(
            f"{count_text(count, 'file')} differ, {size_text(total)} in the new revision, of which {size_text(shared)} "
            "were in the old ones"
        )
    return DIFFERENT if count else 0


def _line(difference: Difference, told: Comparison | None) -> str:
    old, new = difference.old, difference.new
    sizes = f"{old.size if old else '-'!s:>15}  {new.size if new else '-'!s:>15}"
    text = f"{difference.kind:8}{sizes}  {escaped(difference.path)}"
    if told is None:
        return text
    return f"{text}  {told.shared_chunks:,} of {told.new_chunks:,} chunks, {size_text(told.shared_bytes)} shared"


def _fields(difference: Difference, told: Comparison | None) -> dict[str, Any]:
    old, new = difference.old, difference.new
    fields: dict[str, Any] = {
        "path": difference.path,
        "kind": str(difference.kind),
        "old_size": None if old is None else old.size,
        "new_size": None if new is None else new.size,
        "old_hash": None if old is None or old.hash is None else str(old.hash),
        "new_hash": None if new is None or new.hash is None else str(new.hash),
    }
    if told is not None:
        fields |= {
            "old_chunks": told.old_chunks,
            "new_chunks": told.new_chunks,
            "shared_chunks": told.shared_chunks,
            "shared_bytes": told.shared_bytes,
            "equal_bytes": told.equal_bytes,
        }
    return fields
