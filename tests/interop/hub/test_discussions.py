"""Discussions and pull requests by huggingface_hub of today: opened, talked about, changed, merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.hub import Hub, HubClient, HubError

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def details(api: HfApi, repo: str, number: int) -> dict[str, Any]:
    found = api.get_discussion_details(repo, number)
    return {
        "title": found.title,
        "status": found.status,
        "author": found.author,
        "url": found.url,
        "base": found.target_branch,
        "conflicts": found.conflicting_files,
        "merged": found.merge_commit_oid,
        "diff": found.diff,
        "events": [
            [
                event.type,
                event.author,
                *(getattr(event, name, None) for name in ("content", "new_status", "new_title", "summary")),
            ]
            for event in found.events
        ],
    }


def propose(api: HfApi, repo: str, title: str) -> int:
    return api.create_pull_request(repo, title, description="words").num


def commit(api: HfApi, repo: str, revision: str, path: str, text: str) -> str:
    return api.upload_file(
        path_or_fileobj=text.encode(),
        path_in_repo=path,
        repo_id=repo,
        revision=revision,
        commit_message=f"change {path}",
    ).oid


def read(api: HfApi, repo: str, path: str) -> str:
    with open(api.hf_hub_download(repo, path)) as file:  # noqa: PTH123  # the worker imports little
        return file.read()


def test_a_discussion_is_opened_answered_renamed_and_closed(
    ann: HubClient, bob: HubClient, hub: Hub, repo: str
) -> None:
    def ask(api: HfApi, repo: str) -> list[Any]:
        opened = api.create_discussion(repo, " A question ", description="Why?")
        said = api.comment_discussion(repo, opened.num, "Because 🤗")
        edited = api.edit_discussion_comment(repo, opened.num, said.id, "Therefore")
        hidden = api.hide_discussion_comment(repo, opened.num, opened.events[0].id)
        return [opened.num, said.content, edited.id == said.id, edited.edited, hidden.hidden]

    def close(api: HfApi, repo: str) -> list[str]:
        renamed = api.rename_discussion(repo, 1, "An answer")
        closed = api.change_discussion_status(repo, 1, "closed", comment="That is that")
        return [renamed.old_title, renamed.new_title, closed.new_status]

    assert bob.call(ask, repo) == [1, "Because 🤗", True, True, True]
    assert ann.call(close, repo) == ["A question", "An answer", "closed"]
    told = bob.call(details, repo, 1)
    assert (told["title"], told["status"], told["author"]) == ("An answer", "closed", "bob")
    assert told["url"] == f"{hub.endpoint}/{repo}/discussions/1"
    assert [event[:3] for event in told["events"]] == [
        ["comment", "bob", ""],
        ["comment", "bob", "Therefore"],
        ["title-change", "ann", None],
        ["comment", "ann", "That is that"],
        ["status-change", "ann", None],
    ]

    def reopen(api: HfApi, repo: str) -> None:
        api.change_discussion_status(repo, 1, "open")
        api.change_discussion_status(repo, 1, "open")

    with pytest.raises(HubError) as refused:
        bob.call(reopen, repo)
    assert refused.value.status == 400


def test_discussions_are_listed_by_type_status_and_author(ann: HubClient, bob: HubClient, repo: str) -> None:
    def open_three(api: HfApi, repo: str) -> None:
        for number in range(3):
            api.create_discussion(repo, f"number {number}", pull_request=number == 1)
        api.change_discussion_status(repo, 1, "closed")

    def listed(api: HfApi, repo: str, wanted: dict[str, Any]) -> list[int]:
        return [found.num for found in api.get_repo_discussions(repo, **wanted)]

    ann.call(open_three, repo)
    for wanted, numbers in (
        ({}, [3, 2, 1]),
        ({"discussion_type": "pull_request"}, [2]),
        ({"discussion_type": "discussion"}, [3, 1]),
        ({"discussion_status": "open"}, [3, 2]),
        ({"discussion_status": "closed"}, [1]),
        ({"author": "bob"}, []),
    ):
        assert bob.call(listed, repo, wanted) == numbers


def test_a_pull_request_of_a_reader_is_merged_by_the_owner(ann: HubClient, bob: HubClient, repo: str) -> None:
    def upload(api: HfApi, repo: str) -> list[Any]:
        made = api.upload_file(path_or_fileobj=b"new\n", path_in_repo="a.txt", repo_id=repo, create_pr=True)
        large = api.upload_file(path_or_fileobj=b"x" * 100_000, path_in_repo="b.bin", repo_id=repo, create_pr=True)
        return [made.pr_num, made.pr_revision, large.pr_num]

    def merge(api: HfApi, repo: str, number: int) -> None:
        api.merge_pull_request(repo, number, comment="Thanks")

    assert bob.call(upload, repo) == [1, "refs/pr/1", 2]
    for number in (1, 2):
        with pytest.raises(HubError) as refused:
            bob.call(merge, repo, number)
        assert refused.value.status == 403
        ann.call(merge, repo, number)
        told = ann.call(details, repo, number)
        assert (told["status"], told["base"], told["conflicts"]) == ("merged", "refs/heads/main", [])
        assert len(told["merged"]) == 40
    assert "+new" in ann.call(details, repo, 1)["diff"]
    assert bob.call(read, repo, "a.txt") == "new\n"
    assert bob.call(read, repo, "b.bin") == "x" * 100_000


def test_a_draft_gets_commits_and_what_both_sides_changed_is_told(ann: HubClient, repo: str) -> None:
    number = ann.call(propose, repo, "A draft")
    assert ann.call(details, repo, number)["status"] == "draft"
    ann.call(commit, repo, f"refs/pr/{number}", "a.txt", "theirs")
    ann.call(commit, repo, "main", "a.txt", "ours")

    def merge(api: HfApi, repo: str, number: int) -> None:
        api.change_discussion_status(repo, number, "open")
        api.merge_pull_request(repo, number)

    with pytest.raises(HubError) as refused:
        ann.call(merge, repo, number)
    assert refused.value.status == 422
    told = ann.call(details, repo, number)
    assert (told["status"], told["conflicts"]) == ("open", ["a.txt"])
    assert [event[5] for event in told["events"] if event[0] == "commit"] == ["change a.txt"]
    assert ann.call(read, repo, "a.txt") == "ours"


def test_requests_for_a_gated_repository_are_decided(ann: HubClient, bob: HubClient, repo: str) -> None:
    def gate(api: HfApi, repo: str) -> None:
        api.update_repo_settings(repo, gated="manual")
        api.grant_access(repo, "bob")

    def decide(api: HfApi, repo: str) -> list[list[str | None]]:
        states = [[found.username for found in api.list_accepted_access_requests(repo)]]
        api.cancel_access_request(repo, "bob")
        states.append([found.username for found in api.list_pending_access_requests(repo)])
        api.reject_access_request(repo, "bob", rejection_reason="no")
        [rejected] = api.list_rejected_access_requests(repo)
        states.append([rejected.username])
        api.accept_access_request(repo, request_id=rejected.request_id)
        states.append([found.username for found in api.list_accepted_access_requests(repo)])
        return states

    ann.call(commit, repo, "main", "a.txt", "gated")
    ann.call(gate, repo)
    assert bob.call(read, repo, "a.txt") == "gated"
    assert ann.call(decide, repo) == [["bob"]] * 4
