"""``xet completion``: the script by which a shell completes commands, options, and names of a store of this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from xetstore.cli.context import Settings

if TYPE_CHECKING:
    from xetstore.store import Store

VARIABLE: Final = "_XET_COMPLETE"
"""The variable by which a script asks the command for completions."""

MOST_NAMES: Final = 1000
_PLAIN: Final = re.compile(r"[\w@%+=:,./-]*")
"""Names that stand for themselves in a line of a shell."""
_KINDS: Final = ("models", "datasets", "spaces", "buckets")

# A colon ends a word of bash's, and an @ begins one: of what is completed only that word is replaced. Without an
# answer bash completes paths by itself.
_BASH: Final = """\
_xet_completion() {
    local cur="${COMP_WORDS[COMP_CWORD]}" word="${COMP_LINE:0:COMP_POINT}" kind value before
    [[ $cur == [:=] ]] && cur=""
    word="${word##*[[:space:]]}"
    before="${word%%"$cur"}"
    before="${before%%@}"
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            part) compopt -o nospace 2>/dev/null ;;
            plain) ;;
            *) continue ;;
        esac
        COMPREPLY+=("${value#"$before"}")
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o default -F _xet_completion %(prog_name)s
"""

# The script works where nothing has begun completion yet, which is how zsh comes. Without an answer it completes paths.
_ZSH: Final = """\
#compdef %(prog_name)s

_xet_completion() {
    local kind value help
    local -a names described parts
    while IFS=$'\\t' read -r kind value help; do
        case $kind in
            part) parts+=("$value") ;;
            plain) if [[ -n $help ]]; then described+=("${value//:/\\\\:}:$help"); else names+=("$value"); fi ;;
        esac
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) %(complete_var)s=zsh_complete %(prog_name)s 2>/dev/null)
    if (( ! $#names && ! $#described && ! $#parts )); then
        _files
        return
    fi
    (( $#described )) && _describe -V %(prog_name)s described -U
    (( $#names )) && compadd -U -V names -a names
    (( $#parts )) && compadd -U -S '' -V parts -a parts
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _xet_completion "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
    compdef _xet_completion %(prog_name)s
fi
"""

_FISH: Final = """\
function _xet_completion
    set -l line (commandline -cp | string collect)
    set -l word (commandline -ct | string collect)
    set -l names (env COMP_WORDS="$line" COMP_CWORD="$word" %(complete_var)s=fish_complete %(prog_name)s 2>/dev/null)
    if test -n "$names"
        printf '%%s\\n' $names
    else
        complete --do-complete "'' $word"
    end
end

complete --no-files --command %(prog_name)s --arguments '(_xet_completion)'
"""


class _Bash(BashComplete):
    """Completion in bash, of words with colons in them too."""

    source_template = _BASH

    @staticmethod
    def _check_version() -> None:
        """Any bash will do."""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        return words, incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """All but those that bash would take for more than a name: it writes them into the line as they are, and others
        chose the names in a repository.
        """
        return [item for item in super().get_completions(args, incomplete) if _PLAIN.fullmatch(item.value)]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return f"{'part' if item.goes_on else item.type},{item.value}"


class _Zsh(ZshComplete):
    """Completion in zsh, which puts no space behind what goes on."""

    source_template = _ZSH

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        return [item for item in super().get_completions(args, incomplete) if item.value.isprintable()]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return f"{'part' if item.goes_on else item.type}\t{item.value}\t{item.help or ''}"


class _Fish(FishComplete):
    """Completion in fish."""

    source_template = _FISH

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """All but paths, which fish completes by itself. It puts a space behind one that is alone, unless it ends as a
        folder does: such a one is offered as a folder too.
        """
        items = [item for item in super().get_completions(args, incomplete) if item.value.isprintable()]
        if len(items) == 1 and items[0].goes_on and not items[0].value.endswith("/"):
            items.append(CompletionItem(f"{items[0].value}/"))
        return [item for item in items if item.type == "plain"]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return f"{item.value}\t{item.help or ''}"


def register() -> None:
    """Let shells be asked in our way; called before a completion."""
    for one in (_Bash, _Zsh, _Fish):
        add_completion_class(one)


@click.command(epilog="Example: xet completion bash > xet-completion.bash")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish")
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete what is typed behind xet.

    Commands, options, paths, and of a store of this machine the names of repositories, revisions and files. One of
    these lines makes every new shell do so:

    \b
      echo 'eval "$(xet completion bash)"' >> ~/.bashrc
      echo 'eval "$(xet completion zsh)"' >> ~/.zshrc
      echo 'xet completion fish | source' >> ~/.config/fish/config.fish
    """
    register()
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, "xet", VARIABLE).source(), nl=False)


def complete_name(ctx: click.Context, _: click.Parameter | None, incomplete: str) -> list[CompletionItem[str]]:
    """The repositories, revisions and files of a store of this machine that a word may be the beginning of."""
    if not incomplete.startswith("xet:"):
        return []
    settings = ctx.find_object(Settings) or Settings()
    try:
        where = settings.where()
        if not isinstance(where, Path):
            return []
        with settings.open_at(where) as store:
            names = [name for name in islice(_names(store, incomplete), MOST_NAMES) if name.startswith(incomplete)]
    except Exception:  # a shell shows no error while a line is typed
        return []
    return [CompletionItem(name, goes_on=not _is_file(name)) for name in names]


def _is_file(name: str) -> bool:
    """True if nothing follows a name: that of a file, and not of a repository, a revision or a folder."""
    parts = name.removeprefix("xet://").split("/")
    return len(parts) > (3 if parts[0] in _KINDS else 2) and parts[-1] != ""


def _names(store: Store, incomplete: str) -> Iterator[str]:
    from xetstore.remote.hub.locators import HubLocator

    parts = incomplete.removeprefix("xet:").lstrip("/").split("/")
    behind_kind = parts[1:] if parts[0] in _KINDS else parts
    if len(behind_kind) < 2 or (len(behind_kind) == 2 and "@" not in behind_kind[1]):
        for kind in _KINDS:
            for record in store.repos(kind):
                yield f"xet://{record.id.path}"
    elif len(behind_kind) == 2:
        name = incomplete.partition("@")[0]
        repository = store.repo(HubLocator.parse(name).id)
        for ref in (*repository.branches(), *repository.tags()):
            yield f"{name}@{ref.name.replace('/', '%2F')}"
    else:
        folder = incomplete.rpartition("/")[0]
        locator = HubLocator.parse(folder)
        for file in store.repo(locator.id).files(locator.revision or "main", locator.path, recursive=False):
            yield f"{folder}/{file.path.rpartition('/')[2]}{'/' if file.is_folder else ''}"
