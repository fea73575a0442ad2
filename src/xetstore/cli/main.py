"""The ``xet`` command itself: its list of commands, and how every failure becomes a sentence and an exit code."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from xetstore.cli.cat import cat
from xetstore.cli.check import check
from xetstore.cli.context import Settings, as_xet_error, store_options
from xetstore.cli.copy_store import copy_store
from xetstore.cli.cp import cp
from xetstore.cli.diff import diff
from xetstore.cli.estimate import estimate
from xetstore.cli.gc import gc
from xetstore.cli.get import get
from xetstore.cli.hash import hash_
from xetstore.cli.inspect import inspect
from xetstore.cli.interruption import INTERRUPTED, farewell, finish, listen
from xetstore.cli.log import log
from xetstore.cli.ls import ls
from xetstore.cli.mv import mv
from xetstore.cli.names import PRINTED_ERRORS
from xetstore.cli.org import org
from xetstore.cli.put import put
from xetstore.cli.quota import quota
from xetstore.cli.refs import branch, tag
from xetstore.cli.repair import repair
from xetstore.cli.repo import repo
from xetstore.cli.rm import rm
from xetstore.cli.serve import serve
from xetstore.cli.snapshot import snapshot
from xetstore.cli.stat import stat
from xetstore.cli.token import token
from xetstore.cli.undelete import undelete
from xetstore.cli.user import user
from xetstore.errors import InterruptedCallError, XetError


class XetGroup(click.Group):
    """A group of commands that ends in one of the documented exit codes, whatever happens."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit."""
        settings = Settings()
        extra |= {"standalone_mode": False, "obj": settings, "prog_name": "xet"}
        logging.lastResort = _Warnings(settings)
        try:
            code = super().main(*args, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            code = 1  # the reader of stdout has had enough: not worth a word
        except (KeyboardInterrupt, click.Abort, InterruptedCallError):
            code = _interrupted(settings)
        except Exception as error:
            told = as_xet_error(error)
            if type(told) is XetError and _came_of_an_interruption(error):
                code = _interrupted(settings)
            else:
                code = told.exit_code
                with contextlib.suppress(OSError):
                    settings.failed(error)
        for stream in (sys.stdout, sys.stderr):
            _drain(stream)
        sys.exit(code or 0)

    def list_commands(self, _: click.Context) -> list[str]:
        """In the order of a first acquaintance, as they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its result is the exit code."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click would answer this one itself, and leave the rest of the output to fail once more at exit.
            raise click.exceptions.Exit(1) from error


class _Warnings(logging.Handler):
    """Lines of the log that no other handler takes, as warnings of the command."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(logging.WARNING)
        self._settings = settings

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line."""
        with contextlib.suppress(OSError, ValueError):  # stderr may be gone
            self._settings.output.warning(record.getMessage())


def _interrupted(settings: Settings) -> int:
    with contextlib.suppress(OSError):  # stderr may be gone too
        for line in farewell().splitlines():
            settings.output.note(line)
    return INTERRUPTED


def _came_of_an_interruption(error: BaseException | None) -> bool:
    """True if an error was raised while an interruption unwound: a bar that was cut off in the middle of its end, say,
    cannot be ended.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _drain(stream: TextIO) -> None:
    """Let nothing that is still buffered fail when the interpreter exits."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@click.group(
    cls=XetGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog="See docs/cli.md for all of it."
)
@click.version_option(package_name="xetstore", message="%(prog)s %(version)s")
@store_options
def cli() -> None:
    """Store big files once: chunk-level deduplicated, verified, by the Xet protocol."""


_OF_FILES = (hash_, put, get, cat)
_OF_REPOSITORIES = (cp, ls, rm, undelete, mv, log, branch, tag, repo)
_OF_THE_STORE = (stat, diff, estimate, inspect, check, repair, gc, copy_store, snapshot, serve, user, org, token, quota)

for _command in (*_OF_FILES, *_OF_REPOSITORIES, *_OF_THE_STORE):
    cli.add_command(_command)


def run() -> NoReturn:
    """The entry point. SIGTERM unwinds like Ctrl-C, so that temporary files go and the terminal is left whole."""
    listen()
    # Closed by our parent: there is no reader, and that is no reason to fail.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=PRINTED_ERRORS)  # any name can be printed in any locale, and read back
    try:
        cli.main()
    except SystemExit as end:
        sys.exit(finish(end.code if isinstance(end.code, int) else 1))
