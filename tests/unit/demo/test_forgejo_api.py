"""
The stand-in's API: who may call what, and that it remembers.
"""

from base64 import b64encode

from tests.unit.demo.browser import StandInTestCase

BAD = "user does not exist [uid: 0, name: ]"


class ApiTestCase(StandInTestCase):
    """
    Both users with a token that may do everything the broker asks for.
    """

    scope = "read:user write:repository write:issue read:organization"

    def setUp(self) -> None:
        super().setUp()
        self.alice = self.controls.issue_tokens("alice", self.scope).access_token
        self.bob = self.controls.issue_tokens("bob", self.scope).access_token


class AuthenticationTests(ApiTestCase):
    def test_both_schemes_and_the_query(self) -> None:
        """token, Bearer, and the query parameters."""
        for scheme in ("token", "Bearer"):
            answer = self.get("/api/v1/user", Authorization=f"{scheme} {self.alice}")
            self.assertEqual(answer.json["login"], "alice")
        for name in ("token", "access_token"):
            answer = self.get(f"/api/v1/user?{name}={self.bob}")
            self.assertEqual(answer.json["login"], "bob")

    def test_organizations_of_a_user(self) -> None:
        """Those that the user is in; teams are not among them."""
        self.controls.set_groups("alice", "friends", "friends:board", "club")
        answer = self.api("/user/orgs", self.alice)
        self.assertEqual([each["name"] for each in answer.json], ["friends", "club"])

    def test_user_has_forgejos_members(self) -> None:
        """login and username are the same."""
        user = self.api("/user", self.alice).json
        self.assertEqual(user["login"], user["username"])
        for name in ("id", "full_name", "email", "active", "visibility"):
            self.assertIn(name, user)

    def test_version_is_open_but_not_with_a_bad_token(self) -> None:
        """The token is checked before the route."""
        answer = self.api("/version", None)
        self.assertEqual(answer.json, {"version": "15.0.3+gitea-1.22.0"})
        self.assertEqual(self.api("/version", "bad").status, 401)
        self.assertEqual(self.api("/nowhere", "bad").status, 401)

    def test_missing_token(self) -> None:
        """Without a token."""
        answer = self.api("/user", None)
        self.assertEqual(
            (answer.status, answer.json["message"]), (401, "token is required")
        )

    def test_401_texts(self) -> None:
        """Version 16 repeats the token in its message."""
        answer = self.api("/user", "bad")
        self.assertEqual((answer.status, answer.json["message"]), (401, BAD))
        self.assertNotIn("www-authenticate", answer.headers)
        self.controls.set_message_style("v16")
        self.assertEqual(
            self.api("/user", "bad").json["message"],
            "oauth2 grant not found or revoked\naccess token does not exist [sha: bad]",
        )
        self.assertRaises(ValueError, self.controls.set_message_style, "v3")

    def test_refresh_token_is_no_access_token(self) -> None:
        """A refresh token does not open the API."""
        token = self.controls.issue_tokens("alice").refresh_token
        self.assertEqual(self.api("/user", token).status, 401)

    def test_expired_token(self) -> None:
        """After an hour."""
        self.clock.advance(3600)
        self.assertEqual(self.api("/user", self.alice).status, 401)

    def test_disabled_accounts(self) -> None:
        """Deactivated and prohibited accounts get 403."""
        self.controls.disable_user("alice")
        self.controls.user("bob").is_active = False
        for token in (self.alice, self.bob):
            self.assertEqual(self.api("/user", token).status, 403)
        self.controls.disable_user("alice", disabled=False)
        self.assertEqual(self.api("/user", self.alice).status, 200)


