"""The common parts of all commands: their options, argument types, the store, failures as XetErrors."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from xetstore.cli.config import Defaults, Given
from xetstore.cli.interruption import going_on, interruptible, watch
from xetstore.cli.messages import as_xet_error
from xetstore.cli.network import Network
from xetstore.cli.output import Output
from xetstore.cli.parsed import Parsed
from xetstore.cli.prefixes import Prefix, parse_prefix, whole
from xetstore.errors import NotFoundError, UsageError, XetError
from xetstore.platform.homes import expanded, user_folder

if TYPE_CHECKING:
    from xetstore.hub.accounts import Accounts
    from xetstore.protocol.hashes import Hash
    from xetstore.store import Store

# Whether it is there and readable, the library says: click's own answer would be another exit code.
PATH: Final = click.Path(path_type=Path, readable=False)

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    """The options that may stand before the command's name or behind it; click's context object."""

    store: str | None = None
    debug: bool = False
    output: Output = field(default_factory=Output)
    exit_code: int = 0
    failures: int = 0
    network: Network = field(default_factory=Network)
    events: bool = False
    namespace: str | None = None
    defaults: Defaults = field(default_factory=Defaults)

    def where(self) -> Path | str:
        """The store: ``--store``, else XET_STORE, else that of config.toml, else the user's data directory. A text is
        the URL of one.
        """
        where: Path | str = self.where_and_why().value
        return where

    def where_and_why(self) -> Given:
        """The store, and what names it; no source for the user's data directory."""
        if (named := self.named_store()) is not None:
            return Given(parse_where(named.value), named.source)
        hint = "name a store with --store, or with XET_STORE"
        return Given(user_folder("data", "xetstore", hint), "")

    def told_where(self) -> str:
        """Lines for people: which store is used, and why."""
        where, source = self.where_and_why()
        if source:
            return f"The store is {where}, named by {source}."
        is_there = "" if where.exists() else ", which is not there yet"
        return f"The store is {where}{is_there}.\n--store, XET_STORE or {self.defaults.path} names another."

    def named_store(self) -> Given | None:
        """The store that the user names, as a text, and where; None leaves it to the user's data directory."""
        return Given(self.store, "--store") if self.store else self.defaults.get("store")

    def is_store(self, folder: Path) -> bool:
        """True if a folder is the store itself."""
        where = self.where()
        try:
            return isinstance(where, Path) and folder.samefile(where)
        except OSError:  # there is no store yet, or it cannot be looked at
            return False

    def store_path(self) -> Path:
        """The store's directory, or its store file. Raises UsageError where it is a URL."""
        where = self.where()
        if isinstance(where, Path):
            return where
        raise UsageError(
            "this takes a directory or a store file, and the store is a URL",
            hint="run it where the store is, with --store DIR or --store FILE",
        )

    def open_store(self, *, create: bool = False) -> Store:
        """Open the store; NotFoundError if it is a directory that is none and is not to be created."""
        where, source = self.where_and_why()
        try:
            return self.open_at(where, create=create)
        except NotFoundError as error:
            if not source and isinstance(where, Path) and not where.exists():
                error.hint = "no store is named, and this is the default: --store or XET_STORE names another"
            raise

    @contextmanager
    def open_files(self, where: Path | str | None = None) -> Iterator[Store]:
        """The store, with the files of the namespace that ``--namespace`` names."""
        with self.open_at(self.where() if where is None else where) as store:
            yield store if self.namespace is None else store.in_namespace(self.namespace)

    def open_or_empty(self) -> Store:
        """The store, or an empty one in memory where a directory is none yet: for those who only compare."""
        from xetstore.cas.parts import is_store_file
        from xetstore.store import Store

        try:
            return self.open_store()
        except NotFoundError:
            where = self.where()
            if isinstance(where, str) or where.exists() or is_store_file(where):
                raise
        from xetstore.cas.service import EmbeddedCas

        return Store(EmbeddedCas.in_memory())

    @contextmanager
    def accounts(self, *, create: bool = False) -> Iterator[Accounts]:
        """The accounts of a store that is no URL; NotFoundError if there is none and it is not to be created."""
        from xetstore.cas.service import EmbeddedCas
        from xetstore.hub.accounts import Accounts
        from xetstore.hub.tables import MIGRATIONS

        where = self.store_path()
        with self.telling_of_a_new_store(where, create=create):
            cas = EmbeddedCas.open(where, create=create)
        with closing(cas):
            cas.index.migrate(MIGRATIONS)
            yield Accounts(cas.index, cas.now)

    def open_at(self, where: Path | str, *, create: bool = False) -> Store:
        """Open any store, the way the options say."""
        from xetstore.store import open_store

        with self.telling_of_a_new_store(where, create=create):
            return interruptible(open_store(where, create=create, **self.opening(where)))

    @contextmanager
    def telling_of_a_new_store(self, where: Path | str, *, create: bool) -> Iterator[None]:
        """Tell where the store is that is made inside, if no option named it."""
        given = self.where_and_why() if create else None
        is_new = given is not None and not given.source and where == given.value and not given.value.exists()
        yield
        if is_new:
            self.output.note(f"a store is made at {where}: --store, XET_STORE or config.toml name another one")

    @contextmanager
    def store_of(self, file: Hash | str) -> Iterator[tuple[Store, Hash]]:
        """The store that a FILE is in, and its hash: an ``hf://`` locator says itself where that is, ``xet://`` names a
        large file of a repository in the store.
        """
        from xetstore.protocol.hashes import Hash

        if isinstance(file, Hash):
            with self.open_files() as store:
                yield store, file
            return
        if isinstance(file, Prefix):
            with self.open_files() as store:
                yield store, whole(store, file)
            return
        if self.namespace is not None:
            raise UsageError(
                f"{file[:200]} says whose file it is", hint="leave out --namespace, or name it by its hash"
            )
        if file.startswith("xet://"):
            with self.open_store() as store:
                yield store.file_at(file)
            return
        if self.store is not None:
            raise UsageError(f"{file[:200]} says where it is", hint="leave out --store, or name the file by its hash")
        from xetstore.store import open_locator

        store, name = open_locator(file, **self.opening(file))
        with interruptible(store):
            yield store, name

    @contextmanager
    def file_of(self, file: Hash | str) -> Iterator[tuple[Store, Hash | str]]:
        """The store that a FILE is in, and its hash or its name there; small files of repositories are such too."""
        if self.namespace is None and str(file).startswith("xet://"):
            with self.open_store() as store:
                yield store, file
            return
        with self.store_of(file) as found:
            yield found

    def opening(self, where: Path | str) -> dict[str, Any]:
        """The arguments for opening a store, beside its place; called before anything that may wait for a network."""
        from xetstore.cli.watcher import Watcher

        watch()
        return {**self.network.opening(self.defaults, where), "on_event": Watcher(self.output, as_records=self.events)}

    def check_null(self) -> None:
        """Raise UsageError where ``--null`` does not go with the rest."""
        if self.output.null and self.output.json:
            raise UsageError("--null and --json are two ways to print names", hint="leave out one of the two")
        if self.output.null and sys.stdout.isatty():
            raise UsageError(
                "--null prints names as they are, which a terminal must not see", hint="send it on: > FILE"
            )

    def going_on(self, hint: str) -> None:
        """Let an interruption say, to people, how the command can go on."""
        if not (self.output.json or self.output.quiet):
            going_on(hint)

    def failed(self, error: Exception, path: Path | None = None) -> None:
        """Report an error, of a file if ``path`` says which. The first one gives the exit code of a command that goes
        on to its end.
        """
        if self.debug:
            traceback.print_exception(error)
        told = as_xet_error(error)
        if isinstance(told, NotFoundError) and self._lacks_default(str(told)):
            told.hint = "no store is named, and this is the default: --store or XET_STORE names another"
        self.failures += 1
        self.exit_code = self.exit_code or told.exit_code
        self.output.error(told, path)

    def _lacks_default(self, message: str) -> bool:
        """True if the store is the default one, which a message names, and which is not there."""
        try:
            where, source = self.where_and_why()
        except XetError:
            return False
        return not source and str(where) in message and not where.exists()


