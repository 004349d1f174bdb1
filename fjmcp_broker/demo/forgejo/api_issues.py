"""
The stand-in's API: issues, comments, labels and pull requests, with real state.
"""

from typing import Any

from klein import Response

from fjmcp_broker.demo.forgejo.http import json_answer, text_answer
from fjmcp_broker.demo.forgejo.router import ApiCall, ApiError, Routes, not_found
from fjmcp_broker.demo.forgejo.world import Comment, Issue, Label, Repository

issue_routes = Routes()

REPOSITORY = "/repos/{owner}/{name}"


def _issue(call: ApiCall, repository: Repository, index: str) -> Issue:
    issue = repository.issues.get(int(index)) if index.isdecimal() else None
    if issue is None:
        raise not_found()
    return issue


def _pull(call: ApiCall, repository: Repository, index: str) -> Issue:
    issue = _issue(call, repository, index)
    if not issue.is_pull:
        raise not_found()
    return issue


def _selected(call: ApiCall, repository: Repository) -> list[Issue]:
    """
    What the parameters C{state}, C{type}, C{q} and C{labels} leave, newest first.
    """
    state = call.query.get("state") or "open"
    kind = call.query.get("type", "")
    word = call.query.get("q", "").lower()
    labels = {each for each in call.query.get("labels", "").split(",") if each}
    return [
        issue
        for issue in reversed(repository.issues.values())
        if state in ("all", issue.state)
        and (kind != "issues" or not issue.is_pull)
        and (kind != "pulls" or issue.is_pull)
        and word in f"{issue.title} {issue.body}".lower()
        and labels <= {label.name for label in issue.labels}
    ]


@issue_routes.on("GET", "/repos/issues/search")
def search_issues(call: ApiCall) -> Response:
    """
    Issues of all visible repositories.
    """
    owner = call.query.get("owner", "")
    return call.some(
        [
            call.shapes.issue(repository, issue)
            for repository in call.world.visible_to(call.user)
            if owner in ("", repository.owner.login)
            for issue in _selected(call, repository)
        ]
    )


@issue_routes.on("GET", f"{REPOSITORY}/issues")
def issues(call: ApiCall, owner: str, name: str) -> Response:
    """
    The issues of a repository, pull requests among them unless excluded.
    """
    repository = call.repository(owner, name)
    return call.some(
        [call.shapes.issue(repository, issue) for issue in _selected(call, repository)]
    )


@issue_routes.on("POST", f"{REPOSITORY}/issues")
def create_issue(call: ApiCall, owner: str, name: str) -> Response:
    """
    A new issue.
    """
    repository = call.repository(owner, name)
    issue = call.world.add_issue(
        repository,
        call.who(),
        call.text("title"),
        str(call.body.get("body") or ""),
        call.core.now(),
    )
    return json_answer(call.shapes.issue(repository, issue), 201)


@issue_routes.on("GET", f"{REPOSITORY}/issues/{{index}}")
def one_issue(call: ApiCall, owner: str, name: str, index: str) -> Response:
    """
    One issue or pull request.
    """
    repository = call.repository(owner, name)
    return json_answer(call.shapes.issue(repository, _issue(call, repository, index)))


@issue_routes.on("PATCH", f"{REPOSITORY}/issues/{{index}}")
@issue_routes.on("PATCH", f"{REPOSITORY}/pulls/{{index}}")
def edit_issue(call: ApiCall, owner: str, name: str, index: str) -> Response:
    """
    Change title, text or state; for its author and the repository's owner.
    """
    repository = call.repository(owner, name)
    issue, user = _issue(call, repository, index), call.who()
    if issue.author.id != user.id and not repository.is_owned_by(user):
        raise ApiError(403, "user should have a permission to write to a repo")
    issue.title = str(call.body.get("title") or issue.title)
    body, state = call.body.get("body"), call.body.get("state")
    issue.body = body if isinstance(body, str) else issue.body
    issue.state = state if state in ("open", "closed") else issue.state
    if call.path.split("/")[4] == "pulls":
        return json_answer(call.shapes.pull(repository, issue, user), 201)
    return json_answer(call.shapes.issue(repository, issue), 201)


