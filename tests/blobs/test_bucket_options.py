"""Where objects are, and how they are asked for: URLs, options and variables that can be, and those that cannot."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from xetstore.blobs.bucket import BucketBlobStore
from xetstore.blobs.bucket_options import _OPTIONS, BucketPlace
from xetstore.errors import NotFoundError, UsageError
from xetstore.extras import install_hint

KEYS = {"access_key_id": "the-access-key", "secret_access_key": "the-secret"}
VARIABLES = {"AWS_ACCESS_KEY_ID": "env-key", "AWS_SECRET_ACCESS_KEY": "env-secret", "AWS_SESSION_TOKEN": "env-token"}


def parse(url: str = "s3://bucket/prefix", variables: dict[str, str] | None = None, **options: Any) -> BucketPlace:
    return BucketPlace.parse(url, options, variables or {})


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://my.own-bucket/a", "my.own-bucket", "a"),
        ("s3://bucket/Some/prefix_2.x/", "bucket", "Some/prefix_2.x"),
        ("gs://bucket/a", "bucket", "a"),
        ("az://container/a", "container", "a"),
    ],
)
def test_a_url_names_a_bucket_and_a_prefix(url: str, bucket: str, prefix: str) -> None:
    place = parse(url)
    assert (place.bucket, place.prefix) == (bucket, prefix)
    assert place.url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        *("", "bucket", "/a/folder", "https://bucket/a", "S3://bucket", "s3:/bucket", "s3://", "s3:///a", "s3://ab"),
        *("s3://key:word@bucket/a", "s3://bucket:80/a", "s3://bucket/a//b", "s3://bucket/../a", "s3://bucket/.a"),
        *("s3://bucket/a b", "s3://bucket/a?b=c", "s3://bucket/a#b", "s3://bucket/ä", "s3://-bucket/a"),
    ],
)
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(url)
    assert caught.value.hint
    assert "word" not in str(caught.value)


def test_options_come_before_variables_and_keys_of_both_are_not_mixed() -> None:
    variables = {**VARIABLES, "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "https://one.example"}
    place = parse(variables=variables)
    assert (place.region, place.endpoint) == ("eu-west-1", "https://one.example")
    assert place.credentials is not None
    assert (place.credentials.access_key, place.credentials.token) == ("env-key", "env-token")
    place = parse(variables=variables, **KEYS, region="eu-west-2", endpoint="https://two.example/")
    assert (place.region, place.endpoint) == ("eu-west-2", "https://two.example")
    assert place.credentials is not None
    assert (place.credentials.access_key, place.credentials.token) == ("the-access-key", None)
    special = {**variables, "AWS_ENDPOINT_URL_S3": "https://three.example"}
    assert parse(variables=special).endpoint == "https://three.example"
    assert parse().credentials is None


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"acces_key_id": "x"}, "acces_key_id", "did you mean access_key_id?"),
        ({"key": "x"}, "key", "endpoint"),
        ({"region": 5}, "region", None),
        ({"region": ""}, "region", None),
        ({"allow_http": "yes"}, "allow_http", None),
        ({"endpoint": "s3.example.org"}, "endpoint", "https://"),
        ({"endpoint": "ftp://s3.example.org"}, "endpoint", "https://"),
        ({"endpoint": "https://user:word@s3.example.org"}, "endpoint", "https://"),
        ({"endpoint": "https://s3.example.org:port"}, "endpoint", "https://"),
        ({"public_endpoint": "s3.example.org"}, "public_endpoint", "https://"),
        ({"endpoint": "http://s3.example.org"}, "no TLS", "allow_http"),
        ({"endpoint": "http://10.0.0.1:9000"}, "no TLS", "allow_http"),
        ({"public_endpoint": "http://s3.example.org"}, "no TLS", "allow_http"),
        ({"access_key_id": "x"}, "secret_access_key", None),
        ({"session_token": "x", "secret_access_key": "word"}, "access_key_id", None),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], said: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse(variables=VARIABLES, **options)
    assert said in str(caught.value) or said in str(caught.value.hint)
    assert hint is None or hint in (caught.value.hint or "")
    assert "word" not in f"{caught.value}{caught.value.hint}"


def test_half_of_the_keys_in_the_environment_are_refused() -> None:
    with pytest.raises(UsageError, match="environment"):
        parse(variables={"AWS_ACCESS_KEY_ID": "x"})


@pytest.mark.parametrize(
    "place",
    [
        {"endpoint": "http://127.0.0.1:9000"},
        {"endpoint": "http://localhost:9000"},
        {"endpoint": "http://[::1]:9000"},
        {"endpoint": "http://s3.example.org", "allow_http": True},
        {"endpoint": "http://s3.example.org", "variables": {"AWS_ALLOW_HTTP": "true"}},
    ],
)
def test_plain_http_is_for_this_machine_or_where_it_is_allowed(place: dict[str, Any]) -> None:
    assert parse(**place).allow_http


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_other_stores_take_no_options(scheme: str) -> None:
    with pytest.raises(UsageError, match="region"):
        parse(f"{scheme}://bucket/a", region="x")


def test_certificates_are_read_from_a_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="ca_file"):
        parse(ca_file=str(tmp_path / "none.pem"))
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    assert parse(ca_file=str(tmp_path / "ca.pem")).certificates == "-----BEGIN CERTIFICATE-----"


def test_no_secret_is_in_a_repr() -> None:
    options = {**KEYS, "session_token": "the-token", "endpoint": "https://s3.example.org"}
    blobs = BucketBlobStore.open("s3://bucket/prefix", options)
    place = blobs.place
    shown = f"{blobs!r} {blobs} {place!r} {place.credentials!r} {place.signing()!r}"
    assert "s3://bucket/prefix" in shown
    for secret in ("the-access-key", "the-secret", "the-token"):
        assert secret not in shown


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_store_of_each_kind_can_be_opened(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert repr(BucketBlobStore.open(f"{scheme}://bucket/a")) == f"BucketBlobStore('{scheme}://bucket/a')"


def test_urls_are_signed_for_the_host_that_is_asked() -> None:
    def url(**options: Any) -> str:
        signing = parse(**{**KEYS, **options}).signing()
        assert signing is not None
        return signing.url

    assert url(region="eu-west-1") == "https://s3.eu-west-1.amazonaws.com/bucket"
    assert url(region="eu-west-1", virtual_host=True) == "https://bucket.s3.eu-west-1.amazonaws.com"
    assert url(endpoint="https://s3.example.org") == "https://s3.example.org/bucket"
    assert url(endpoint="https://bucket.example.org", virtual_host=True) == "https://bucket.example.org"


def test_a_missing_driver_is_named_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(UsageError, match="obstore") as caught:
        BucketBlobStore.open("s3://bucket/a")
    assert caught.value.hint == install_hint("s3")


def test_a_store_that_is_not_in_a_bucket_does_not_load_the_driver(tmp_path: Path) -> None:
    program = (
        "import sys, xetstore, xetstore.blobs.bucket, xetstore.blobs.direct\n"
        "xetstore.open(sys.argv[1]).close()\n"
        "assert not [name for name in sys.modules if name.startswith('obstore')]\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "store")], check=True, timeout=60)


def test_every_option_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "server.md").read_text()
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]+)\|[^|]*\|[^|]*\|$", text, flags=re.MULTILINE)))
    assert [name for name in _OPTIONS if name not in named] == []
