"""``xet help``; and the help of all commands: what a group lists, and what it says to a name that it does not know."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from xetstore.cli.commands import SECTIONS
from xetstore.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXAMPLE: Final = "xet put model.safetensors"


class Group(click.Group):
    """A command that has others. Without any of them it prints its help, as ``--help`` does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False, **options})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options; print the help where there is nothing to take."""
        if not args and not ctx.resilient_parsing:
            print_help(ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that is named. A wrong command line of it is told as one of it."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            name = ctx.invoked_subcommand
            if error.ctx is None and name is not None and (command := self.get_command(ctx, name)) is not None:
                error.ctx = click.Context(command, info_name=name, parent=ctx)
            raise

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with the whole of its first sentence."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(limit=1000)) for name, each in self.commands.items()])

    def list_commands(self, _: click.Context) -> list[str]:
        """In the order in which they were added."""
        return list(self.commands)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Commands by name, none of which is loaded for it; options."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name) for name in self.commands if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is named. Raises UsageError, which names the one that may be meant."""
        if args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            refuse(ctx, args[0])
        return super().resolve_command(ctx, args)


def refuse(ctx: click.Context, name: str) -> NoReturn:
    """Raise UsageError for a name that is no command of a group."""
    assert isinstance(ctx.command, click.Group)
    close = get_close_matches(name, ctx.command.commands)
    meant = f"do you mean {ctx.command_path} {close[0]}? " if close else ""
    raise UsageError(
        f"{ctx.command_path} has no command {name[:80]!r}", hint=f"{meant}{ctx.command_path} --help lists them"
    )


def print_help(ctx: click.Context) -> NoReturn:
    """Print the help of a command on stdout, and end with success."""
    click.echo(ctx.get_help(), color=ctx.color)
    ctx.exit()


def write_sections(formatter: click.HelpFormatter) -> None:
    """The commands of ``xet``, none of which is loaded for it."""
    widest = max(len(name) for section in SECTIONS.values() for name in section)
    for title, commands in SECTIONS.items():
        with formatter.section(title):
            formatter.write_dl([(name.ljust(widest), summary) for name, summary in commands.items()])


def _complete_words(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Commands below those that were named."""
    command: click.Command | None = ctx.find_root().command
    for word in ctx.params.get("words") or ():
        command = command.get_command(ctx, word) if isinstance(command, click.Group) else None
    names = command.commands if isinstance(command, click.Group) else ()
    return [name for name in names if name.startswith(incomplete)]


@click.command("help", epilog="Example: xet help repo create")
@click.argument("words", nargs=-1, metavar="[COMMAND]...", shell_complete=_complete_words)
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Print the help of xet, or of one command: xet help put, xet help repo create."""
    assert ctx.parent is not None
    told = ctx.parent
    for word in words:
        group = told.command
        if not isinstance(group, click.Group):
            raise UsageError(f"{told.command_path} has no commands", hint=f"{told.command_path} --help says all of it")
        command = group.get_command(told, word)
        if command is None:
            refuse(told, word)
        told = click.Context(command, info_name=word, parent=told)
    print_help(told)
