"""The commands of ``xet`` by name: their use and their place. A command is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

import click

SECTIONS: Final[dict[str, dict[str, str]]] = {
    "Files": {
        "put": "store files and directories",
        "get": "write a stored file, or a part of it, to a file",
        "cat": "write a stored file, or a part of it, to stdout",
        "ls": "list the files of a store, or of a repository",
        "find": "the files that have a name, a size or a date",
        "stat": "totals of the store, or the record of one file",
        "rm": "delete files, or remove those of a repository by one commit",
        "undelete": "give deleted files back, or list them",
        "hash": "print the Xet hash of files, nothing stored",
        "diff": "which parts of two files differ, or which files of two revisions",
        "estimate": "the saving that storing files would bring",
    },
    "Repositories": {
        "cp": "copy files and folders into a repository, out of it, or between two",
        "mv": "move a file or a folder of a repository, by one commit",
        "log": "list the commits of a repository",
        "branch": "list, create and delete branches",
        "tag": "list, create and delete tags",
        "repo": "create, list, delete and move repositories",
    },
    "A server": {
        "serve": "serve the store over HTTP",
        "user": "the users of a store",
        "org": "its organizations, and their members",
        "token": "issue and revoke the tokens of a store",
        "quota": "limits for namespaces, repositories and owners",
    },
    "Care": {
        "check": "look for damage",
        "repair": "mend damage from what is left, here and in other stores",
        "gc": "delete for good what nothing names any more",
        "copy-store": "copy all of a store into another one: a backup, and the way back",
        "snapshot": "write names and grants down, among the objects",
        "inspect": "list what is in a stored file, a model, a xorb or a shard",
    },
    "The command": {
        "help": "print the help of xet, or of one command",
        "completion": "print the script that makes a shell complete commands and names",
    },
}
"""The commands, and the use of each, in the order of a first acquaintance."""

_HOMES: Final = {"branch": "refs:branch", "tag": "refs:tag", "hash": "hash:hash_", "help": "help:help_"}
"""The module and the name of a command, for those that are not called like it."""


class Commands(Mapping[str, click.Command]):
    """All commands by name."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in self:
            raise KeyError(name)
        plain = name.replace("-", "_")
        module, _, attribute = _HOMES.get(name, f"{plain}:{plain}").partition(":")
        command: click.Command = getattr(import_module(f"xetstore.cli.{module}"), attribute)
        return command

    def __contains__(self, name: object) -> bool:
        return any(name in section for section in SECTIONS.values())

    def __iter__(self) -> Iterator[str]:
        for section in SECTIONS.values():
            yield from section

    def __len__(self) -> int:
        return sum(map(len, SECTIONS.values()))
