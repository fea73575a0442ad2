"""The place of objects in an object store: its URL, the table [s3] of a store file, the variables AWS_*, checked."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from xetstore.blobs.presigned import Bucket, Credentials
from xetstore.errors import NotFoundError, UsageError

SCHEMES: Final = {"s3": "S3", "gs": "Google Cloud Storage", "az": "Azure Blob Storage"}

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_OPTIONS: Final[dict[str, type]] = {
    "endpoint": str,
    "public_endpoint": str,
    "region": str,
    "access_key_id": str,
    "secret_access_key": str,
    "session_token": str,
    "virtual_host": bool,
    "allow_http": bool,
    "ca_file": str,
}
_TRUE: Final = ("true", "1", "yes", "on")


@dataclass(frozen=True)
class BucketPlace:
    """A bucket of some store, the start of all keys in it (without a slash at its end), and how to ask for them.

    ``credentials`` is None where the store itself finds out who asks: by a role of the machine or the pod.
    """

    scheme: str
    bucket: str
    prefix: str
    region: str = "us-east-1"
    endpoint: str | None = None
    public_endpoint: str | None = None
    credentials: Credentials | None = None
    virtual_host: bool = False
    allow_http: bool = False
    certificates: str | None = field(default=None, repr=False)

    @classmethod
    def parse(
        cls, url: str, options: Mapping[str, object], environment: Mapping[str, str] | None = None
    ) -> BucketPlace:
        """The place that a URL names, with options of a store file, which come before the variables.

        Raises UsageError for a URL or an option that cannot be, NotFoundError where the file ``ca_file`` is missing.
        """
        scheme, bucket, prefix = _parts_of(url)
        if scheme != "s3":
            if options:
                raise UsageError(
                    f"{scheme}:// takes no options, and there are {', '.join(sorted(options))}",
                    hint=f"{SCHEMES[scheme]} is set up by its own environment variables",
                )
            return cls(scheme, bucket, prefix)
        _check(options)
        variables = os.environ if environment is None else environment
        chosen = {name: value for name, value in options.items() if isinstance(value, str)}
        endpoint = _endpoint("endpoint", _first(chosen, "endpoint", variables, _ENDPOINTS))
        public_endpoint = _endpoint("public_endpoint", chosen.get("public_endpoint"))
        allow_http = options.get("allow_http", variables.get("AWS_ALLOW_HTTP", "").lower() in _TRUE) is True
        host = options.get("virtual_host", variables.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() in _TRUE)
        for name, named in (("endpoint", endpoint), ("public_endpoint", public_endpoint)):
            if named is not None and not allow_http:
                _require_private(name, named)
        return cls(
            scheme,
            bucket,
            prefix,
            region=_first(chosen, "region", variables, ("AWS_REGION", "AWS_DEFAULT_REGION")) or "us-east-1",
            endpoint=endpoint,
            public_endpoint=public_endpoint,
            credentials=_credentials(chosen, variables),
            virtual_host=host is True,
            allow_http=allow_http or (endpoint or "").startswith("http:"),
            certificates=_certificates(chosen.get("ca_file")),
        )

    @property
    def url(self) -> str:
        """The URL that it was made of, which is all that errors and logs say of it."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    def signing(self, endpoint: str | None = None) -> Bucket | None:
        """The bucket at some endpoint, for signed requests of ours. None without credentials to sign with."""
        if self.scheme != "s3" or self.credentials is None:
            return None
        endpoint = endpoint or self.endpoint
        if endpoint is None and self.virtual_host:
            endpoint = f"https://{self.bucket}.s3.{self.region}.amazonaws.com"
        # An endpoint of a store that wants the bucket in the name of the host has it there already.
        endpoint = endpoint or f"https://s3.{self.region}.amazonaws.com"
        url = endpoint if self.virtual_host else f"{endpoint}/{self.bucket}"
        return Bucket(url, self.region, self.credentials)


_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def _parts_of(url: str) -> tuple[str, str, str]:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        wanted = ", ".join(f"{name}://" for name in SCHEMES)
        raise UsageError(f"{_shown(url)} is no URL of an object store", hint=f"it starts with one of {wanted}")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(
            f"{_shown(url)} has no name of a bucket", hint=f"as in {scheme}://bucket/prefix; keys belong into [s3]"
        )
    if prefix and not _PREFIX.fullmatch(prefix):
        raise UsageError(
            f"the prefix of {_shown(url)} is none",
            hint="segments of letters, digits, dots, lines and underscores, with slashes between them",
        )
    return scheme, bucket, prefix


def _shown(url: str) -> str:
    """A URL without what may be a secret in it."""
    return repr(re.sub(r"//[^/@]*@", "//…@", url)[:100])


def _check(options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if name not in _OPTIONS:
            near = difflib.get_close_matches(name, _OPTIONS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_OPTIONS)}"
            raise UsageError(f"[s3] has no option {name[:80]!r}", hint=hint)
        if not isinstance(value, _OPTIONS[name]) or value == "":
            wanted = "true or false" if _OPTIONS[name] is bool else "a text that is not empty"
            raise UsageError(f"{name} of [s3] is not {wanted}")


def _first(chosen: Mapping[str, str], name: str, variables: Mapping[str, str], others: tuple[str, ...]) -> str | None:
    return chosen.get(name) or next((variables[other] for other in others if variables.get(other)), None)


def _endpoint(name: str, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    is_bare = parts.username is None and not parts.query and not parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_bare:
        raise UsageError(f"{name} {_shown(text)} is not an http or https URL", hint="as in https://s3.example.org")
    return text.rstrip("/")


def _require_private(name: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" or _is_loopback(parts.hostname or ""):
        return
    raise UsageError(
        f"the {name} {url} is more than this machine, and has no TLS",
        hint="use https, or set allow_http (AWS_ALLOW_HTTP=true) where the network is trusted",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _credentials(chosen: Mapping[str, str], variables: Mapping[str, str]) -> Credentials | None:
    """Both keys from one source: those of two do not belong together."""
    names = ("access_key_id", "secret_access_key", "session_token")
    if any(name in chosen for name in names):
        keys, source = [chosen.get(name) for name in names], "[s3]"
    else:
        keys, source = [variables.get(f"AWS_{name.upper()}") or None for name in names], "the environment"
    access_key, secret_key, token = keys
    if access_key is None and secret_key is None:
        return None
    if access_key is None or secret_key is None:
        raise UsageError(f"{source} has one of access_key_id and secret_access_key, and not the other")
    return Credentials(access_key, secret_key, token)


def _certificates(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        return Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"{file}, the ca_file of [s3], does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}, the ca_file of [s3], cannot be read: {error}") from error
