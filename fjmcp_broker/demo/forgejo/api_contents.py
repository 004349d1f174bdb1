"""
The stand-in's API: files, branches and commits of a repository, with real state.
"""

from base64 import b64decode

from klein import Response

from fjmcp_broker.demo.forgejo.http import json_answer, text_answer
from fjmcp_broker.demo.forgejo.router import ApiCall, ApiError, Routes, not_found
from fjmcp_broker.demo.forgejo.shapes import NO_SHA
from fjmcp_broker.demo.forgejo.world import Repository, content_digest

content_routes = Routes()


def _files(call: ApiCall, repository: Repository) -> tuple[str, dict[str, bytes]]:
    """
    The branch that the request names (or the commit's branch), and its files.
    """
    wanted = call.query.get("ref") or str(call.body.get("branch") or "main")
    for commit in repository.commits:
        if commit.sha == wanted:
            wanted = commit.branch
    if wanted not in repository.branches:
        raise ApiError(404, f"object does not exist [id: {wanted}, rel_path: ]")
    return wanted, repository.branches[wanted]


@content_routes.on("GET", "/repos/{owner}/{name}/contents")
@content_routes.on("GET", "/repos/{owner}/{name}/contents/{path*}")
def contents(call: ApiCall, owner: str, name: str, path: str = "") -> Response:
    """
    A file with its content, or the list of a directory.
    """
    repository = call.repository(owner, name)
    branch, files = _files(call, repository)
    path = path.strip("/")
    if path in files:
        return json_answer(
            call.shapes.content(
                repository, branch, path, files[path], with_content=True
            )
        )
    below = f"{path}/" if path else ""
    entries: dict[str, bytes | None] = {}
    for each in sorted(files):
        if each.startswith(below):
            first, slash, _ = each.removeprefix(below).partition("/")
            entries[below + first] = None if slash else files[each]
    if not entries:
        raise ApiError(404, f"object does not exist [id: , rel_path: {path}]")
    return json_answer(
        [
            call.shapes.content(repository, branch, each, content, with_content=False)
            for each, content in entries.items()
        ]
    )


@content_routes.on("GET", "/repos/{owner}/{name}/raw/{path*}")
@content_routes.on("GET", "/repos/{owner}/{name}/media/{path*}")
def raw(call: ApiCall, owner: str, name: str, path: str) -> Response:
    """
    The bytes of a file.
    """
    _, files = _files(call, call.repository(owner, name))
    if path not in files:
        raise not_found()
    return text_answer(files[path].decode("utf-8", "replace"))


@content_routes.on("POST", "/repos/{owner}/{name}/contents/{path*}")
@content_routes.on("PUT", "/repos/{owner}/{name}/contents/{path*}")
@content_routes.on("DELETE", "/repos/{owner}/{name}/contents/{path*}")
def change_file(call: ApiCall, owner: str, name: str, path: str) -> Response:
    """
    Create, change or remove a file; the latter two need its present digest.
    """
    repository = call.own_repository(owner, name)
    branch, files = _files(call, repository)
    if call.method == "POST":
        if path in files:
            raise ApiError(422, f"repository file already exists [path: {path}]")
    elif path not in files:
        raise not_found()
    elif call.body.get("sha") not in (None, content_digest(files[path])):
        raise ApiError(422, f"sha does not match [given: {call.body['sha']}]")
    content = None
    if call.method != "DELETE":
        try:
            content = b64decode(str(call.body.get("content", "")), validate=True)
        except ValueError as error:
            raise ApiError(422, str(error)) from error
    target = str(call.body.get("new_branch") or branch)
    if target != branch:
        repository.branches[target] = dict(files)
    message = str(call.body.get("message") or f"Change {path}")
    commit = call.world.write_file(
        repository, target, path, content, message, call.who(), call.core.now()
    )
    shape = None
    if content is not None:
        shape = call.shapes.content(
            repository, target, path, content, with_content=True
        )
    answer = {
        "content": shape,
        "commit": call.shapes.commit(repository, commit),
        "verification": None,
    }
    return json_answer(answer, 201 if call.method == "POST" else 200)


@content_routes.on("GET", "/repos/{owner}/{name}/git/trees/{ref}")
def tree(call: ApiCall, owner: str, name: str, ref: str) -> Response:
    """
    All files of a branch.
    """
    repository = call.repository(owner, name)
    files = repository.branches.get(ref) or repository.branches["main"]
    entries = [
        {
            "path": path,
            "mode": "100644",
            "type": "blob",
            "size": len(content),
            "sha": content_digest(content),
            "url": "",
        }
        for path, content in sorted(files.items())
    ]
    return json_answer(
        {
            "sha": NO_SHA,
            "url": "",
            "tree": entries,
            "truncated": False,
            "page": 1,
            "total_count": len(entries),
        }
    )


# Branches and commits


@content_routes.on("GET", "/repos/{owner}/{name}/branches")
def branches(call: ApiCall, owner: str, name: str) -> Response:
    """
    The branches.
    """
    repository = call.repository(owner, name)
    return call.some([call.shapes.branch(repository, b) for b in repository.branches])


@content_routes.on("GET", "/repos/{owner}/{name}/branches/{branch*}")
def one_branch(call: ApiCall, owner: str, name: str, branch: str) -> Response:
    """
    One branch.
    """
    repository = call.repository(owner, name)
    if branch not in repository.branches:
        raise not_found()
    return json_answer(call.shapes.branch(repository, branch))


@content_routes.on("POST", "/repos/{owner}/{name}/branches")
def create_branch(call: ApiCall, owner: str, name: str) -> Response:
    """
    A branch that begins where another is.
    """
    repository = call.own_repository(owner, name)
    new, old = call.text("new_branch_name"), call.body.get("old_branch_name")
    start = str(old or call.body.get("old_ref_name") or "main")
    if start not in repository.branches:
        raise ApiError(404, "The old branch does not exist")
    if new in repository.branches:
        raise ApiError(409, "The branch already exists.")
    repository.branches[new] = dict(repository.branches[start])
    return json_answer(call.shapes.branch(repository, new), 201)


@content_routes.on("DELETE", "/repos/{owner}/{name}/branches/{branch*}")
def delete_branch(call: ApiCall, owner: str, name: str, branch: str) -> Response:
    """
    Remove a branch that is not the default one.
    """
    repository = call.own_repository(owner, name)
    if branch == "main":
        raise ApiError(403, "can't delete default branch")
    if repository.branches.pop(branch, None) is None:
        raise not_found()
    return Response(204, {}, b"")


@content_routes.on("GET", "/repos/{owner}/{name}/commits")
def commits(call: ApiCall, owner: str, name: str) -> Response:
    """
    The commits, newest first.
    """
    repository = call.repository(owner, name)
    return call.some(
        [call.shapes.commit(repository, each) for each in reversed(repository.commits)]
    )


@content_routes.on("GET", "/repos/{owner}/{name}/git/commits/{sha}")
def one_commit(call: ApiCall, owner: str, name: str, sha: str) -> Response:
    """
    One commit.
    """
    repository = call.repository(owner, name)
    for commit in repository.commits:
        if commit.sha == sha:
            return json_answer(call.shapes.commit(repository, commit))
    raise not_found()
