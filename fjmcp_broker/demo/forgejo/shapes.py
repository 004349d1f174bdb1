"""
The JSON shapes of the stand-in's API objects, as Forgejo writes them.
"""

from base64 import b64encode
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from fjmcp_broker.demo.forgejo.core import ForgejoCore
from fjmcp_broker.demo.forgejo.state import User
from fjmcp_broker.demo.forgejo.world import (
    DEFAULT_BRANCH,
    Comment,
    Commit,
    Issue,
    Label,
    Repository,
    content_digest,
)

# Values are any JSON; naming each object's type would say the keys twice.
Json = dict[str, Any]

NO_SHA: Final = "0" * 40


def stamp(seconds: int) -> str:
    """
    @param seconds: epoch seconds.
    @return: RFC 3339 text in UTC.
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Shapes:
    """
    Turns records into API objects with absolute links.
    """

    def __init__(self, core: ForgejoCore) -> None:
        """
        @param core: knows the base URL.
        """
        self._core = core

    def _web(self, path: str) -> str:
        return self._core.url(path)

    def _api(self, path: str) -> str:
        return self._core.url(f"/api/v1{path}")

    def user(self, user: User) -> Json:
        """
        A user.
        """
        return {
            "id": user.id,
            "login": user.login,
            "login_name": "",
            "source_id": 0,
            "full_name": user.full_name,
            "email": user.email,
            "avatar_url": self._web(f"/avatars/{user.login}"),
            "html_url": self._web(f"/{user.login}"),
            "language": "en-US",
            "is_admin": False,
            "last_login": stamp(0),
            "created": stamp(0),
            "restricted": False,
            "active": user.is_active,
            "prohibit_login": user.prohibit_login,
            "location": "",
            "pronouns": "",
            "website": "",
            "description": "",
            "visibility": "public",
            "followers_count": 0,
            "following_count": 0,
            "starred_repos_count": 0,
            "username": user.login,
        }

    def repository(self, repository: Repository, reader: User | None) -> Json:
        """
        A repository, with what the reader may do in it.
        """
        own = repository.is_owned_by(reader)
        issues = [each for each in repository.issues.values() if each.state == "open"]
        path = f"/{repository.full_name}"
        return {
            "id": repository.id,
            "owner": self.user(repository.owner),
            "name": repository.name,
            "full_name": repository.full_name,
            "description": repository.description,
            "empty": False,
            "private": repository.is_private,
            "fork": False,
            "template": False,
            "mirror": False,
            "size": 24,
            "language": "Python",
            "html_url": self._web(path),
            "url": self._api(f"/repos{path}"),
            "ssh_url": f"git@forgejo.invalid:{repository.full_name}.git",
            "clone_url": self._web(f"{path}.git"),
            "stars_count": 0,
            "forks_count": 0,
            "watchers_count": 1,
            "open_issues_count": sum(not each.is_pull for each in issues),
            "open_pr_counter": sum(each.is_pull for each in issues),
            "release_counter": 1,
            "default_branch": DEFAULT_BRANCH,
            "archived": False,
            "created_at": stamp(repository.created_at),
            "updated_at": stamp(repository.created_at),
            "permissions": {"admin": own, "push": own, "pull": True},
            "has_issues": True,
            "has_wiki": True,
            "has_pull_requests": True,
            "has_projects": True,
            "has_releases": True,
            "has_actions": True,
            "internal": False,
            "object_format_name": "sha1",
            "topics": [],
        }

    def label(self, label: Label) -> Json:
        """
        A label.
        """
        return {
            "id": label.id,
            "name": label.name,
            "exclusive": False,
            "is_archived": False,
            "color": label.color,
            "description": label.description,
            "url": self._api(f"/labels/{label.id}"),
        }

    def comment(self, repository: Repository, issue: Issue, comment: Comment) -> Json:
        """
        A comment.
        """
        page = self._web(f"/{repository.full_name}/issues/{issue.index}")
        return {
            "id": comment.id,
            "html_url": f"{page}#issuecomment-{comment.id}",
            "pull_request_url": page if issue.is_pull else "",
            "issue_url": "" if issue.is_pull else page,
            "user": self.user(comment.author),
            "original_author": "",
            "original_author_id": 0,
            "body": comment.body,
            "assets": [],
            "created_at": stamp(comment.created_at),
            "updated_at": stamp(comment.created_at),
        }

    def issue(self, repository: Repository, issue: Issue) -> Json:
        """
        An issue; pull requests too have this form in lists of issues.
        """
        kind = "pulls" if issue.is_pull else "issues"
        shape: Json = {
            "id": issue.id,
            "url": self._api(f"/repos/{repository.full_name}/issues/{issue.index}"),
            "html_url": self._web(f"/{repository.full_name}/{kind}/{issue.index}"),
            "number": issue.index,
            "user": self.user(issue.author),
            "original_author": "",
            "original_author_id": 0,
            "title": issue.title,
            "body": issue.body,
            "ref": "",
            "assets": [],
            "labels": [self.label(each) for each in issue.labels],
            "milestone": None,
            "assignee": None,
            "assignees": None,
            "state": issue.state,
            "is_locked": False,
            "comments": len(issue.comments),
            "created_at": stamp(issue.created_at),
            "updated_at": stamp(issue.created_at),
            "closed_at": stamp(issue.created_at) if issue.state == "closed" else None,
            "due_date": None,
            "pull_request": None,
            "repository": {
                "id": repository.id,
                "name": repository.name,
                "owner": repository.owner.login,
                "full_name": repository.full_name,
            },
            "pin_order": 0,
        }
        if issue.is_pull:
            shape["pull_request"] = {
                "merged": issue.is_merged,
                "merged_at": None,
                "draft": False,
                "html_url": shape["html_url"],
            }
        return shape

    def pull(self, repository: Repository, issue: Issue, reader: User | None) -> Json:
        """
        A pull request.
        """
        shape = self.issue(repository, issue)
        for name in ("pull_request", "repository", "ref"):
            del shape[name]

        def end(branch: str) -> Json:
            return {
                "label": branch,
                "ref": branch,
                "sha": self.tip(repository, branch),
                "repo_id": repository.id,
                "repo": self.repository(repository, reader),
            }

        page = shape["html_url"]
        return shape | {
            "url": page,
            "diff_url": f"{page}.diff",
            "patch_url": f"{page}.patch",
            "draft": False,
            "mergeable": not issue.is_merged,
            "merged": issue.is_merged,
            "merged_at": stamp(issue.created_at) if issue.is_merged else None,
            "merge_commit_sha": None,
            "merged_by": None,
            "merge_base": self.tip(repository, issue.base),
            "base": end(issue.base),
            "head": end(issue.head),
            "requested_reviewers": None,
            "allow_maintainer_edit": False,
            "additions": 1,
            "deletions": 1,
            "changed_files": 1,
            "review_comments": 0,
        }

    def tip(self, repository: Repository, branch: str) -> str:
        """
        @return: the id of the last commit of a branch.
        """
        for commit in reversed(repository.commits):
            if commit.branch == branch:
                return commit.sha
        return NO_SHA

    def commit(self, repository: Repository, commit: Commit) -> Json:
        """
        A commit.
        """
        url = self._api(f"/repos/{repository.full_name}/git/commits/{commit.sha}")
        person = {
            "name": commit.author.full_name,
            "email": commit.author.email,
            "date": stamp(commit.created_at),
        }
        return {
            "url": url,
            "sha": commit.sha,
            "created": stamp(commit.created_at),
            "html_url": self._web(f"/{repository.full_name}/commit/{commit.sha}"),
            "commit": {
                "url": url,
                "author": person,
                "committer": person,
                "message": commit.message,
                "tree": {"url": url, "sha": commit.sha, "created": person["date"]},
                "verification": None,
            },
            "author": self.user(commit.author),
            "committer": self.user(commit.author),
            "parents": [],
            "files": None,
            "stats": None,
        }

    def branch(self, repository: Repository, name: str) -> Json:
        """
        A branch with its last commit.
        """
        tip = self.tip(repository, name)
        return {
            "name": name,
            "commit": {"id": tip, "message": "", "url": "", "timestamp": stamp(0)},
            "protected": False,
            "required_approvals": 0,
            "enable_status_check": False,
            "status_check_contexts": [],
            "user_can_push": True,
            "user_can_merge": True,
            "effective_branch_protection_name": "",
        }

    def content(
        self,
        repository: Repository,
        branch: str,
        path: str,
        content: bytes | None,
        *,
        with_content: bool,
    ) -> Json:
        """
        A file, or a directory when C{content} is None.

        @param with_content: as for a single file; lists leave it out.
        """
        quoted = quote(path)
        url = self._api(f"/repos/{repository.full_name}/contents/{quoted}?ref={branch}")
        full = with_content and content is not None
        return {
            "name": path.rsplit("/", 1)[-1],
            "path": path,
            "sha": content_digest(content or path.encode()),
            "last_commit_sha": self.tip(repository, branch),
            "type": "dir" if content is None else "file",
            "size": len(content or b""),
            "encoding": "base64" if full else None,
            "content": b64encode(content or b"").decode() if full else None,
            "target": None,
            "url": url,
            "html_url": self._web(
                f"/{repository.full_name}/src/branch/{branch}/{quoted}"
            ),
            "git_url": url,
            "download_url": None
            if content is None
            else self._web(f"/{repository.full_name}/raw/branch/{branch}/{quoted}"),
            "submodule_git_url": None,
            "_links": {"self": url, "git": url, "html": url},
        }
