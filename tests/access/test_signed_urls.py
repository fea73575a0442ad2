"""Signed URLs: one path, the ranges signed and no others, until the second signed and no longer."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetstore.access.keys import Algorithm, KeyKind, KeyRing
from xetstore.access.signed_urls import SignedGrant, UrlSigner
from xetstore.errors import ForbiddenError, UnavailableError, UsageError
from xetstore.testing import FakeClock

PATH = "/v1/xorbs/default/" + "ab" * 32
RANGES = [(0, 1000), (5000, 6001), (70_000, 1 << 26)]
NOW = 1_750_000_000
END = NOW + 900


@pytest.fixture
def keys(tmp_path: Path, clock: FakeClock) -> KeyRing:
    return KeyRing.open(tmp_path / "access", clock=clock)


@pytest.fixture
def signer(keys: KeyRing) -> UrlSigner:
    return UrlSigner(keys)


@pytest.fixture
def query(signer: UrlSigner) -> str:
    return signer.sign(PATH, RANGES, expires_at=END)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> UrlSigner:
    """For properties, which are tried many times with one signer."""
    return UrlSigner(KeyRing.open(tmp_path_factory.mktemp("store") / "access"), clock=lambda: NOW)


def refused(signer: UrlSigner, query: str, match: str = "not signed", *, method: str = "GET", path: str = PATH) -> None:
    with pytest.raises(ForbiddenError, match=match) as caught:
        signer.verify(method, path, query)
    assert not query or query not in "".join(traceback.format_exception(caught.value))


# What a URL says and allows


def test_a_url_allows_what_was_signed(signer: UrlSigner, query: str) -> None:
    for method in ("GET", "HEAD"):
        assert signer.verify(method, PATH, query) == SignedGrant(tuple(RANGES), END)


def test_a_url_names_its_ranges_as_http_does(keys: KeyRing, query: str) -> None:
    assert {name: values for name, values in parse_qs(query).items() if name != "X-Xet-Signature"} == {
        "X-Xet-Signed-Range": ["bytes=0-999,5000-6000,70000-67108863"],
        "X-Xet-Expires": [str(END)],
        "X-Xet-Key-Id": [keys.signing_key(KeyKind.URL).kid],
    }
    assert query.startswith("X-Xet-Signed-Range=bytes%3D0-999%2C5000-6000%2C")


def test_ranges_are_merged_and_put_in_order(signer: UrlSigner) -> None:
    query = signer.sign(PATH, [(30, 40), (0, 10), (10, 20), (15, 25), (30, 31)], expires_at=END)
    assert signer.verify("GET", PATH, query).ranges == ((0, 25), (30, 40))


def test_a_grant_covers_what_lies_in_one_of_its_ranges() -> None:
    grant = SignedGrant(((10, 20), (30, 40)), END)
    for start, end in ((10, 20), (10, 11), (19, 20), (12, 15), (30, 40), (39, 40)):
        assert grant.covers(start, end), (start, end)
    for start, end in ((9, 20), (10, 21), (20, 21), (15, 35), (10, 40), (0, 50), (40, 41), (12, 12), (15, 12), (-5, 5)):
        assert not grant.covers(start, end), (start, end)


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), min_size=1, max_size=8),
    st.integers(0, 400),
    st.integers(0, 80),
)
def test_a_url_covers_exactly_the_bytes_signed(
    shared: UrlSigner, spans: list[tuple[int, int]], start: int, length: int
) -> None:
    ranges = [(first, first + count) for first, count in spans]
    grant = shared.verify("GET", PATH, shared.sign(PATH, ranges, expires_at=END))
    allowed = {byte for first, stop in ranges for byte in range(first, stop)}
    assert {byte for first, stop in grant.ranges for byte in range(first, stop)} == allowed
    asked = set(range(start, start + length))
    assert grant.covers(start, start + length) is (bool(asked) and asked <= allowed)


@pytest.mark.parametrize("ranges", [[], [(0, 0)], [(5, 4)], [(-1, 4)], [(0, 5), (9, 9)], [(0, 10**16)]])
def test_no_range_or_an_empty_one_cannot_be_signed(signer: UrlSigner, ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(UsageError):
        signer.sign(PATH, ranges, expires_at=END)


@pytest.mark.parametrize("path", ["", "v1/xorbs", "/a b", "/a\nb", "/a?b", "/a%2fb", "/ä", "/a#b", "/a\0", PATH + "\n"])
def test_a_path_that_can_be_spelt_in_two_ways_cannot_be_signed(signer: UrlSigner, query: str, path: str) -> None:
    with pytest.raises(UsageError):
        signer.sign(path, RANGES, expires_at=END)
    refused(signer, query, path=path)


@pytest.mark.parametrize("expires_at", [-1, 10**15])
def test_a_time_that_cannot_be_is_not_signed(signer: UrlSigner, expires_at: int) -> None:
    with pytest.raises(UsageError):
        signer.sign(PATH, RANGES, expires_at=expires_at)


# Time and keys


def test_a_url_ends_on_the_second_it_says(signer: UrlSigner, query: str, clock: FakeClock) -> None:
    clock.advance(899)
    signer.verify("GET", PATH, query)
    clock.advance(1)
    refused(signer, query, "expired")


def test_a_url_ends_with_its_key(signer: UrlSigner, keys: KeyRing, query: str, clock: FakeClock) -> None:
    keys.rotate(KeyKind.URL, overlap_seconds=60)
    clock.advance(59)
    signer.verify("GET", PATH, query)
    signer.verify("GET", PATH, signer.sign(PATH, RANGES, expires_at=END))
    clock.advance(1)
    refused(signer, query)


def test_a_url_of_another_store_is_refused(query: str, tmp_path: Path, clock: FakeClock) -> None:
    refused(UrlSigner(KeyRing.open(tmp_path / "other", clock=clock)), query)


def test_a_key_for_tokens_signs_no_urls(signer: UrlSigner, keys: KeyRing, query: str) -> None:
    token_key = keys.rotate(KeyKind.TOKEN, Algorithm.HS256)
    refused(signer, query.replace(keys.signing_key(KeyKind.URL).kid, token_key.kid))


def test_without_keys_nothing_is_allowed(signer: UrlSigner, tmp_path: Path, query: str) -> None:
    (tmp_path / "access" / "keys.json").unlink()
    with pytest.raises(UnavailableError):
        signer.verify("GET", PATH, query)
    with pytest.raises(UnavailableError):
        signer.sign(PATH, RANGES, expires_at=END)


# Tampering


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "GET ", ""])
def test_a_url_is_for_no_other_method(signer: UrlSigner, query: str, method: str) -> None:
    refused(signer, query, "GET and HEAD", method=method)


@pytest.mark.parametrize(
    "path", ["/v1/xorbs/default/" + "ab" * 31 + "ac", PATH + "/", "/" + PATH, PATH.upper(), PATH[3:], "/"]
)
def test_a_url_is_for_no_other_path(signer: UrlSigner, query: str, path: str) -> None:
    refused(signer, query, path=path)


def allows_no_more(signer: UrlSigner, query: str, ranges: list[tuple[int, int]] = RANGES, end: int = END) -> bool:
    """Whether a query is refused, or else means exactly what was signed."""
    try:
        return signer.verify("GET", PATH, query) == SignedGrant(tuple(ranges), end)
    except ForbiddenError:
        return True


def test_no_changed_character_allows_more(signer: UrlSigner, query: str) -> None:
    """Only another spelling of the same value passes: %3D may be %3d."""
    passed = set()
    for i, character in enumerate(query):
        for other in {chr(ord(character) ^ 1 << bit) for bit in range(7)} | set("0189=&%+,-;\n\0ä\udc80"):
            changed = query[:i] + other + query[i + 1 :]
            assert allows_no_more(signer, changed), changed
            try:
                signer.verify("GET", PATH, changed)
            except ForbiddenError:
                continue
            if changed != query:
                passed.add(changed)
    assert all(unquote(changed) == unquote(query) for changed in passed)


def test_no_left_out_or_added_character_allows_more(signer: UrlSigner, query: str) -> None:
    for i in range(len(query)):
        refused(signer, query[:i])
        assert allows_no_more(signer, query[:i] + query[i + 1 :])
        for other in "0&=,%":
            assert allows_no_more(signer, query[:i] + other + query[i:])


@pytest.mark.parametrize("name", ["X-Xet-Signed-Range", "X-Xet-Expires", "X-Xet-Key-Id", "X-Xet-Signature"])
def test_a_parameter_is_there_once(signer: UrlSigner, query: str, name: str) -> None:
    [own] = [part for part in query.split("&") if part.startswith(name)]
    others = [part for part in query.split("&") if part != own]
    value = own.split("=")[1]
    for parts in (
        others,
        [*others, own, own],
        [own, *others, f"{name}=bytes%3D0-99999999"],
        [f"{name}=bytes%3D0-99999999", own, *others],
        [*others, f"{name}="],
        [*others, name],
        [*others, f"{name.lower()}={value}"],
        [*others, f"{name}[]={value}"],
        [*others, own, "x=1"],
        [*others, own, ""],
    ):
        refused(signer, "&".join(parts))
    signer.verify("GET", PATH, "&".join([*others, own]))  # in another order they mean the same


def test_ranges_in_another_order_or_form_are_refused(signer: UrlSigner, query: str) -> None:
    signed = "bytes%3D0-999%2C5000-6000%2C70000-67108863"
    assert signed in query
    for other in (
        "bytes=5000-6000,0-999,70000-67108863",
        "bytes=0-999,5000-6000",
        "bytes=0-999,5000-6000,70000-",
        "bytes=0-999,5000-6000,70000-67108863,",
        "bytes= 0-999,5000-6000,70000-67108863",
        "bytes=00-999,5000-6000,70000-67108863",
        "bytes=0-6000,70000-67108863",
        "bytes=-500",
        "bytes=",
        "",
        "0-999,5000-6000,70000-67108863",
        "bytes=0-999,5000-6000,70000-67108863\n",
    ):
        refused(signer, query.replace(signed, quote(other)))


@pytest.mark.parametrize(
    "expires", ["", "0", str(END + 1), f"0{END}", f"+{END}", f"{END}.0", f"{END}e1", "9" * 400, "-1"]
)
def test_another_expiry_is_refused(signer: UrlSigner, query: str, expires: str) -> None:
    refused(signer, query.replace(str(END), expires))


def test_fields_cannot_flow_into_each_other(signer: UrlSigner, keys: KeyRing, query: str) -> None:
    """What is signed is lines of text: a line break in a value must not make two claims one text."""
    kid = keys.signing_key(KeyKind.URL).kid
    signature = query.rpartition("=")[2]
    for ranges, expires, key in (
        (f"bytes=0-999,5000-6000,70000-67108863\n{kid}", str(END), kid),
        ("bytes=0-999", f"{END}\nbytes=0-999", kid),
        ("bytes=0-999,5000-6000,70000-67108863", str(END), f"{kid}\n"),
    ):
        fields = {"Signed-Range": ranges, "Expires": expires, "Key-Id": key, "Signature": signature}
        refused(signer, "&".join(f"X-Xet-{name}={quote(value)}" for name, value in fields.items()))


@pytest.mark.parametrize("signature", ["", "A" * 43, "A" * 44, "0" * 64, "%FF", "ä"])
def test_another_signature_is_refused(signer: UrlSigner, query: str, signature: str) -> None:
    refused(signer, query.rpartition("=")[0] + "=" + signature)


@given(st.text(max_size=300))
def test_any_text_is_a_query_of_ours_or_refused(shared: UrlSigner, text: str) -> None:
    with pytest.raises(ForbiddenError):
        shared.verify("GET", PATH, text)


@given(
    st.tuples(st.integers(0, 999), st.integers(1, 999)),
    st.tuples(st.integers(0, 999), st.integers(1, 999)),
    st.integers(NOW + 1, NOW + 999),
    st.integers(NOW + 1, NOW + 999),
)
def test_a_signature_fits_one_claim_only(
    shared: UrlSigner, one: tuple[int, int], two: tuple[int, int], end: int, other_end: int
) -> None:
    first = shared.sign(PATH, [(one[0], sum(one))], expires_at=end)
    second = shared.sign(PATH, [(two[0], sum(two))], expires_at=other_end)
    if (one, end) != (two, other_end):
        mixed = second.rpartition("=")[0] + "=" + first.rpartition("=")[2]
        with pytest.raises(ForbiddenError):
            shared.verify("GET", PATH, mixed)


# Secrets


def test_no_secret_or_signature_is_in_a_repr_an_error_or_a_log_line(
    signer: UrlSigner, keys: KeyRing, query: str, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = [repr(signer), str(signer), repr(vars(signer)), repr(signer.verify("GET", PATH, query))]
    clock.advance(900)
    for bad in (query, query + "x", query[:-1]):
        try:
            signer.verify("GET", PATH, bad)
        except ForbiddenError as error:
            texts += traceback.format_exception(error)
            texts.append(str(error.hint))
    told = "".join(texts) + caplog.text
    for hidden in (query.rpartition("=")[2], repr(keys.signing_key(KeyKind.URL).secret)[2:-1]):
        assert hidden not in told


# Calls: one method at one path, which says all of it


CALL = "/api/lfs/7/" + "ab" * 32 + "/1000"


@pytest.mark.parametrize(
    ("method", "path", "change"),
    [
        ("GET", CALL, ""),
        ("POST", CALL, ""),
        ("PUT", CALL + "0", ""),
        ("PUT", CALL, "&X-Xet-Expires=9"),
        ("PUT", CALL, "&more=1"),
    ],
)
def test_a_call_is_as_it_was_signed(signer: UrlSigner, method: str, path: str, change: str) -> None:
    query = signer.sign_call("PUT", CALL, expires_at=END)
    signer.verify_call("PUT", CALL, query)
    with pytest.raises(ForbiddenError, match="not signed"):
        signer.verify_call(method, path, query + change)


def test_a_call_ends_and_is_nothing_that_reads_ranges(signer: UrlSigner, clock: FakeClock, query: str) -> None:
    call = signer.sign_call("GET", PATH, expires_at=END)
    refused(signer, call)
    with pytest.raises(ForbiddenError, match="not signed"):
        signer.verify_call("GET", PATH, query)
    clock.advance(END - NOW)
    with pytest.raises(ForbiddenError, match="expired"):
        signer.verify_call("GET", PATH, call)
