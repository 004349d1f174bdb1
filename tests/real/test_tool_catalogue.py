"""
The tool catalogue against the real forgejo-mcp: every tool is classified, and what is
marked as reading really only reads.
"""

import json
import re
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.trial.unittest import TestCase
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from fjmcp_broker.demo.forgejo.stand_in import StandInForgejo
from fjmcp_broker.mcp.catalogue import ToolCatalogue
from fjmcp_broker.mcp.policy import overlay
from tests.real.real_forgejo_mcp import RealForgejoMcp, ToolError, require

reactor: Any = _reactor  # a module to mypy
CATALOGUE = ToolCatalogue.packaged()

# Whatever exists in the stand-in Forgejo: a repository of alice with issue 1, pull
# request 2 and a file.
ARGUMENTS: dict[str, object] = {
    "owner": "alice",
    "user": "bob",
    "repo": "hello",
    "org": "friends",
    "ref": "main",
    "path": "",
    "filePath": "README.md",
    "branch": "longer",
    "branch_name": "main",
    "old_branch": "main",
    "base": "main",
    "head": "longer",
    "page_name": "Home",
    "color": "#00aabb",
    "duration": "1h",
    "url": "https://hooks.example/x",
    "events": "push",
    "reviewers": "bob",
    "labels": "1",
    "style": "merge",
    "state": "closed",
    "workflow": "ci.yml",
    "last_read_at": "2026-01-01T00:00:00Z",
    "content": "aGVsbG8=",
    "filename": "hello.txt",
    "rule": "main",
    "tag": "v1.0",
    "tag_name": "v1.0",
    "depends_on_index": 2,
    "dependency_index": 2,
    "delete_mode": "force",
}
OPTIONAL = (
    "color",
    "delete_mode",
    "duration",
    "content",
    "filename",
    "reviewers",
    "body",
    "keyword",
    "q",
    "title",
)
PARTS = {
    "owner": "alice",
    "repo": "hello",
    "org": "friends",
    "rule": "main",
    "kind": "issue",
    "index": "1",
    "id": "1",
    "pageName": "Home",
}
LOCAL = ("get_forgejo_mcp_server_version",)


def arguments_for(tool: dict[str, Any], overrides: dict[str, object]) -> object:
    """
    @param tool: as the child describes it.
    @param overrides: values for this tool alone.
    @return: values for all that it requires and some of what it allows.
    """
    schema = tool["inputSchema"]
    required = schema.get("required", [])
    values: dict[str, object] = {}
    for name, rule in schema.get("properties", {}).items():
        if name in overrides:
            values[name] = overrides[name]
        elif name in required or name in OPTIONAL:
            values[name] = ARGUMENTS.get(name, plain_value(rule))
    return values


def plain_value(rule: dict[str, Any]) -> object:
    """
    @param rule: the schema of one argument.
    @return: some value that it allows.
    """
    if rule.get("enum"):
        return rule["enum"][0]
    return {"number": 1, "integer": 1, "boolean": True}.get(rule["type"], "text")


class Foreign(Resource):
    """A host that is nobody's Forgejo and keeps what it is sent."""

    isLeaf = True

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__()
        self.seen: list[str] = []

    def render_GET(self, request: Request) -> bytes:
        """Take the header, give a file."""
        self.seen.append(str(request.getHeader("Authorization")))
        return b"file"


