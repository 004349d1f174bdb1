"""
Plausible API objects for the parts of Forgejo that the stand-in has no state for.
"""

from base64 import b64encode
from typing import Final

from fjmcp_broker.demo.forgejo.router import ApiCall
from fjmcp_broker.demo.forgejo.shapes import Json, stamp
from fjmcp_broker.demo.forgejo.world import Repository

ORGANIZATION: Final = "friends"


class Samples:
    """
    One object of each kind, all about one repository.
    """

    def __init__(self, call: ApiCall, repository: Repository) -> None:
        """
        @param call: who asks, and the state that samples borrow from.
        @param repository: what the objects are about.
        """
        self._call = call
        self._shapes = call.shapes
        self._repository = repository
        self._time = stamp(repository.created_at)
        self._person = self._shapes.user(repository.owner)

    def named(self, name: str) -> Json:
        """
        @param name: the kind, the name of a method without its underscore.
        @return: a new object.
        """
        shape: Json = getattr(self, f"_{name}")()
        return shape

    def _url(self, path: str) -> str:
        return self._call.core.url(f"/api/v1{path}")

    def _user(self) -> Json:
        return self._person

    def _repository_object(self) -> Json:
        return self._shapes.repository(self._repository, self._call.user)

    def _issue(self) -> Json:
        # A new repository has no issues: then one of the first repository.
        repository = self._repository
        if not repository.issues:
            repository = next(iter(self._call.world.repositories.values()))
        return self._shapes.issue(repository, repository.issues[1])

    def _commit(self) -> Json:
        return self._shapes.commit(self._repository, self._repository.commits[-1])

    def _label(self) -> Json:
        return self._shapes.label(self._repository.labels[0])

    def _notification(self) -> Json:
        return {
            "id": 1,
            "repository": self._repository_object(),
            "subject": {
                "title": "The greeting is too short",
                "url": self._url(f"/repos/{self._repository.full_name}/issues/1"),
                "latest_comment_url": "",
                "html_url": "",
                "latest_comment_html_url": "",
                "type": "Issue",
                "state": "open",
            },
            "unread": True,
            "pinned": False,
            "updated_at": self._time,
            "url": self._url("/notifications/threads/1"),
        }

    def _organization(self) -> Json:
        return {
            "id": 1,
            "name": ORGANIZATION,
            "username": ORGANIZATION,
            "full_name": "Friends of the demo",
            "email": "",
            "avatar_url": "",
            "description": "",
            "website": "",
            "location": "",
            "visibility": "public",
            "repo_admin_change_team_access": False,
        }

    def _team(self) -> Json:
        return {
            "id": 1,
            "name": "Owners",
            "description": "",
            "organization": self._organization(),
            "includes_all_repositories": True,
            "permission": "owner",
            "units": ["repo.code", "repo.issues"],
            "units_map": {"repo.code": "owner", "repo.issues": "owner"},
            "can_create_org_repo": True,
        }

    def _stopwatch(self) -> Json:
        return {
            "created": self._time,
            "seconds": 60,
            "duration": "1 minute",
            "issue_index": 1,
            "issue_title": "The greeting is too short",
            "repo_owner_name": self._repository.owner.login,
            "repo_name": self._repository.name,
        }

    def _tracked_time(self) -> Json:
        return {
            "id": 1,
            "created": self._time,
            "time": 60,
            "user_id": self._repository.owner.id,
            "user_name": self._repository.owner.login,
            "issue_id": 1,
            "issue": self._issue(),
        }

    def _milestone(self) -> Json:
        return {
            "id": 1,
            "title": "First release",
            "description": "",
            "state": "open",
            "open_issues": 1,
            "closed_issues": 0,
            "created_at": self._time,
            "updated_at": self._time,
            "closed_at": None,
            "due_on": None,
        }

    def _attachment(self) -> Json:
        return {
            "id": 1,
            "name": "greeting.txt",
            "size": 6,
            "download_count": 0,
            "created_at": self._time,
            "uuid": "00000000-0000-4000-8000-000000000001",
            "browser_download_url": self._call.core.url(
                "/attachments/00000000-0000-4000-8000-000000000001"
            ),
            "type": "attachment",
        }

    def _changed_file(self) -> Json:
        return {
            "filename": "src/hello.py",
            "status": "changed",
            "additions": 1,
            "deletions": 1,
            "changes": 2,
            "html_url": "",
            "contents_url": "",
            "raw_url": "",
        }

    def _review(self) -> Json:
        return {
            "id": 1,
            "user": self._person,
            "team": None,
            "state": "COMMENT",
            "body": "Looks good.",
            "commit_id": self._repository.commits[-1].sha,
            "stale": False,
            "official": True,
            "dismissed": False,
            "comments_count": 1,
            "submitted_at": self._time,
            "updated_at": self._time,
            "html_url": "",
            "pull_request_url": "",
        }

    def _review_comment(self) -> Json:
        return {
            "id": 1,
            "body": "Nice.",
            "user": self._person,
            "resolver": None,
            "pull_request_review_id": 1,
            "created_at": self._time,
            "updated_at": self._time,
            "path": "src/hello.py",
            "commit_id": "",
            "original_commit_id": "",
            "diff_hunk": "@@ -1 +1 @@",
            "position": 1,
            "original_position": 0,
            "html_url": "",
            "pull_request_url": "",
        }

    def _release(self) -> Json:
        page = self._call.core.url(f"/{self._repository.full_name}/releases/tag/v1.0")
        return {
            "id": 1,
            "tag_name": "v1.0",
            "target_commitish": "main",
            "name": "First release",
            "body": "",
            "url": self._url(f"/repos/{self._repository.full_name}/releases/1"),
            "html_url": page,
            "tarball_url": f"{page}.tar.gz",
            "zipball_url": f"{page}.zip",
            "draft": False,
            "prerelease": False,
            "created_at": self._time,
            "published_at": self._time,
            "author": self._person,
            "assets": [self._attachment()],
        }

    def _tag(self) -> Json:
        commit = self._repository.commits[0]
        return {
            "name": "v1.0",
            "message": "",
            "id": commit.sha,
            "commit": {"url": "", "sha": commit.sha, "created": self._time},
            "zipball_url": "",
            "tarball_url": "",
        }

    def _hook(self) -> Json:
        return {
            "id": 1,
            "type": "forgejo",
            "branch_filter": "",
            "config": {"content_type": "json", "url": "http://hooks.invalid/"},
            "events": ["push"],
            "authorization_header": "",
            "active": True,
            "updated_at": self._time,
            "created_at": self._time,
        }

    def _branch_protection(self) -> Json:
        names = "push_whitelist merge_whitelist approvals_whitelist".split()
        lists: dict[str, list[str]] = {f"{name}_usernames": [] for name in names}
        return {
            "branch_name": "main",
            "rule_name": "main",
            "enable_push": True,
            "required_approvals": 1,
            "enable_status_check": False,
            "status_check_contexts": [],
            "created_at": self._time,
            "updated_at": self._time,
            **lists,
        }

    def _status(self) -> Json:
        return {
            "id": 1,
            "status": "success",
            "target_url": "",
            "description": "",
            "url": "",
            "context": "test",
            "creator": self._person,
            "created_at": self._time,
            "updated_at": self._time,
        }

    def _combined_status(self) -> Json:
        return {
            "state": "success",
            "sha": self._repository.commits[-1].sha,
            "total_count": 1,
            "statuses": [self._status()],
            "repository": self._repository_object(),
            "commit_url": "",
            "url": "",
        }

    def _wiki_page(self) -> Json:
        return {
            "title": "Home",
            "html_url": "",
            "sub_url": "Home",
            "last_commit": self._wiki_commit(),
            "content_base64": b64encode(b"Welcome.\n").decode(),
            "commit_count": 1,
            "sidebar": "",
            "footer": "",
        }

    def _wiki_commit(self) -> Json:
        person = {
            "name": self._repository.owner.full_name,
            "email": self._repository.owner.email,
            "date": self._time,
        }
        return {
            "sha": self._repository.commits[0].sha,
            "author": person,
            "commiter": person,
            "message": "Begin the wiki",
        }

    def _wiki_revisions(self) -> Json:
        return {"commits": [self._wiki_commit()], "count": 1}

    def _workflow_run(self) -> Json:
        return {
            "id": 1,
            "title": "Say hello",
            "repository": self._repository_object(),
            "workflow_id": "test.yml",
            "index_in_repo": 1,
            "run_number": 1,
            "trigger_user": self._person,
            "prettyref": "main",
            "head_branch": "main",
            "head_sha": self._repository.commits[-1].sha,
            "commit_sha": self._repository.commits[-1].sha,
            "event": "push",
            "status": "success",
            "created": self._time,
            "updated": self._time,
            "html_url": "",
        }

    def _workflow_runs(self) -> Json:
        return {"workflow_runs": [self._workflow_run()], "total_count": 1}

    def _workflow_job(self) -> Json:
        return {
            "id": 1,
            "attempt": 1,
            "run_id": 1,
            "repo_id": self._repository.id,
            "owner_id": self._repository.owner.id,
            "name": "test",
            "needs": None,
            "runs_on": ["docker"],
            "task_id": 1,
            "status": "success",
        }