def _sets(name: str, *, output: bool = False, to: object = None) -> Callable[..., None]:
    """The callback of an option that is kept in the settings, or their ``output``: as it is given, or as ``to``."""

    def keep(context: click.Context, _: click.Parameter, value: object) -> None:
        if value is not None and value is not False:
            settings = context.ensure_object(Settings)
            setattr(settings.output if output else settings, name, value if to is None else to)

    return keep


# Eager, so that an error in any other option is already reported the way they ask for.
json_option = click.option(
    "--json",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_sets("json", output=True),
    help="Print one JSON object a line, errors included.",
)
debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_sets("debug"),
    help="Show the traceback of an error.",
)


def _set_telling(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        output = context.ensure_object(Settings).output
        output.quiet |= parameter.name == "quiet"
        output.verbose |= parameter.name == "verbose"
        if output.quiet and output.verbose:
            raise UsageError("--quiet and --verbose do not go together", hint="leave out one of the two")


quiet_option = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_set_telling,
    help="Print data and errors, and nothing else.",
)
verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_set_telling,
    help="Say more of what is done, on stderr.",
)
no_progress_option = click.option(
    "--no-progress",
    is_flag=True,
    expose_value=False,
    callback=_sets("bars", output=True, to=False),
    help="Draw no progress bar.",
)
store_option = click.option(
    "--store",
    metavar="WHERE",
    expose_value=False,
    callback=_sets("store"),
    help="The store: a directory, a store file, a URL or hf://; else $XET_STORE, config.toml, your data directory.",
)
events_option = click.option(
    "--events",
    is_flag=True,
    expose_value=False,
    callback=_sets("events"),
    help="Print what happens meanwhile as JSON on stderr, one object a line.",
)
namespace_option = click.option(
    "--namespace",
    metavar="NS",
    expose_value=False,
    callback=_sets("namespace"),
    help="Of a directory: the files of this namespace or repository, else of default.",
)
null_option = click.option(
    "-z",
    "--null",
    is_flag=True,
    expose_value=False,
    callback=_sets("null", output=True),
    help="End lines with NUL, and print names as they are.",
)