# Comments


@issue_routes.on("GET", f"{REPOSITORY}/issues/{{index}}/comments")
def comments(call: ApiCall, owner: str, name: str, index: str) -> Response:
    """
    The comments of an issue.
    """
    repository = call.repository(owner, name)
    issue = _issue(call, repository, index)
    return json_answer(
        [call.shapes.comment(repository, issue, each) for each in issue.comments]
    )


@issue_routes.on("POST", f"{REPOSITORY}/issues/{{index}}/comments")
def create_comment(call: ApiCall, owner: str, name: str, index: str) -> Response:
    """
    A new comment.
    """
    repository = call.repository(owner, name)
    issue = _issue(call, repository, index)
    comment = call.world.add_comment(
        issue, call.who(), call.text("body"), call.core.now()
    )
    return json_answer(call.shapes.comment(repository, issue, comment), 201)


def _comment(
    call: ApiCall, owner: str, name: str, comment_id: str
) -> tuple[Repository, Issue, Comment]:
    repository = call.repository(owner, name)
    found = None
    if comment_id.isdecimal():
        found = call.world.comment_with_id(repository, int(comment_id))
    if found is None:
        raise not_found()
    return repository, *found


@issue_routes.on("GET", f"{REPOSITORY}/issues/comments/{{comment_id}}")
def one_comment(call: ApiCall, owner: str, name: str, comment_id: str) -> Response:
    """
    One comment.
    """
    return json_answer(call.shapes.comment(*_comment(call, owner, name, comment_id)))


@issue_routes.on("PATCH", f"{REPOSITORY}/issues/comments/{{comment_id}}")
def edit_comment(call: ApiCall, owner: str, name: str, comment_id: str) -> Response:
    """
    Change one's own comment.
    """
    repository, issue, comment = _comment(call, owner, name, comment_id)
    if comment.author.id != call.who().id:
        raise ApiError(403, "user should have a permission to edit the comment")
    comment.body = call.text("body")
    return json_answer(call.shapes.comment(repository, issue, comment))


@issue_routes.on("DELETE", f"{REPOSITORY}/issues/comments/{{comment_id}}")
def delete_comment(call: ApiCall, owner: str, name: str, comment_id: str) -> Response:
    """
    Remove one's own comment.
    """
    _, issue, comment = _comment(call, owner, name, comment_id)
    if comment.author.id != call.who().id:
        raise ApiError(403, "user should have a permission to edit the comment")
    issue.comments.remove(comment)
    return Response(204, {}, b"")


# Labels


@issue_routes.on("GET", f"{REPOSITORY}/labels")
def labels(call: ApiCall, owner: str, name: str) -> Response:
    """
    The labels of a repository.
    """
    repository = call.repository(owner, name)
    return call.some([call.shapes.label(each) for each in repository.labels])


@issue_routes.on("POST", f"{REPOSITORY}/labels")
def create_label(call: ApiCall, owner: str, name: str) -> Response:
    """
    A new label.
    """
    repository = call.own_repository(owner, name)
    color = call.text("color").removeprefix("#")
    label = call.world.add_label(repository, call.text("name"), color)
    return json_answer(call.shapes.label(label), 201)


@issue_routes.on("GET", f"{REPOSITORY}/labels/{{label_id}}")
def one_label(call: ApiCall, owner: str, name: str, label_id: str) -> Response:
    """
    One label.
    """
    for label in call.repository(owner, name).labels:
        if str(label.id) == label_id:
            return json_answer(call.shapes.label(label))
    raise not_found()


def _named_labels(repository: Repository, wanted: Any) -> list[Label]:
    if not isinstance(wanted, list):
        raise ApiError(422, "[Labels]: not a list")
    return [
        label
        for label in repository.labels
        if label.id in wanted or label.name in wanted
    ]


