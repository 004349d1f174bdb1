"""
Every API path that forgejo-mcp's reading tools ask for, and junk.
"""

from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.demo.browser import StandInTestCase

REPOSITORY = "/repos/alice/hello"

# Asked for by the reading tools of forgejo-mcp 2.18.0 and 2.34.1.
LISTS = (
    "/notifications",
    "/orgs/friends/labels",
    "/orgs/friends/members",
    "/orgs/friends/teams",
    f"{REPOSITORY}/actions/runs/1/jobs",
    f"{REPOSITORY}/branch_protections",
    f"{REPOSITORY}/branches",
    f"{REPOSITORY}/commits",
    f"{REPOSITORY}/contents/?ref=main",
    f"{REPOSITORY}/hooks",
    f"{REPOSITORY}/issues",
    f"{REPOSITORY}/issues/1/assets",
    f"{REPOSITORY}/issues/1/blocks",
    f"{REPOSITORY}/issues/1/comments",
    f"{REPOSITORY}/issues/1/dependencies",
    f"{REPOSITORY}/issues/1/times",
    f"{REPOSITORY}/issues/comments/1/assets",
    f"{REPOSITORY}/labels",
    f"{REPOSITORY}/milestones",
    f"{REPOSITORY}/notifications",
    f"{REPOSITORY}/pulls",
    f"{REPOSITORY}/forks",
    f"{REPOSITORY}/pulls/2/commits",
    f"{REPOSITORY}/pulls/2/files",
    f"{REPOSITORY}/pulls/2/reviews",
    f"{REPOSITORY}/pulls/2/reviews/1/comments",
    f"{REPOSITORY}/releases",
    f"{REPOSITORY}/releases/1/assets",
    f"{REPOSITORY}/tags",
    f"{REPOSITORY}/times",
    f"{REPOSITORY}/wiki/pages",
    "/repos/issues/search",
    "/user/orgs",
    "/user/repos",
    "/user/stopwatches",
    "/user/times",
    "/users/bob/orgs",
)
OBJECTS = (
    "/notifications/new",
    "/notifications/threads/1",
    "/orgs/friends",
    "/orgs/friends/labels/1",
    "/orgs/friends/teams/search",
    REPOSITORY,
    f"{REPOSITORY}/actions/runs",
    f"{REPOSITORY}/actions/runs/1",
    f"{REPOSITORY}/branch_protections/main",
    f"{REPOSITORY}/branches/main",
    f"{REPOSITORY}/commits/main/status",
    f"{REPOSITORY}/contents/README.md",
    f"{REPOSITORY}/git/trees/main",
    f"{REPOSITORY}/hooks/1",
    f"{REPOSITORY}/issues/1",
    f"{REPOSITORY}/issues/1/assets/1",
    f"{REPOSITORY}/issues/comments/1",
    f"{REPOSITORY}/issues/comments/1/assets/1",
    f"{REPOSITORY}/labels/1",
    f"{REPOSITORY}/pulls/2",
    f"{REPOSITORY}/pulls/2/reviews/1",
    f"{REPOSITORY}/releases/1",
    f"{REPOSITORY}/releases/1/assets/1",
    f"{REPOSITORY}/releases/latest",
    f"{REPOSITORY}/releases/tags/v1.0",
    f"{REPOSITORY}/wiki/page/Home",
    f"{REPOSITORY}/wiki/revisions/Home",
    "/repos/search",
    "/settings/api",
    "/teams/1",
    "/user",
    "/users/bob",
    "/users/search",
    "/version",
)
TEXTS = (
    f"{REPOSITORY}/actions/jobs/1/logs",
    f"{REPOSITORY}/pulls/2.diff",
    f"{REPOSITORY}/raw/README.md",
)


