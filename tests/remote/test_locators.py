"""Locators of a Hub: what is understood, what is refused, and the routes they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetstore.errors import UsageError
from xetstore.remote.hub.locators import HubLocator


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://models/ns/name@v1/a/b.bin", HubLocator("models", "ns/name", "v1", "a/b.bin")),
        ("hf://ns/name@v1/a/b.bin", HubLocator("models", "ns/name", "v1", "a/b.bin")),
        ("hf://ns/name/a/b.bin", HubLocator("models", "ns/name", "main", "a/b.bin")),
        ("hf://ns/name", HubLocator("models", "ns/name", "main", "")),
        ("hf://ns/name/", HubLocator("models", "ns/name", "main", "")),
        ("hf://ns/name/folder/", HubLocator("models", "ns/name", "main", "folder")),
        ("hf://datasets/ns/name/x.parquet", HubLocator("datasets", "ns/name", "main", "x.parquet")),
        ("hf://spaces/ns/name@main/app.py", HubLocator("spaces", "ns/name", "main", "app.py")),
        ("hf://buckets/ns/name/a/b@c.bin", HubLocator("buckets", "ns/name", None, "a/b@c.bin")),
        ("hf://buckets/ns/name", HubLocator("buckets", "ns/name", None, "")),
        ("hf://models/gpt2", HubLocator("models", "gpt2", "main", "")),
        ("hf://models/gpt2@main/config.json", HubLocator("models", "gpt2", "main", "config.json")),
        ("hf://models/gpt2@refs/pr/3/config.json", HubLocator("models", "gpt2", "refs/pr/3", "config.json")),
        ("hf://datasets/squad@main/x", HubLocator("datasets", "squad", "main", "x")),
        ("hf://ns/name@dev%2Fx/a", HubLocator("models", "ns/name", "dev/x", "a")),
        ("hf://ns/name@refs/pr/3/a", HubLocator("models", "ns/name", "refs/pr/3", "a")),
        ("hf://ns/name@refs%2Fpr%2F3/a", HubLocator("models", "ns/name", "refs/pr/3", "a")),
        ("hf://ns/name@refs/pr/3", HubLocator("models", "ns/name", "refs/pr/3", "")),
        (
            "hf://datasets/ns/name@refs/convert/parquet/default/train/0000.parquet",
            HubLocator("datasets", "ns/name", "refs/convert/parquet", "default/train/0000.parquet"),
        ),
        ("hf://ns/name@refs/pr/3x/a", HubLocator("models", "ns/name", "refs", "pr/3x/a")),
        ("hf://ns/name/a%20b", HubLocator("models", "ns/name", "main", "a%20b")),
    ],
)
def test_a_locator_is_understood(text: str, expected: HubLocator) -> None:
    assert HubLocator.parse(text) == expected
    assert HubLocator.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hf:/ns/name/x",
        "https://huggingface.co/ns/name",
        "hf://",
        "hf://gpt2",
        "hf://gpt2@main/config.json",
        "hf://models/",
        "hf://models/gpt2/",
        "hf://ns//x",
        "hf://ns/name//x",
        "hf://ns/name/a//b",
        "hf://ns/name/a/../b",
        "hf://ns/name/./b",
        "hf://../name/b",
        "hf://ns/name@/b",
        "hf://ns/name@main//b",
        "hf://ns/name@a%2F..%2Fb/c",
        "hf://ns/name@%0d%0aX/c",
        "hf://ns/name@%ff/c",
        "hf://ns/name/a\r\nb",
        "hf://ns/name/a\0b",
        "hf://ns/name/\ud800",
        "hf://ns/na me/a",
        "hf://ns/na?me/a",
        "hf://n:s/name/a",
        "hf://buckets/ns/name@main/a",
        "hf://buckets/name",
        "hf://ns/name/" + "x" * 5000,
        "hf://" + "n" * 97 + "/name/x",
    ],
)
def test_a_bad_locator_is_a_usage_error_that_says_what_to_do(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        HubLocator.parse(text)
    assert caught.value.hint or "longer" in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("kind", "revision"), [("kernels", "main"), ("models", None), ("buckets", "main"), ("models", "")]
)
def test_a_locator_that_is_made_by_hand_is_checked_too(kind: str, revision: str | None) -> None:
    with pytest.raises(UsageError):
        HubLocator(kind, "ns/name", revision, "x")


def test_the_routes_of_a_file_are_quoted() -> None:
    locator = HubLocator("models", "ns/name", "dev/x #1", "a b/ü?#%.bin")
    assert locator.resolve_route == "/ns/name/resolve/dev%2Fx%20%231/a%20b/%C3%BC%3F%23%25.bin"
    assert locator.token_route("read") == "/api/models/ns/name/xet-read-token/dev%2Fx%20%231"
    assert locator.tree_route == "/api/models/ns/name/tree/dev%2Fx%20%231/a%20b/%C3%BC%3F%23%25.bin"


def test_the_routes_of_each_kind_are_the_hubs() -> None:
    dataset = HubLocator.parse("hf://datasets/ns/name/x")
    assert dataset.resolve_route == "/datasets/ns/name/resolve/main/x"
    assert dataset.token_route("write") == "/api/datasets/ns/name/xet-write-token/main"
    bucket = HubLocator.parse("hf://buckets/ns/name/logs/x")
    assert bucket.resolve_route == "/buckets/ns/name/resolve/logs/x"
    assert bucket.token_route("write") == "/api/buckets/ns/name/xet-write-token"
    assert bucket.tree_route == "/api/buckets/ns/name/tree/logs%2Fx%2F"
    assert bucket.at("").tree_route == "/api/buckets/ns/name/tree"
    assert HubLocator.parse("hf://models/gpt2").tree_route == "/api/models/gpt2/tree/main"


_SEGMENTS = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1).filter(
    lambda segment: segment not in (".", "..")
)
_PATHS = st.lists(_SEGMENTS, max_size=4).map("/".join)
_NAMES = st.text("abcXYZ019_.-", min_size=1, max_size=20).filter(lambda name: name not in (".", ".."))


@given(st.sampled_from(["models", "datasets", "spaces"]), _NAMES, _NAMES, _PATHS.filter(bool), _PATHS)
def test_what_is_written_is_what_was_read(kind: str, namespace: str, name: str, revision: str, path: str) -> None:
    locator = HubLocator(kind, f"{namespace}/{name}", revision, path)
    assert HubLocator.parse(str(locator)) == locator
    assert locator.resolve_route.isascii()
    assert not set(locator.resolve_route) & set("?# ")


@given(st.text())
def test_any_text_is_a_locator_or_a_usage_error(text: str) -> None:
    for given_text in (text, f"hf://{text}", f"hf://ns/name@{text}", f"hf://buckets/ns/{text}"):
        try:
            locator = HubLocator.parse(given_text)
        except UsageError:
            continue
        assert HubLocator.parse(str(locator)) == locator