class ScopeTests(StandInTestCase):
    def status(self, scope: str, method: str, path: str) -> int:
        """
        @return: the status for a token with this scope only.
        """
        self.setUp()
        token = self.controls.issue_tokens("alice", scope).access_token
        return self.api(path, token, method, {}).status

    def test_missing_scope(self) -> None:
        """The refusal names the scope."""
        token = self.controls.issue_tokens("alice", "read:user").access_token
        answer = self.api("/repos/alice/hello", token)
        self.assertEqual(
            (answer.status, answer.json["message"]),
            (
                403,
                "token does not have at least one of required scope(s): "
                "[read:repository]",
            ),
        )

    def test_route_groups(self) -> None:
        """The table of route groups, row by row: scopes that are enough."""
        for method, path, *scopes in (
            ("GET", "/user", "read:user"),
            ("GET", "/users/search", "read:user"),
            ("GET", "/user/repos", "read:user", "read:repository"),
            ("POST", "/user/repos", "write:user", "write:repository"),
            ("GET", "/user/orgs", "read:user", "read:organization"),
            ("GET", "/repos/alice/hello/pulls", "read:repository"),
            ("GET", "/repos/alice/hello/issues", "read:issue"),
            ("GET", "/repos/alice/hello/labels", "read:issue"),
            ("POST", "/repos/alice/hello/issues", "write:issue"),
            ("GET", "/repos/issues/search", "read:issue"),
            ("GET", "/notifications", "read:notification"),
            ("GET", "/repos/alice/hello/notifications", "read:notification"),
            ("GET", "/orgs/friends", "read:organization"),
            ("GET", "/teams/1", "read:organization"),
        ):
            enough = " ".join(scopes)
            self.assertNotEqual(self.status(enough, method, path), 403, path)
            for left_out in scopes:
                rest = " ".join(each for each in scopes if each != left_out)
                status = self.status(f"{rest} read:misc", method, path)
                self.assertEqual(status, 403, f"{path} without {left_out}")

    def test_write_implies_read(self) -> None:
        """And not the other way."""
        self.assertEqual(self.status("write:user", "GET", "/user"), 200)
        status = self.status("read:issue", "POST", "/repos/alice/hello/issues")
        self.assertEqual(status, 403)

    def test_no_recognised_scope_is_everything(self) -> None:
        """Empty, mistyped and comma-joined scopes give full access."""
        for scope in ("", "openid profile", "read:everything", "read:user,read:issue"):
            status = self.status(scope, "GET", "/notifications")
            self.assertEqual(status, 200, scope)

    def test_public_only_permits_nothing(self) -> None:
        """public-only is recognised, and alone permits nothing."""
        self.assertEqual(self.status("public-only", "GET", "/user"), 403)
        self.assertEqual(self.status("all", "GET", "/user"), 200)


