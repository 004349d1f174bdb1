"""
The rest of the stand-in's API: every other known path answers a plausible object
or list, so that every tool of forgejo-mcp gets a result. Nothing is remembered.
"""

import re
from typing import Any, Final

from klein import Response

from fjmcp_broker.demo.forgejo.http import json_answer, text_answer
from fjmcp_broker.demo.forgejo.router import ApiCall, not_found
from fjmcp_broker.demo.forgejo.samples import Samples

REPOSITORY: Final = r"/repos/[^/]+/[^/]+"

# Path pattern, name of the sample, and whether the answer is a list of it.
SAMPLES: Final = (
    (rf"(?:{REPOSITORY})?/notifications", "notification", True),
    (r"/notifications/threads/[^/]+", "notification", False),
    (r"/(?:user|users/[^/]+)/orgs", "organization", True),
    (r"/orgs", "organization", True),
    (r"/orgs/[^/]+", "organization", False),
    (r"/orgs/[^/]+/(?:public_)?members", "user", True),
    (r"/teams/[^/]+/members", "user", True),
    (r"/orgs/[^/]+/teams", "team", True),
    (r"/teams/[^/]+", "team", False),
    (r"/orgs/[^/]+/labels", "label", True),
    (r"/orgs/[^/]+/labels/[^/]+", "label", False),
    (r"/(?:orgs|teams)/[^/]+/repos", "repository_object", True),
    (r"/user/stopwatches", "stopwatch", True),
    (r"/user/times", "tracked_time", True),
    (rf"{REPOSITORY}/(?:issues/\d+/)?times", "tracked_time", True),
    (rf"{REPOSITORY}/milestones", "milestone", True),
    (rf"{REPOSITORY}/milestones/[^/]+", "milestone", False),
    (rf"{REPOSITORY}/issues/\d+/(?:dependencies|blocks)", "issue", True),
    (rf"{REPOSITORY}/issues/(?:comments/)?\d+/assets", "attachment", True),
    (rf"{REPOSITORY}/issues/(?:comments/)?\d+/assets/\d+", "attachment", False),
    (rf"{REPOSITORY}/pulls/\d+/files", "changed_file", True),
    (rf"{REPOSITORY}/pulls/\d+/commits", "commit", True),
    (rf"{REPOSITORY}/pulls/\d+/reviews", "review", True),
    (rf"{REPOSITORY}/pulls/\d+/reviews/\d+", "review", False),
    (rf"{REPOSITORY}/pulls/\d+/reviews/\d+/(?:dismissals)", "review", False),
    (rf"{REPOSITORY}/pulls/\d+/reviews/\d+/comments", "review_comment", True),
    (rf"{REPOSITORY}/pulls/\d+/requested_reviewers", "review", True),
    (rf"{REPOSITORY}/releases", "release", True),
    (rf"{REPOSITORY}/releases/(?:latest|\d+|tags/.+)", "release", False),
    (rf"{REPOSITORY}/releases/\d+/assets", "attachment", True),
    (rf"{REPOSITORY}/releases/\d+/assets/\d+", "attachment", False),
    (rf"{REPOSITORY}/hooks", "hook", True),
    (rf"{REPOSITORY}/hooks/\d+", "hook", False),
    (rf"{REPOSITORY}/branch_protections", "branch_protection", True),
    (rf"{REPOSITORY}/branch_protections/.+", "branch_protection", False),
    (rf"{REPOSITORY}/(?:commits|statuses)/.+/statuses", "status", True),
    (rf"{REPOSITORY}/statuses/.+", "status", True),
    (rf"{REPOSITORY}/commits/.+/status", "combined_status", False),
    (rf"{REPOSITORY}/wiki/pages", "wiki_page", True),
    (rf"{REPOSITORY}/wiki/(?:page/.+|new)", "wiki_page", False),
    (rf"{REPOSITORY}/wiki/revisions/.+", "wiki_revisions", False),
    (rf"{REPOSITORY}/actions/runs", "workflow_runs", False),
    (rf"{REPOSITORY}/actions/tasks", "workflow_runs", False),
    (rf"{REPOSITORY}/actions/runs/\d+", "workflow_run", False),
    (rf"{REPOSITORY}/actions/runs/\d+/jobs", "workflow_job", True),
    (rf"{REPOSITORY}/forks", "repository_object", True),
    (rf"{REPOSITORY}/tags", "tag", True),
    (rf"{REPOSITORY}/(?:collaborators|stargazers|subscribers|assignees)", "user", True),
)
_COMPILED: Final = tuple(
    (re.compile(pattern), name, is_list) for pattern, name, is_list in SAMPLES
)
_MEMBERSHIP: Final = re.compile(r"/orgs/[^/]+/(?:public_)?members/[^/]+")
_TEAM_SEARCH: Final = re.compile(r"/orgs/[^/]+/teams/search")
_JOB_LOG: Final = re.compile(rf"{REPOSITORY}/actions/(?:jobs|runs)/\d+/logs")


def everything_else(call: ApiCall) -> Response:
    """
    Answer a request that no other route took.

    @raise ApiError: for a repository that is not visible, without a token, and
        for paths that Forgejo does not have either.
    """
    samples = Samples(call, _repository(call))
    if call.method in ("GET", "HEAD"):
        return _read(call, samples)
    call.who()
    if call.method in ("PUT", "DELETE"):
        return Response(204, {}, b"")
    for pattern, name, _ in _COMPILED:
        if pattern.fullmatch(call.path):
            made: dict[str, Any] = samples.named(name)
            made |= {key: each for key, each in call.body.items() if key in made}
            return json_answer(made, 201 if call.method == "POST" else 200)
    return Response(204, {}, b"")


def _repository(call: ApiCall) -> Any:
    segments = call.path.split("/")
    if segments[1] == "repos" and len(segments) > 3:
        return call.repository(segments[2], segments[3])
    visible = call.world.visible_to(call.user)
    return visible[0]


def _read(call: ApiCall, samples: Samples) -> Response:
    if not call.path.startswith(("/repos/", "/orgs", "/users/")):
        call.who()
    if call.path == "/notifications/new":
        return json_answer({"new": 1})
    if _MEMBERSHIP.fullmatch(call.path):
        return Response(204, {}, b"")
    if _TEAM_SEARCH.fullmatch(call.path):
        return json_answer({"ok": True, "data": [samples.named("team")]})
    if _JOB_LOG.fullmatch(call.path):
        return text_answer("2026-01-01T00:00:00Z hello from the job\n")
    for pattern, name, is_list in _COMPILED:
        if pattern.fullmatch(call.path):
            sample = samples.named(name)
            return call.some([sample]) if is_list else json_answer(sample)
    raise not_found()