@issue_routes.on("GET", f"{REPOSITORY}/issues/{{index}}/labels")
@issue_routes.on("POST", f"{REPOSITORY}/issues/{{index}}/labels")
@issue_routes.on("PUT", f"{REPOSITORY}/issues/{{index}}/labels")
def issue_labels(call: ApiCall, owner: str, name: str, index: str) -> Response:
    """
    The labels of an issue: read, add, or replace.
    """
    repository = call.repository(owner, name)
    issue = _issue(call, repository, index)
    if call.method in ("POST", "PUT"):
        repository = call.own_repository(owner, name)
        if call.method == "PUT":
            issue.labels.clear()
        for label in _named_labels(repository, call.body.get("labels", [])):
            if label not in issue.labels:
                issue.labels.append(label)
    return json_answer([call.shapes.label(each) for each in issue.labels])


@issue_routes.on("DELETE", f"{REPOSITORY}/issues/{{index}}/labels/{{label_id}}")
def remove_label(
    call: ApiCall, owner: str, name: str, index: str, label_id: str
) -> Response:
    """
    Take a label off an issue.
    """
    repository = call.own_repository(owner, name)
    issue = _issue(call, repository, index)
    issue.labels = [each for each in issue.labels if str(each.id) != label_id]
    return Response(204, {}, b"")


# Pull requests


@issue_routes.on("GET", f"{REPOSITORY}/pulls")
def pulls(call: ApiCall, owner: str, name: str) -> Response:
    """
    The pull requests of a repository.
    """
    repository = call.repository(owner, name)
    return call.some(
        [
            call.shapes.pull(repository, issue, call.user)
            for issue in _selected(call, repository)
            if issue.is_pull
        ]
    )


@issue_routes.on("POST", f"{REPOSITORY}/pulls")
def create_pull(call: ApiCall, owner: str, name: str) -> Response:
    """
    A new pull request between two branches.
    """
    repository = call.repository(owner, name)
    head, base = call.text("head"), call.text("base")
    for branch in (head, base):
        if branch not in repository.branches:
            raise not_found()
    issue = call.world.add_issue(
        repository,
        call.who(),
        call.text("title"),
        str(call.body.get("body") or ""),
        call.core.now(),
        head=head,
        base=base,
    )
    return json_answer(call.shapes.pull(repository, issue, call.user), 201)


@issue_routes.on("GET", f"{REPOSITORY}/pulls/{{index}}.diff")
@issue_routes.on("GET", f"{REPOSITORY}/pulls/{{index}}.patch")
def pull_diff(call: ApiCall, owner: str, name: str, index: str) -> Response:
    """
    The change as text.
    """
    _pull(call, call.repository(owner, name), index)
    return text_answer(
        "diff --git a/src/hello.py b/src/hello.py\n"
        "--- a/src/hello.py\n+++ b/src/hello.py\n@@ -1 +1 @@\n"
        '-print("hello")\n+print("hello, how are you?")\n'
    )


@issue_routes.on("GET", f"{REPOSITORY}/pulls/{{index}}")
def one_pull(call: ApiCall, owner: str, name: str, index: str) -> Response:
    """
    One pull request.
    """
    repository = call.repository(owner, name)
    issue = _pull(call, repository, index)
    return json_answer(call.shapes.pull(repository, issue, call.user))


@issue_routes.on("POST", f"{REPOSITORY}/pulls/{{index}}/merge")
def merge(call: ApiCall, owner: str, name: str, index: str) -> Response:
    """
    Put the head's files onto the base.
    """
    repository = call.own_repository(owner, name)
    issue = _pull(call, repository, index)
    if issue.state == "closed":
        raise ApiError(405, "")
    repository.branches[issue.base].update(repository.branches.get(issue.head, {}))
    issue.state, issue.is_merged = "closed", True
    return Response(200, {}, b"")