class RepositoryTests(ApiTestCase):
    def test_lists_are_per_user(self) -> None:
        """Private repositories are their owner's alone."""
        mine = [each["name"] for each in self.api("/user/repos", self.alice).json]
        self.assertEqual(mine, ["hello", "notes"])
        self.assertEqual(self.api("/repos/alice/notes", self.bob).status, 404)
        self.assertEqual(self.api("/repos/alice/notes", self.alice).status, 200)
        seen = self.api("/repos/search?q=private", self.bob).json["data"]
        self.assertEqual([each["full_name"] for each in seen], ["bob/dotfiles"])
        seen = self.api("/users/alice/repos", self.bob).json
        self.assertEqual([each["name"] for each in seen], ["hello"])

    def test_paging(self) -> None:
        """X-Total-Count and Link say what is left."""
        answer = self.api("/user/repos?limit=1", self.alice)
        self.assertEqual(answer.headers["x-total-count"], "2")
        self.assertIn('rel="next"', answer.headers["link"])
        second = self.api("/user/repos?limit=1&page=2", self.alice)
        self.assertEqual(second.json[0]["name"], "notes")
        self.assertNotIn("link", second.headers)

    def test_create(self) -> None:
        """A new repository is there, with a file; its name is taken."""
        token = self.controls.issue_tokens("bob").access_token
        self.controls.grant("bob").scope = "all"
        body = {"name": "new", "description": "d", "private": True}
        self.assertEqual(self.api("/user/repos", token, "POST", body).status, 201)
        self.assertEqual(self.api("/user/repos", token, "POST", body).status, 409)
        self.assertEqual(self.api("/user/repos", token, "POST", {}).status, 422)
        self.assertEqual(self.api("/repos/bob/new/contents", token).status, 200)

    def test_files(self) -> None:
        """Create, read, change with the right digest, and remove a file."""
        path = "/repos/alice/hello/contents/docs/a.txt"
        body = {"content": b64encode(b"one").decode(), "message": "m"}
        self.assertEqual(self.api(path, self.bob, "POST", body).status, 403)
        made = self.api(path, self.alice, "POST", body)
        self.assertEqual(made.status, 201)
        self.assertEqual(self.api(path, self.alice, "POST", body).status, 422)
        read = self.api(path, self.alice).json
        self.assertEqual(read["content"], b64encode(b"one").decode())
        raw = self.api("/repos/alice/hello/raw/docs/a.txt?ref=main", self.alice)
        self.assertEqual(raw.text, "one")
        change = {"content": b64encode(b"two").decode(), "sha": "0" * 40}
        self.assertEqual(self.api(path, self.alice, "PUT", change).status, 422)
        change["sha"] = read["sha"]
        self.assertEqual(self.api(path, self.alice, "PUT", change).status, 200)
        self.assertEqual(self.api(path, self.alice, "DELETE", {}).status, 200)
        self.assertEqual(self.api(path, self.alice).status, 404)
        messages = [
            each["commit"]["message"]
            for each in self.api("/repos/alice/hello/commits", self.alice).json
        ]
        self.assertIn("m", messages)

    def test_directories(self) -> None:
        """A directory answers a list."""
        entries = self.api("/repos/alice/hello/contents/?ref=main", self.bob).json
        self.assertEqual(
            [(each["name"], each["type"]) for each in entries],
            [("README.md", "file"), ("src", "dir")],
        )

    def test_branches(self) -> None:
        """Create and delete a branch; the default one stays."""
        path = "/repos/alice/hello/branches"
        body = {"new_branch_name": "x/y", "old_branch_name": "main"}
        self.assertEqual(self.api(path, self.alice, "POST", body).status, 201)
        self.assertEqual(self.api(path, self.alice, "POST", body).status, 409)
        self.assertEqual(self.api(f"{path}/x/y", self.alice).json["name"], "x/y")
        self.assertEqual(self.api(f"{path}/x/y", self.alice, "DELETE").status, 204)
        self.assertEqual(self.api(f"{path}/main", self.alice, "DELETE").status, 403)

    def test_what_is_not_there(self) -> None:
        """404 for files, branches, commits and users that do not exist."""
        hello = "/repos/alice/hello"
        for method, path, body in (
            ("GET", "/users/eve", None),
            ("GET", f"{hello}/raw/none.txt", None),
            ("GET", f"{hello}/contents/README.md?ref=none", None),
            ("GET", f"{hello}/contents/none", None),
            ("PUT", f"{hello}/contents/none", {}),
            ("GET", f"{hello}/branches/none", None),
            ("DELETE", f"{hello}/branches/none", None),
            (
                "POST",
                f"{hello}/branches",
                {"new_branch_name": "x", "old_branch_name": "none"},
            ),
            ("GET", f"{hello}/git/commits/none", None),
            ("GET", f"{hello}/labels/99", None),
            ("POST", f"{hello}/pulls", {"title": "T", "head": "none", "base": "main"}),
        ):
            answer = self.api(path, self.alice, method, body)
            self.assertEqual(answer.status, 404, path)

    def test_commits_name_their_files(self) -> None:
        """A commit can be read, and used as a ref."""
        (newest, *_) = self.api("/repos/alice/hello/commits", self.alice).json
        sha = newest["sha"]
        one = self.api(f"/repos/alice/hello/git/commits/{sha}", self.alice).json
        self.assertEqual(one["commit"]["message"], "Say it in a sentence")
        path = f"/repos/alice/hello/raw/src/hello.py?ref={sha}"
        self.assertIn("how are you", self.api(path, self.alice).text)

    def test_new_branch_with_a_change(self) -> None:
        """A change may go to a branch of its own."""
        path = "/repos/alice/hello/contents/new.txt"
        body = {"content": "bmV3", "new_branch": "side"}
        self.assertEqual(self.api(path, self.alice, "POST", body).status, 201)
        self.assertEqual(self.api(path, self.alice).status, 404)
        self.assertEqual(self.api(f"{path}?ref=side", self.alice).status, 200)
        bad = {"content": "?", "branch": "side"}
        self.assertEqual(self.api(f"{path}x", self.alice, "POST", bad).status, 422)

    def test_public_things_are_open(self) -> None:
        """Without a token public repositories can be read, and nothing written."""
        self.assertEqual(self.api("/repos/alice/hello", None).status, 200)
        self.assertEqual(self.api("/repos/alice/notes", None).status, 404)
        body = {"title": "T"}
        answer = self.api("/repos/alice/hello/issues", None, "POST", body)
        self.assertEqual(answer.status, 401)