class KnownPathTests(StandInTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.alice = self.controls.issue_tokens("alice", "all").access_token

    def test_lists(self) -> None:
        """Each answers a list with at least one object."""
        for path in LISTS:
            answer = self.api(path, self.alice)
            self.assertEqual(answer.status, 200, path)
            self.assertIsInstance(answer.json, list, path)
            self.assertIsInstance(answer.json[0], dict, path)

    def test_objects(self) -> None:
        """Each answers an object with members."""
        for path in OBJECTS:
            answer = self.api(path, self.alice)
            self.assertEqual(answer.status, 200, path)
            self.assertIsInstance(answer.json, dict, path)
            self.assertTrue(answer.json, path)

    def test_texts(self) -> None:
        """Each answers some text."""
        for path in TEXTS:
            answer = self.api(path, self.alice)
            self.assertEqual(answer.status, 200, path)
            self.assertIn("text/plain", answer.headers["content-type"])
            self.assertTrue(answer.text, path)

    def test_membership(self) -> None:
        """A member is 204, without a body."""
        answer = self.api("/orgs/friends/members/bob", self.alice)
        self.assertEqual((answer.status, answer.body), (204, b""))

    def test_new_repository(self) -> None:
        """A repository without issues answers too."""
        self.api("/user/repos", self.alice, "POST", {"name": "new"})
        for path in ("issues/1/times", "times", "releases", "commits/main/status"):
            answer = self.api(f"/repos/alice/new/{path}", self.alice)
            self.assertEqual(answer.status, 200, path)

    def test_head(self) -> None:
        """HEAD is GET without a body."""
        answer = self.api("/user", self.alice, "HEAD")
        self.assertEqual((answer.status, answer.body), (200, b""))


PATHS = st.sampled_from(
    (
        "/login/oauth/authorize",
        "/login/oauth/access_token",
        "/login/oauth/introspect",
        "/login/oauth/userinfo",
        "/login/oauth/grant",
        "/user/login",
        "/api/v1/user",
        "/alice/hello",
    )
)
TYPES = st.sampled_from(
    ("application/json", "application/x-www-form-urlencoded", "x", "")
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.lists(st.integers() | st.text(max_size=3), max_size=2)
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=1)
)
# Paths that take a body, with the members that they read.
WRITES = (
    ("/user/repos", "name description private"),
    (f"{REPOSITORY}/issues", "title body"),
    (f"{REPOSITORY}/issues/1", "title body state"),
    (f"{REPOSITORY}/issues/1/comments", "body"),
    (f"{REPOSITORY}/issues/1/labels", "labels"),
    (f"{REPOSITORY}/issues/comments/1", "body"),
    (f"{REPOSITORY}/labels", "name color"),
    (f"{REPOSITORY}/pulls", "title body head base"),
    (f"{REPOSITORY}/pulls/2", "title body state"),
    (f"{REPOSITORY}/branches", "new_branch_name old_branch_name"),
    (f"{REPOSITORY}/contents/README.md", "content message sha branch new_branch"),
    (f"{REPOSITORY}/contents/new", "content message branch"),
    (f"{REPOSITORY}/releases", "tag_name id"),
)


class JunkTests(StandInTestCase):
    @settings(max_examples=100, deadline=None)
    @given(
        method=st.sampled_from(("GET", "POST", "PUT", "DELETE")),
        path=PATHS,
        query=st.text(max_size=20),
        content_type=TYPES,
        body=st.binary(max_size=60),
        authorization=st.sampled_from(("", "token", "Bearer", "Basic", "Basic Og==")),
    )
    def test_junk_is_never_a_server_error(
        self,
        method: str,
        path: str,
        query: str,
        content_type: str,
        body: bytes,
        authorization: str,
    ) -> None:
        """Whatever arrives, the answer is not a 5xx, and nothing is logged."""
        answer = self.send(
            method,
            f"{path}?{quote(query)}",
            body=body,
            headers={"Content-Type": content_type, "Authorization": authorization},
        )
        self.assertLess(answer.status, 500)
        self.assertEqual(self.flushLoggedErrors(), [])

    @settings(max_examples=10, deadline=None)
    @given(data=st.data())
    def test_members_of_any_type_are_never_a_server_error(
        self, data: st.DataObject
    ) -> None:
        """Every path that takes a body survives values of any type."""
        self.setUp()
        token = self.controls.issue_tokens("alice", "all").access_token
        for path, names in WRITES:
            body = {name: data.draw(VALUES) for name in names.split()}
            for method in ("POST", "PATCH", "PUT"):
                answer = self.api(path, token, method, body)
                self.assertLess(answer.status, 500, (path, method, body))
                self.assertEqual(self.flushLoggedErrors(), [])
