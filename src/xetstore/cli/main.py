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

from xetstore.cli.commands import Commands
from xetstore.cli.context import Settings, as_xet_error, store_options
from xetstore.cli.help import EXAMPLE, Group, write_sections
from xetstore.cli.interruption import INTERRUPTED, farewell, finish, listen
from xetstore.cli.names import PRINTED_ERRORS, printable
from xetstore.errors import InterruptedCallError, XetError


class XetGroup(Group):
    """A group of commands that ends in one of the documented exit codes, whatever happens."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit."""
        settings = Settings()
        extra |= {"standalone_mode": False, "obj": settings, "prog_name": "xet"}
        logging.lastResort = _Warnings(settings)
        if "_XET_COMPLETE" in os.environ:
            from xetstore.cli.completion import register

            register()
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

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands before the options: there is nothing to do with these alone."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are about."""
        if isinstance(self.commands, Commands):
            write_sections(formatter)
        else:
            super().format_commands(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say which store is used, or what is wrong with its name, and where there is more to read."""
        settings = ctx.find_object(Settings) or Settings()
        try:
            told = settings.told_where()
        except XetError as error:
            told = f"The store: {error}."
        formatter.write_paragraph()
        for line in told.splitlines():  # not broken: a path can be copied
            formatter.write(f"  {printable(line)}\n")
        super().format_epilog(ctx, formatter)

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


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from xetstore import __version__

        click.echo(f"xet {__version__}")
        ctx.exit()


@click.group(
    cls=XetGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="xet help COMMAND tells more of each; docs/cli.md has all of it.",
    help=f"""Store big files once: chunk-level deduplicated, verified, by the Xet protocol.

    To begin with: {EXAMPLE}""",
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
@store_options
def cli() -> None:
    """The command."""


cli.commands = Commands()  # type: ignore[assignment]  # loaded when they are asked for, none is ever added


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
