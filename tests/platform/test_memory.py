"""Memory that is used again: never while there is a view of it."""

from __future__ import annotations

from xetstore.platform.memory import SPARE_BYTES, spare_memory


def test_memory_with_a_view_is_not_given_a_second_time() -> None:
    views = [spare_memory(1000) for _ in range(12)]
    for number, view in enumerate(views):
        view[:] = bytes([number]) * 1000
    assert [bytes(view) for view in views] == [bytes([number]) * 1000 for number in range(12)]


def test_a_part_of_a_view_keeps_its_memory() -> None:
    parts = [spare_memory(1000)[:10] for _ in range(12)]
    assert len({id(part.obj) for part in parts}) == 12


def test_memory_is_used_again_once_no_view_is_left() -> None:
    blocks = {id(spare_memory(SPARE_BYTES).obj) for _ in range(12)}
    assert len(blocks) <= 4


def test_more_than_a_block_is_memory_of_its_own() -> None:
    view = spare_memory(SPARE_BYTES + 1)
    assert len(view) == SPARE_BYTES + 1
    assert spare_memory(1).obj is not view.obj
