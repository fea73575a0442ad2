"""The command that installs an extra, beside a release and beside a clone."""

from __future__ import annotations

import json
from importlib import metadata

import pytest

from xetstore.extras import install_hint


@pytest.mark.parametrize(
    ("noted", "command"),
    [
        (None, "pip install 'xetstore[s3]'"),
        ("no JSON", "pip install 'xetstore[s3]'"),
        ({"url": "file:///home/me/a%20clone", "dir_info": {}}, "pip install '/home/me/a clone[s3]'"),
        ({"url": "file:///clone", "dir_info": {"editable": True}}, "pip install --editable '/clone[s3]'"),
        ({"url": "file:///a.whl", "archive_info": {}}, "pip install 'xetstore[s3] @ file:///a.whl'"),
        (
            {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "ab"}},
            "pip install 'xetstore[s3] @ git+https://example.org/x.git@ab'",
        ),
    ],
    ids=["index", "unreadable", "clone", "editable", "wheel", "git"],
)
def test_an_extra_comes_from_where_the_package_came(
    noted: object, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = noted if noted is None or isinstance(noted, str) else json.dumps(noted)
    monkeypatch.setattr(metadata.Distribution, "read_text", lambda *_: text)
    monkeypatch.setattr(metadata.PathDistribution, "read_text", lambda *_: text)
    assert install_hint("s3") == command
