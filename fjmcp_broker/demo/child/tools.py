"""
The stand-in child's tools with names of forgejo-mcp's: real calls of the API.
"""

import json
from collections.abc import Callable
from typing import Any

from fjmcp_broker.demo.child.api import ForgejoApi, ForgejoError, escape

Arguments = dict[str, Any]


class ToolError(Exception):
    """
    A tool failed; its text becomes the message of a JSON-RPC error.
    """


class Tool:
    """
    One tool: what C{tools/list} says about it, and what it does.
    """

    def __init__(
        self,
        name: str,
        description: str,
        arguments: str,
        run: Callable[[Arguments], Any],
    ) -> None:
        """
        @param arguments: words C{name:type}; a star after the type marks a
            required one.
        @param run: gets the arguments, returns any JSON value.
        """
        self.name = name
        self.run = run
        self._description = description
        self._arguments = arguments

    def described(self, padding: str = "") -> dict[str, Any]:
        """
        @param padding: added to the description, to make the list longer.
        @return: the tool's entry, with the annotations that forgejo-mcp gives to
            every tool.
        """
        properties: dict[str, Any] = {}
        required = []
        for word in self._arguments.split():
            name, _, kind = word.partition(":")
            properties[name] = {"description": name, "type": kind.rstrip("*")}
            if kind.endswith("*"):
                required.append(name)
        schema: dict[str, Any] = {"properties": properties}
        if required:
            schema["required"] = required
        schema["type"] = "object"
        return {
            "annotations": {
                "readOnlyHint": False,
                "destructiveHint": True,
                "idempotentHint": False,
                "openWorldHint": True,
            },
            "description": self._description + padding,
            "inputSchema": schema,
            "name": self.name,
        }


def text_result(value: Any) -> dict[str, Any]:
    """
    @return: a tool result of one text block, C{{"Result": value}}.
    """
    text = json.dumps({"Result": value}, ensure_ascii=False, separators=(",", ":"))
    return {"content": [{"type": "text", "text": text}]}


REPOSITORY = "owner:string* repo:string*"


class ForgejoTools:
    """
    Tools that only call the API.
    """

    def __init__(self, api: ForgejoApi) -> None:
        """
        @param api: calls as the user.
        """
        self._api = api

    def tools(self) -> list[Tool]:
        """
        @return: all of them.
        """
        issue = f"{REPOSITORY} index:number*"
        pages = "page:number limit:number"
        return [
            Tool("get_my_user_info", "The signed-in user", "", self._me),
            Tool(
                "list_my_repos",
                "Repositories of the signed-in user",
                "page:number* limit:number*",
                self._list("/user/repos", "list my repositories error"),
            ),
            Tool(
                "search_repos",
                "Search repositories",
                f"keyword:string sort:string order:string {pages}",
                self._search,
            ),
            Tool(
                "list_repo_issues",
                "Issues of a repository",
                f"{REPOSITORY} state:string type:string labels:string "
                f"milestones:string {pages}",
                self._list("/repos/{owner}/{repo}/issues", "get issues list err"),
            ),
            Tool(
                "get_issue_by_index",
                "One issue",
                issue,
                self._get("/repos/{owner}/{repo}/issues/{index}", "get issue err"),
            ),
            Tool(
                "list_issue_comments",
                "Comments of an issue",
                f"{issue} since:string before:string {pages}",
                self._list(
                    "/repos/{owner}/{repo}/issues/{index}/comments",
                    "list issue comments err",
                ),
            ),
            Tool(
                "list_branches",
                "Branches of a repository",
                f"{REPOSITORY} page:number* limit:number*",
                self._list("/repos/{owner}/{repo}/branches", "list branches err"),
            ),
            Tool(
                "get_file_content",
                "A file of a repository",
                f"{REPOSITORY} ref:string* filePath:string*",
                self._file,
            ),
            Tool(
                "create_issue",
                "Create an issue",
                f"{REPOSITORY} title:string* body:string",
                self._send(
                    "POST",
                    "/repos/{owner}/{repo}/issues",
                    ("title", "body"),
                    "create issue err",
                ),
            ),
            Tool(
                "create_issue_comment",
                "Comment on an issue",
                f"{issue} body:string*",
                self._send(
                    "POST",
                    "/repos/{owner}/{repo}/issues/{index}/comments",
                    ("body",),
                    "create issue comment err",
                ),
            ),
            Tool(
                "edit_issue_comment",
                "Change a comment",
                f"{REPOSITORY} comment_id:number* body:string*",
                self._send(
                    "PATCH",
                    "/repos/{owner}/{repo}/issues/comments/{comment_id}",
                    ("body",),
                    "edit issue comment err",
                ),
            ),
            Tool(
                "issue_state_change",
                "Open or close an issue",
                f"{issue} state:string*",
                self._send(
                    "PATCH",
                    "/repos/{owner}/{repo}/issues/{index}",
                    ("state",),
                    "issue state change err",
                ),
            ),
            Tool(
                "create_repo",
                "Create a repository",
                "name:string* description:string private:boolean auto_init:boolean",
                self._send(
                    "POST",
                    "/user/repos",
                    ("name", "description", "private", "auto_init"),
                    "create repo err",
                ),
            ),
        ]

    def _call(
        self, what: str, method: str, path: str, body: Arguments | None = None
    ) -> Any:
        try:
            return self._api.call(method, path, body)
        except ForgejoError as error:
            raise ToolError(f"{what}: {error}") from error

    def _fill(self, what: str, path: str, arguments: Arguments) -> str:
        segments = []
        for segment in path.split("/"):
            if segment.startswith("{"):
                segment = _plain(arguments.get(segment.strip("{}"), ""))
                if not segment:
                    raise ToolError(f"{what}: path segment [0] is empty")
                segment = escape(segment)
            segments.append(segment)
        return "/".join(segments)

    def _get(self, path: str, what: str) -> Callable[[Arguments], Any]:
        def run(arguments: Arguments) -> Any:
            return self._call(what, "GET", self._fill(what, path, arguments))

        return run

    def _list(self, path: str, what: str) -> Callable[[Arguments], Any]:
        def run(arguments: Arguments) -> Any:
            names = ("page", "limit", "state", "type", "labels", "milestones")
            query = "&".join(
                f"{name}={escape(_plain(arguments[name]))}"
                for name in names
                if arguments.get(name)
            )
            target = self._fill(what, path, arguments)
            return self._call(what, "GET", f"{target}?{query}" if query else target)

        return run

    def _send(
        self, method: str, path: str, names: tuple[str, ...], what: str
    ) -> Callable[[Arguments], Any]:
        def run(arguments: Arguments) -> Any:
            body = {name: arguments[name] for name in names if name in arguments}
            target = self._fill(what, path, arguments)
            return self._call(what, method, target, body)

        return run

    def _me(self, arguments: Arguments) -> Any:
        return self._call("get user info err", "GET", "/user")

    def _search(self, arguments: Arguments) -> Any:
        word = escape(arguments.get("keyword", ""))
        found = self._call("search repos error", "GET", f"/repos/search?q={word}")
        return found["data"]

    def _file(self, arguments: Arguments) -> Any:
        what = "get file err"
        target = self._fill(what, "/repos/{owner}/{repo}/contents", arguments)
        path = "/".join(escape(part) for part in str(arguments["filePath"]).split("/"))
        return self._call(
            what, "GET", f"{target}/{path}?ref={escape(arguments.get('ref', ''))}"
        )


def _plain(value: Any) -> str:
    """
    Numbers arrive as floats; C{1.0} means C{1}.
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
