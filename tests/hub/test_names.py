"""Names: those that the Hub gives its accounts and repositories are names here, what a path could mistake is none."""

from __future__ import annotations

import pytest

from xetstore.errors import UsageError
from xetstore.hub.names import Kind, RepositoryName


@pytest.mark.parametrize("name", ["julien-c", "DVUser", "__DUMMY_HUB_USER__", "a", "0x_", "x" * 96])
def test_a_name_of_the_hub_is_a_name(name: str) -> None:
    assert RepositoryName.parse(f"{name}/{name}", Kind.DATASETS).path == f"datasets/{name}/{name}"


@pytest.mark.parametrize("name", ["", "-a", ".a", "a-", "a.", "a--b", "a..b", "a b", "ä", "a/b", "a\n", "x" * 97])
def test_what_is_no_name_of_the_hub_is_none(name: str) -> None:
    with pytest.raises(UsageError):
        RepositoryName.parse(f"alice/{name}", Kind.MODELS)