def common_options(command: F) -> F:
    """Add ``--json``, ``--quiet``, ``--verbose``, ``--no-progress`` and ``--debug``."""
    return json_option(quiet_option(verbose_option(no_progress_option(debug_option(command)))))


def store_options(command: F) -> F:
    """Add ``--store`` and the options of :func:`common_options`."""
    return store_option(common_options(command))


# 18 digits are more than any file has, and stay inside every 64-bit number further down.
_RANGE: Final = re.compile(r"([0-9]{0,18}):([0-9]{0,18})")


def parse_where(text: str) -> Path | str:
    """A store as it is named on the command line: a URL stays a text."""
    from xetstore.opening import refuse_address, scheme_of

    if scheme_of(text):
        return text
    refuse_address(text)
    return (
        expanded(text, "the store") if text.split("/")[0] == "~" else Path(text)
    )  # a shell leaves --store=~/x as it is


_NAME: Final = "a name is xet://OWNER/NAME@REVISION/PATH"
_LIKE_A_FILE: Final = re.compile(r"[\w.-]+/[\w.-]+(?:@[^/]+)?/.+")


def parse_file(text: str) -> Hash | str:
    """An argument's type: a stored file, by its hash, the first digits of it, or its locator, which stays a text."""
    from xetstore.protocol.hashes import Hash

    if text.startswith(("hf://", "xet://")):
        return text
    try:
        return parse_prefix(text) or Hash.parse(text)
    except UsageError as error:
        like = f"do you mean xet://{text[:200]}?" if _LIKE_A_FILE.fullmatch(text) else f"{error.hint}; {_NAME}"
        if text.startswith(("https://huggingface.co/", "https://hf.co/")):
            like = "a file of the Hub is hf://models/NAMESPACE/NAME/PATH, or hf://datasets/…"
        raise UsageError(str(error), hint=like) from None


def parse_range(text: str) -> tuple[int, int | None]:
    """An option's type: ``START:END`` as (start, end), end exclusive, or None for the end of the file."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text[:80]!r} is not a range", hint="a range is START:END in bytes, or START:, or :END")
    from xetstore.transfer.download.file_range import check_range

    start, end = int(match[1] or 0), int(match[2]) if match[2] else None
    check_range(start, end)
    return start, end


def range_option(command: F) -> F:
    """Add ``--range``, given to the command as ``span``: (start, end or None)."""
    return click.option(
        "--range",
        "span",
        type=Parsed(parse_range),
        default=":",
        metavar="START:END",
        help="These bytes only, without the one at END; START: and :END are open.",
    )(command)
