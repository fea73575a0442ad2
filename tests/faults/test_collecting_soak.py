"""Twenty seconds of eight clients that upload, download, commit and delete, while a server collects every second."""

from __future__ import annotations

import pytest

from tests import soak_collecting


@pytest.mark.slow
def test_no_live_file_is_lost_and_all_space_comes_back() -> None:
    assert soak_collecting.run(20) == []