class ToolCatalogueTests(TestCase):
    """What the data file says is true of the oldest and the newest forgejo-mcp."""

    timeout = 120

    async def start(self, version: str) -> RealForgejoMcp:
        """A Forgejo, and the child that works with it as alice."""
        binary = require(version)
        self.forgejo = StandInForgejo(reactor)
        self.forgejo.base_url = await self.listen(self.forgejo.resource)
        self.forgejo.add_application("http://127.0.0.1/callback")
        token = self.forgejo.controls.issue_tokens("alice").access_token
        child = RealForgejoMcp.spawn(reactor, binary, self.forgejo.base_url, token)
        self.addCleanup(child.stop)
        await child.begin()
        return child

    async def listen(self, resource: IResource) -> str:
        """
        Serve it until the test ends.

        @return: the URL.
        """
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port: Any = await endpoint.listen(Site(resource))
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    async def methods_of(self, child: RealForgejoMcp, tool: dict[str, Any]) -> set[str]:
        """
        The HTTP methods that one call of a tool sends.

        @raise ToolError: when it gives no result.
        """
        name = tool["name"]
        index = 2 if "pull" in name or "review" in name else 1
        self.forgejo.controls.forget_requests()
        await child.call(name, arguments_for(tool, {"index": index}))
        return {each.method for each in self.forgejo.controls.requests}

    async def check_classes(self, version: str) -> None:
        """Nothing that the child offers is unknown, and clients are told of it."""
        child = await self.start(version)
        raw = await child.ask("tools/list")
        tools = json.loads(raw)["tools"]
        unknown = {tool["name"] for tool in tools} - CATALOGUE.tools.keys()
        self.assertEqual(unknown, set())
        shown = json.loads(overlay(raw, CATALOGUE, False))["tools"]
        self.assertEqual(
            [tool["name"] for tool in shown],
            [tool["name"] for tool in tools if tool["name"] not in CATALOGUE.denied],
        )
        for tool in shown:
            known = CATALOGUE.tools[tool["name"]]
            self.assertIs(tool["annotations"]["readOnlyHint"], not known.writes)
            self.assertEqual(tool["title"], known.title)
        self.assertIs(overlay(raw, CATALOGUE, False, annotate=False), raw)

    async def check_reads(self, version: str) -> None:
        """Every reading tool gives a result, and Forgejo sees only GET and HEAD."""
        child = await self.start(version)
        wrong: dict[str, object] = {}
        count = 0
        for tool in await child.tools():
            if CATALOGUE.reads(tool["name"]):
                count += 1
                try:
                    methods = await self.methods_of(child, tool)
                except ToolError as error:
                    wrong[tool["name"]] = str(error)
                else:
                    if not methods <= {"GET", "HEAD"}:
                        wrong[tool["name"]] = methods
                    # A list whose path does not exist looks empty to the child.
                    missed = [
                        each.path
                        for each in self.forgejo.controls.requests
                        if each.status >= 400
                    ]
                    if missed or not (methods or tool["name"] in LOCAL):
                        wrong[tool["name"]] = missed
        self.assertEqual(wrong, {})
        self.assertGreater(count, 35)

    async def check_writes(self, version: str) -> None:
        """
        The control: the same watching does see what writes. Whether a call succeeds
        does not matter, since Forgejo saw it.
        """
        child = await self.start(version)
        silent: dict[str, str] = {}
        for tool in await child.tools():
            if not CATALOGUE.reads(tool["name"]):
                failure = ""
                try:
                    await self.methods_of(child, tool)
                except ToolError as error:
                    failure = str(error)
                if not any(each.is_write for each in self.forgejo.controls.requests):
                    silent[tool["name"]] = failure
        self.assertEqual(silent, {}, silent)

    async def test_resources_only_read(self) -> None:
        """
        The data file says that C{resources/read} only reads: every kind of resource of
        2.34.1 is read (2.18.0 has none), and Forgejo sees only GET and HEAD.
        """
        child = await self.start("2.34.1")
        listed = json.loads(await child.ask("resources/templates/list"))
        repository = self.forgejo.world.find("alice", "hello")
        assert repository is not None
        parts = PARTS | {"sha": repository.commits[-1].sha}
        templates = [each["uriTemplate"] for each in listed["resourceTemplates"]]
        self.assertGreater(len(templates), 10)
        for template in templates:
            uri = re.sub(r"\{\?.*?\}", "", template)
            uri = re.sub(r"\{(\w+)\}", lambda name: parts[name[1]], uri)
            uri = uri.replace("/pr/1", "/pr/2")
            self.forgejo.controls.forget_requests()
            await child.ask("resources/read", {"uri": uri})
            requests = self.forgejo.controls.requests
            self.assertTrue(requests, uri)
            self.assertFalse([each for each in requests if each.is_write], uri)

    async def test_every_tool_is_classified_oldest(self) -> None:
        """forgejo-mcp 2.18.0 has no tool that the data file does not know."""
        await self.check_classes("2.18.0")

    async def test_every_tool_is_classified_newest(self) -> None:
        """Neither has 2.34.1."""
        await self.check_classes("2.34.1")

    async def test_reading_tools_only_read_oldest(self) -> None:
        """What 2.18.0 does when a tool marked as reading is called."""
        await self.check_reads("2.18.0")

    async def test_reading_tools_only_read_newest(self) -> None:
        """What 2.34.1 does when a tool marked as reading is called."""
        await self.check_reads("2.34.1")

    async def test_writing_tools_write_oldest(self) -> None:
        """No tool of 2.18.0 is marked as writing without need."""
        await self.check_writes("2.18.0")

    async def test_writing_tools_write_newest(self) -> None:
        """No tool of 2.34.1 is marked as writing without need."""
        await self.check_writes("2.34.1")

    async def test_the_child_reads_keys_in_any_case(self) -> None:
        """
        Why a message with C{"Name"} is refused: both versions take it for C{"name"},
        and the last of two.
        """
        for version in ("2.18.0", "2.34.1"):
            child = await self.start(version)
            for params in (
                {"NAME": "get_my_user_info"},
                {"name": "delete_org", "\u006eaMe": "get_my_user_info"},
            ):
                result = await child.ask("tools/call", params | {"arguments": {}})
                self.assertIn("alice", result.decode(), params)

    async def test_denied_tools_send_the_token_to_a_foreign_host(self) -> None:
        """
        Why three tools are denied: where Forgejo says that the file of a release, an
        issue or a comment is on another host, that host gets the user's token.
        """
        child = await self.start("2.34.1")
        foreign = Foreign()
        self.forgejo.base_url = await self.listen(foreign)
        tools = [t for t in await child.tools() if t["name"] in CATALOGUE.denied]
        self.assertEqual(
            sorted(tool["name"] for tool in tools), sorted(CATALOGUE.denied)
        )
        for tool in tools:
            foreign.seen.clear()
            await child.call(tool["name"], arguments_for(tool, {}))
            (authorization,) = foreign.seen
            self.assertTrue(authorization.startswith("token "), tool["name"])
