"""The suite: the draft's constants, and no suite that could not work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.strategies import TINY_SUITE
from xetstore import _kernel
from xetstore.protocol import suite as constants
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3


def test_the_constants_are_those_of_the_draft() -> None:
    suite = XET_GEARHASH_BLAKE3
    assert suite.target_chunk_bytes == 64 * 1024
    assert suite.min_chunk_bytes == suite.target_chunk_bytes // 8
    assert suite.max_chunk_bytes == suite.target_chunk_bytes * 2
    assert suite.cut_mask == 0xFFFF << 48
    assert suite.max_children == 9
    assert suite.max_xorb_bytes == 64 * 1024 * 1024
    assert suite.max_xorb_chunks == 8192
    assert suite.dedup_modulus == 1024


def test_the_gear_table_has_256_different_64_bit_constants() -> None:
    table = XET_GEARHASH_BLAKE3.gear_table
    assert len(set(table)) == 256
    assert all(0 <= constant < 1 << 64 for constant in table)
    # First, second and last line of the table in appendix A.
    assert table[0] == 0xB088D3A9E840F559
    assert table[17] == 0x00005082119EA468


def test_the_four_keys_differ() -> None:
    suite = XET_GEARHASH_BLAKE3
    assert len({suite.data_key, suite.node_key, suite.file_key, suite.verification_key}) == 4


def test_a_body_may_be_longer_than_64_mib_by_its_headers() -> None:
    assert XET_GEARHASH_BLAKE3.max_xorb_body_bytes == 67_174_400


def test_the_shard_tag_is_32_bytes() -> None:
    assert len(constants.SHARD_TAG) == 32
    assert len(constants.SHARD_BOOKEND) == constants.SHARD_RECORD_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"gear_table": (1,) * 255},
        {"data_key": bytes(31)},
        {"file_key": bytes(33)},
        {"min_chunk_bytes": 63},
        {"min_chunk_bytes": 70_000},
        {"max_chunk_bytes": 60_000},
    ],
)
def test_a_suite_that_cannot_work_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(XET_GEARHASH_BLAKE3, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"gear_table": bytes(2047)},
        {"data_key": bytes(31)},
        {"node_key": b""},
        {"min_chunk_bytes": 63},
        {"min_chunk_bytes": 131_073},
        {"max_chunk_bytes": 1 << 24},
        {"cut_mask": 0},
        {"mean_branching": 0},
        {"max_xorb_chunks": 0},
    ],
)
def test_the_kernel_refuses_such_a_suite_by_itself(change: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "gear_table": bytes(2048),
        "min_chunk_bytes": 8192,
        "max_chunk_bytes": 131_072,
        "cut_mask": 1,
        "data_key": bytes(32),
        "node_key": bytes(32),
        "mean_branching": 4,
        "max_xorb_body_bytes": 1 << 26,
        "max_xorb_chunks": 8192,
    }
    _kernel.Suite(**fields)
    with pytest.raises(ValueError):
        _kernel.Suite(**(fields | change))


def test_suites_with_other_numbers_cut_otherwise() -> None:
    data = bytes(1000)
    assert len(_kernel.find_cuts(TINY_SUITE.kernel, data, final=True)) == 2 * 8
    assert len(_kernel.find_cuts(XET_GEARHASH_BLAKE3.kernel, data, final=True)) == 1 * 8
