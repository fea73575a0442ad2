"""Extras of the package: the command that adds one to what is installed, a release or a clone."""

from __future__ import annotations

import json


def install_hint(extra: str) -> str:
    """The command that adds an extra, from where the package came, as its installer noted that (PEP 610)."""
    from importlib import metadata
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        noted = json.loads(metadata.distribution("xetstore").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        noted = {}
    url = noted.get("url")
    if "dir_info" in noted:
        option = "--editable " if noted["dir_info"].get("editable") else ""
        return f"pip install {option}'{url2pathname(urlsplit(url).path)}[{extra}]'"
    if "vcs_info" in noted:
        url = f"{noted['vcs_info']['vcs']}+{url}@{noted['vcs_info']['commit_id']}"
    return f"pip install 'xetstore[{extra}]{f' @ {url}' if url else ''}'"
