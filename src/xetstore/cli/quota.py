"""``xet quota``: what namespaces, repositories and owners may have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, store_options
from xetstore.cli.help import Group
from xetstore.cli.network import parse_bytes
from xetstore.cli.parsed import Parsed
from xetstore.errors import UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.cas.index.queries.quotas import Quota
    from xetstore.cas.service import EmbeddedCas


@click.group(cls=Group, epilog="Example: xet quota set alice/bert --bytes 10GB")
@store_options
def quota() -> None:
    """Limit what namespaces, repositories and owners may have."""


@quota.command("set", epilog="Example: xet quota set alice/bert --bytes 10GB")
@click.argument("namespace")
@click.option("--bytes", "max_bytes", type=Parsed(parse_bytes), metavar="SIZE", help="The most bytes of files: 10GB.")
@click.option("--files", "max_files", type=click.IntRange(0), metavar="N", help="The most files.")
@store_options
@click.pass_obj
def set_(settings: Settings, namespace: str, max_bytes: int | None, max_files: int | None) -> None:
    """Limit the files of a namespace or a repository (alice/bert), or of all repositories of an owner (alice).

    What is left out has no limit. More than that may be there: then nothing is added until there is room again.
    """
    from xetstore.hub.quotas import set_quota

    if max_bytes is None and max_files is None:
        raise UsageError("no limit is given", hint="give --bytes, --files or both; xet quota remove takes limits away")
    with _opened(settings) as cas:
        _print(settings, set_quota(cas, namespace, max_bytes=max_bytes, max_files=max_files))


@quota.command("list", epilog="Example: xet quota list")
@store_options
@click.pass_obj
def list_(settings: Settings) -> None:
    """List the quotas, with what is used of each."""
    from xetstore.cas.quotas import quotas

    with _opened(settings) as cas:
        for each in quotas(cas):
            _print(settings, each)


@quota.command(epilog="Example: xet quota remove alice/bert")
@click.argument("namespace")
@store_options
@click.pass_obj
def remove(settings: Settings, namespace: str) -> None:
    """Take the limits of NAMESPACE away."""
    from xetstore.hub.quotas import remove_quota

    with _opened(settings) as cas:
        remove_quota(cas, namespace)
    settings.output.note(f"{namespace} has no quota any more")


@contextmanager
def _opened(settings: Settings) -> Iterator[EmbeddedCas]:
    from xetstore.cas.service import EmbeddedCas

    with closing(EmbeddedCas.open(settings.store_path(), create=False)) as cas:
        yield cas


def _print(settings: Settings, each: Quota) -> None:
    if settings.output.json:
        settings.output.record(
            namespace=each.name,
            max_bytes=each.max_bytes,
            max_files=each.max_files,
            used_bytes=each.used_bytes,
            used_files=each.used_files,
        )
        return
    nbytes, files = size_text(each.used_bytes), f"{each.used_files:,}"
    if each.max_bytes is not None:
        nbytes += f" of {size_text(each.max_bytes)}"
    if each.max_files is not None:
        files += f" of {each.max_files:,}"
    settings.output.line(f"{each.name}  {nbytes}, {files} files")