class IssueTests(ApiTestCase):
    path = "/repos/alice/hello/issues"

    def test_create_and_comment(self) -> None:
        """What one user writes, another reads."""
        made = self.api(self.path, self.bob, "POST", {"title": "T", "body": "B"})
        self.assertEqual(made.status, 201)
        index = made.json["number"]
        comments = f"{self.path}/{index}/comments"
        answer = self.api(comments, self.alice, "POST", {"body": "hi"})
        self.assertEqual(answer.status, 201)
        read = self.api(comments, self.bob).json
        self.assertEqual(
            [(each["user"]["login"], each["body"]) for each in read], [("alice", "hi")]
        )
        self.assertEqual(self.api(f"{self.path}/{index}", self.bob).json["comments"], 1)

    def test_title_is_required(self) -> None:
        """422 with Forgejo's text."""
        answer = self.api(self.path, self.bob, "POST", {"body": "B"})
        self.assertEqual(
            (answer.status, answer.json["message"]), (422, "[Title]: Required")
        )

    def test_comments_belong_to_their_author(self) -> None:
        """Only the author changes or removes a comment."""
        path = f"{self.path}/comments/1"
        self.assertEqual(self.api(path, self.bob, "PATCH", {"body": "x"}).status, 403)
        self.assertEqual(
            self.api(path, self.alice, "PATCH", {"body": "x"}).json["body"], "x"
        )
        self.assertEqual(self.api(path, self.bob, "DELETE").status, 403)
        self.assertEqual(self.api(path, self.alice, "DELETE").status, 204)
        self.assertEqual(self.api(path, self.alice).status, 404)

    def test_state_and_filters(self) -> None:
        """Closed issues leave the list; pulls and issues can be told apart."""
        closed = self.api(f"{self.path}/1", self.alice, "PATCH", {"state": "closed"})
        self.assertEqual(closed.json["state"], "closed")
        for query, numbers in (
            ("", [2]),
            ("?state=all", [2, 1]),
            ("?state=closed", [1]),
            ("?state=all&type=issues", [1]),
            ("?state=all&type=pulls", [2]),
            ("?state=all&labels=enhancement", [1]),
            ("?state=all&q=greeting", [1]),
        ):
            found = self.api(self.path + query, self.bob).json
            self.assertEqual([each["number"] for each in found], numbers, query)

    def test_only_author_and_owner_edit(self) -> None:
        """Somebody else gets 403; a pull request answers as one."""
        body = {"title": "New"}
        made = self.api(self.path, self.alice, "POST", {"title": "T"}).json
        path = f"{self.path}/{made['number']}"
        self.assertEqual(self.api(path, self.bob, "PATCH", body).status, 403)
        self.assertEqual(self.api(path, self.alice, "PATCH", body).json["title"], "New")
        pull = self.api("/repos/alice/hello/pulls/2", self.bob, "PATCH", body)
        self.assertEqual((pull.status, pull.json["head"]["ref"]), (201, "longer"))

    def test_labels(self) -> None:
        """Labels are added, replaced and taken off."""
        path = f"{self.path}/1/labels"
        names = [each["name"] for each in self.api(path, self.bob).json]
        self.assertEqual(names, ["enhancement"])
        self.assertEqual(self.api(path, self.bob, "POST", {"labels": [1]}).status, 403)
        added = self.api(path, self.alice, "POST", {"labels": ["bug"]}).json
        self.assertEqual([each["name"] for each in added], ["enhancement", "bug"])
        self.api(f"{path}/1", self.alice, "DELETE")
        replaced = self.api(path, self.alice, "PUT", {"labels": [1]}).json
        self.assertEqual([each["name"] for each in replaced], ["bug"])
        label = {"name": "new", "color": "#00ff00"}
        made = self.api("/repos/alice/hello/labels", self.alice, "POST", label).json
        one = self.api(f"/repos/alice/hello/labels/{made['id']}", self.bob).json
        self.assertEqual((one["name"], one["color"]), ("new", "00ff00"))

    def test_pull_requests(self) -> None:
        """Open a pull request, read its change, merge it."""
        path = "/repos/alice/hello/pulls"
        body = {"head": "longer", "base": "main", "title": "T"}
        made = self.api(path, self.alice, "POST", body)
        self.assertEqual(made.status, 201)
        index = made.json["number"]
        self.assertIn("diff --git", self.api(f"{path}/{index}.diff", self.bob).text)
        self.assertEqual(
            self.api(f"{path}/{index}/merge", self.alice, "POST", {}).status, 200
        )
        self.assertTrue(self.api(f"{path}/{index}", self.bob).json["merged"])
        merged = self.api("/repos/alice/hello/raw/src/hello.py", self.bob)
        self.assertIn("how are you", merged.text)
        again = self.api(f"{path}/{index}/merge", self.alice, "POST", {})
        self.assertEqual(again.status, 405)
        self.assertEqual(self.api(f"{path}/1", self.bob).status, 404)

    def test_search_over_repositories(self) -> None:
        """Issues of private repositories are found by their owner only."""
        path = "/repos/issues/search?q=nobody"
        self.assertEqual(len(self.api(path, self.alice).json), 1)
        self.assertEqual(
            self.api(path, self.alice).json[0]["repository"]["name"], "notes"
        )

    def test_strange_numbers_are_not_found(self) -> None:
        """An index that is none."""
        for index in ("0", "99", "x", "-1"):
            self.assertEqual(self.api(f"{self.path}/{index}", self.bob).status, 404)


class EverythingElseTests(ApiTestCase):
    scope = "all"

    def test_writes_answer_an_object(self) -> None:
        """Known paths without state take writes and echo them."""
        made = self.api(
            "/repos/alice/hello/releases", self.alice, "POST", {"tag_name": "v2"}
        )
        self.assertEqual((made.status, made.json["tag_name"]), (201, "v2"))
        self.assertEqual(
            self.api("/notifications/threads/1", self.alice, "PATCH", {}).status, 200
        )
        self.assertEqual(
            self.api("/orgs/friends/members/bob", self.alice, "DELETE").status, 204
        )

    def test_unknown_paths_are_not_found(self) -> None:
        """What Forgejo does not have either."""
        self.assertEqual(self.api("/nonsense", self.alice).status, 404)
        self.assertEqual(self.api("/repos/alice/none/releases", self.alice).status, 404)

    def test_private_repositories_stay_private(self) -> None:
        """The catch-all hides what the user may not see."""
        self.assertEqual(self.api("/repos/bob/dotfiles/hooks", self.alice).status, 404)
