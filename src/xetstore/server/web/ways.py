"""The ways to connect to a server, as lines to be pasted: from hf, from Python, and by xet."""

from __future__ import annotations

from urllib.parse import urlsplit

from xetstore.server.settings import is_loopback


def ways_to(url: str, *, has_hub: bool, asks_for_tokens: bool) -> list[tuple[str, str]]:
    """A name for each way, and its lines. ``url`` is that of the server from outside; no token is in them.

    >>> [name for name, _ in ways_to("https://xet.example.org", has_hub=True, asks_for_tokens=True)]
    ['xet', 'Python', 'hf']
    """
    parts = urlsplit(url)
    is_plain = parts.scheme == "http" and not is_loopback(parts.hostname or "")
    variables = [
        *(["export XET_TOKEN=TOKEN  # xet token issue makes one, where the store is"] if asks_for_tokens else []),
        *(["export XET_ALLOW_HTTP=1  # without TLS: tokens and files pass in clear"] if is_plain else []),
    ]
    xet = [f"export XET_STORE={url}", *variables, "xet put FILE"]
    python = ["import xetstore", "", f'store = xetstore.open("{url}")', 'info = store.put("FILE")']
    if variables:
        python.insert(0, "# with the variables above")
    ways = [("xet", xet), ("Python", python)]
    if has_hub:
        token = ["export HF_TOKEN=hf_TOKEN  # xet token issue --user NAME makes one"] if asks_for_tokens else []
        ways.append(("hf", [f"export HF_ENDPOINT={url}", *token, "hf upload OWNER/NAME FILE"]))
    return [(name, "\n".join(lines)) for name, lines in ways]
