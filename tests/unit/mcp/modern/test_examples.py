"""
Every example message of the specification, through the edits that
design section 4 lists: they happen, and nothing else does.

The examples are no part of this repository: C{MCP_SCHEMA_DIRECTORY} or
C{../shared/mcp-schema} says where.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.envelope import NULL, Notification, Request, Response
from fjmcp_broker.mcp.messages import parse, parse_child_line
from fjmcp_broker.mcp.modern import errors
from fjmcp_broker.mcp.modern.answers import answer_to_modern
from fjmcp_broker.mcp.modern.capabilities import Required, declares, required_for
from fjmcp_broker.mcp.modern.edits import JsonObject
from fjmcp_broker.mcp.modern.listening import (
    META_SUBSCRIPTION,
    Filter,
    acknowledgement,
    ended,
    requested,
    tagged,
)
from fjmcp_broker.mcp.modern.profiles import ChildEra, ChildProfile, discover_result
from fjmcp_broker.mcp.modern.questions import input_request, is_answer
from fjmcp_broker.mcp.modern.requests import RequestHeaders, judge
from fjmcp_broker.mcp.modern.translation import (
    META_SERVER,
    TTL_MILLISECONDS,
    error_to_modern,
    notification_to_modern,
    result_to_modern,
    to_legacy,
)
from fjmcp_broker.mcp.versions import FIRST_MODERN, META_VERSION
from tests import skip_visibly

from .cases import SERVER, headers_for, meta, modern

VARIABLE: Final = "MCP_SCHEMA_DIRECTORY"
TOP: Final = Path(__file__).parents[4]
PROTOCOL_META: Final = frozenset(
    f"io.modelcontextprotocol/{name}"
    for name in ("protocolVersion", "clientInfo", "clientCapabilities", "logLevel")
)

REQUESTS: Final = {
    "CallToolRequest": "tools/call",
    "CompleteRequest": "completion/complete",
    "DiscoverRequest": "server/discover",
    "GetPromptRequest": "prompts/get",
    "ListPromptsRequest": "prompts/list",
    "ListResourceTemplatesRequest": "resources/templates/list",
    "ListResourcesRequest": "resources/list",
    "ListToolsRequest": "tools/list",
    "ReadResourceRequest": "resources/read",
    "SubscriptionsListenRequest": "subscriptions/listen",
}
PARAMS: Final = {
    "CallToolRequestParams": "tools/call",
    "CompleteRequestParams": "completion/complete",
    "GetPromptRequestParams": "prompts/get",
    "PaginatedRequestParams": "tools/list",
}
RESULTS: Final = {
    "CallToolResult": "tools/call",
    "CompleteResult": "completion/complete",
    "GetPromptResult": "prompts/get",
    "ListPromptsResult": "prompts/list",
    "ListResourceTemplatesResult": "resources/templates/list",
    "ListResourcesResult": "resources/list",
    "ListToolsResult": "tools/list",
    "ReadResourceResult": "resources/read",
}
PASSING_NOTIFICATIONS: Final = ("LoggingMessageNotification", "ProgressNotification")
LISTENED: Final = (
    "PromptListChangedNotification",
    "ResourceListChangedNotification",
    "ResourceUpdatedNotification",
    "ToolListChangedNotification",
)
ERRORS: Final = ("InternalError", "InvalidParamsError", "MethodNotFoundError")
ANSWERS: Final = {
    "CreateMessageResult": "sampling/createMessage",
    "ElicitResult": "elicitation/create",
    "ListRootsResult": "roots/list",
}
QUESTIONS: Final = {
    "CreateMessageRequest": "sampling/createMessage",
    "ElicitRequest": "elicitation/create",
    "ListRootsRequest": "roots/list",
}
QUESTION_PARAMS: Final = {
    "CreateMessageRequestParams": "sampling/createMessage",
    "ElicitRequestFormParams": "elicitation/create",
    "ElicitRequestURLParams": "elicitation/create",
}


@attrs.frozen
class Example:
    """
    One file.

    @ivar kind: the name of the type in the schema.
    @ivar name: of the file.
    @ivar raw: what is in it, without white space around.
    """

    kind: str
    name: str
    raw: bytes

    def members(self) -> dict[str, object]:
        """
        @return: the example as an object.
        """
        value: dict[str, object] = json.loads(self.raw)
        return value

    def get(self, name: str) -> bytes:
        """
        @param name: of a member.
        @return: its raw value.
        """
        found = JsonObject.read(self.raw)
        value = None if found is None else found.get(name)
        assert value is not None, f"{self.kind}/{self.name} has no {name}"
        return value


def examples(kinds: Mapping[str, str] | tuple[str, ...] | None) -> Iterator[Example]:
    """
    @param kinds: which types, or None for all.
    @return: their examples.
    """
    told = os.environ.get(VARIABLE)
    top = Path(told) if told else TOP.parent / "shared" / "mcp-schema"
    directory = top / FIRST_MODERN / "examples"
    if not directory.is_dir():
        skip_visibly("the example messages of the specification", f"not in {VARIABLE}")
    for path in sorted(directory.glob("*/*.json")):
        if kinds is None or path.parent.name in kinds:
            yield Example(path.parent.name, path.name, path.read_bytes().strip())


def pairs(raw: bytes) -> object:
    """
    @param raw: JSON.
    @return: it with the order of its members and the writing of its numbers.
    """
    return json.loads(raw, object_pairs_hook=tuple, parse_int=str, parse_float=str)


def without(raw: bytes, *names: str) -> object:
    """
    @param raw: a JSON object.
    @param names: members to leave out.
    @return: as L{pairs}.
    """
    value = pairs(raw)
    assert isinstance(value, tuple)
    return tuple(pair for pair in value if pair[0] not in names)


class ExampleCase(SynchronousTestCase):
    """Counts what it has seen, so that no example is passed over."""

    def each(
        self,
        kinds: Mapping[str, str] | tuple[str, ...] | None,
        test: Callable[[Example], None],
    ) -> None:
        """
        @param kinds: which types, each of which must have an example.
        @param test: what to do with each.
        """
        seen = set()
        for example in examples(kinds):
            test(example)
            seen.add(example.kind)
        if kinds is not None:
            self.assertEqual(seen, set(kinds))


class RequestTests(ExampleCase):
    """From the client to the child."""

    def test_requests(self) -> None:
        """They are accepted, and lose the protocol's own members."""
        self.each(REQUESTS, self._request)

    def _request(self, example: Example) -> None:
        asked = parse(example.raw)
        assert isinstance(asked, Request)
        self.assertEqual(asked.method, REQUESTS[example.kind])
        found = to_legacy(judge(asked, headers_for(asked)))
        self.assertEqual((found.id, found.method), (asked.id, asked.method))
        self._params(example.get("params"), found)

    def test_params(self) -> None:
        """The same for params alone, in a request of ours."""
        self.each(PARAMS, self._alone)

    def _alone(self, example: Example) -> None:
        params = example.raw
        found = JsonObject.read(params)
        assert found is not None
        own = json.loads(found.get("_meta") or b"{}")
        if META_VERSION not in own:
            whole = json.dumps({**own, **meta()}).encode()
            params = found.edited(replaced={"_meta": whole})
        line = b'{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}'
        asked = parse(line % (PARAMS[example.kind].encode(), params))
        assert isinstance(asked, Request)
        self._params(params, to_legacy(judge(asked, headers_for(asked))))

    def _params(self, before: bytes, found: Request) -> None:
        gone = (
            {"inputResponses", "requestState"} if found.method == "tools/call" else ()
        )
        old, new = JsonObject.read(before), JsonObject.read(found.params)
        assert old is not None and new is not None
        kept = [name for name in old.spans if name not in gone]
        own = JsonObject.read(old.get("_meta"))
        assert own is not None
        meta_names = [name for name in own.spans if name not in PROTOCOL_META]
        if not meta_names:
            kept.remove("_meta")
        self.assertEqual(list(new.spans), kept)
        for name in kept:
            if name != "_meta":
                self.assertEqual(new.get(name), old.get(name))
        inner = JsonObject.read(new.get("_meta"))
        if inner is not None:
            self.assertEqual(list(inner.spans), meta_names)
            for name in meta_names:
                self.assertEqual(inner.get(name), own.get(name))

    def test_listening(self) -> None:
        """The request, its acknowledgement and its end belong together."""
        self.each(("SubscriptionsListenRequest",), self._listen)
        self.each(("SubscriptionsAcknowledgedNotification",), self._acknowledged)
        self.each(("SubscriptionsListenResultResponse",), self._ended)

    def _listen(self, example: Example) -> None:
        asked = parse(example.raw)
        assert isinstance(asked, Request)
        wanted = requested(judge(asked, headers_for(asked)))
        expected = Filter(tools=True, uris=("file:///project/config.json",))
        self.assertEqual(wanted, expected)

    def _acknowledged(self, example: Example) -> None:
        wanted = Filter(tools=True, uris=("file:///project/config.json",))
        found = acknowledgement(b'"listen-1"', wanted)
        self.assertEqual(pairs(found), pairs(example.raw))

    def _ended(self, example: Example) -> None:
        self.assertEqual(pairs(ended(b'"listen-1"')), pairs(example.raw))


class ResultTests(ExampleCase):
    """From the child to the client."""

    def test_results(self) -> None:
        """They come out as the examples are, for one person, and name the server."""
        self.each(RESULTS, self._result)

    def _result(self, example: Example) -> None:
        method = RESULTS[example.kind]
        self._translated(method, example.raw)
        # What a child of the older revisions says of the same: less.
        found = JsonObject.read(example.raw)
        assert found is not None
        legacy = found.edited(without=("resultType", "ttlMs", "cacheScope"))
        self._translated(method, legacy)

    def _translated(self, method: str, before: bytes) -> None:
        after = result_to_modern(method, before, SERVER)
        ours = ("resultType", "ttlMs", "cacheScope", "_meta")
        self.assertEqual(without(after, *ours), without(before, *ours))
        old, new = JsonObject.read(before), JsonObject.read(after)
        assert old is not None and new is not None
        for name in old.spans:
            if name not in ours:
                self.assertEqual(new.get(name), old.get(name))
        self.assertEqual(new.get("resultType"), b'"complete"')
        cacheable = method in TTL_MILLISECONDS
        self.assertEqual(new.get("cacheScope"), b'"private"' if cacheable else None)
        if cacheable:
            ttl = b"%d" % TTL_MILLISECONDS[method]
            self.assertEqual(new.get("ttlMs"), old.get("ttlMs") or ttl)
        own = JsonObject.read(new.get("_meta"))
        assert own is not None
        self.assertEqual(own.get(META_SERVER), SERVER)

    def test_responses(self) -> None:
        """The same in their envelopes, under the client's id."""
        self.each({f"{kind}Response": "" for kind in RESULTS}, self._response)

    def _response(self, example: Example) -> None:
        answer = parse_child_line(example.raw)
        assert isinstance(answer, Response)
        method = RESULTS[example.kind.removesuffix("Response")]
        params = {"name": "t", "uri": "t"}
        asked = modern(method, params, id="mine")
        found, status = answer_to_modern(asked, answer, SERVER)
        self.assertEqual((found.id, status, found.error), (b'"mine"', 200, None))
        expected = result_to_modern(method, answer.result or NULL, SERVER)
        self.assertEqual(found.result, expected)

    def test_errors(self) -> None:
        """Errors of JSON-RPC pass as they are; those of the broker look the same."""
        self.each(ERRORS, self._error)
        self.each(("HeaderMismatchError",), self._mismatch)
        self.each(("MissingRequiredClientCapabilityError",), self._missing)
        self.each(("UnsupportedProtocolVersionError",), self._unsupported)

    def _error(self, example: Example) -> None:
        error, status = error_to_modern(example.raw, "tools/call")
        self.assertEqual(error, example.raw)
        code = example.members()["code"]
        self.assertEqual(status, 404 if code == -32601 else 200)

    def _mismatch(self, example: Example) -> None:
        self._same(example, errors.header_mismatch(b"1", "m"))

    def _missing(self, example: Example) -> None:
        self._same(example, errors.missing_capability(b"1", {"elicitation": {}}))

    def _unsupported(self, example: Example) -> None:
        made = errors.unsupported_version(
            b"1", "1900-01-01", [FIRST_MODERN, "2025-11-25"]
        )
        self._same(example, made)

    def _same(self, example: Example, made: errors.ModernError) -> None:
        found, expected = json.loads(made.to_bytes()), json.loads(example.raw)
        for value in (found, expected):
            del value["error"]["message"]
        self.assertEqual(found, expected)
        self.assertEqual(made.status, 400)

    def test_discovery(self) -> None:
        """Of a child that speaks these revisions, and what an older one declares."""
        self.each(("DiscoverResult",), self._discovered)
        self.each(("ServerCapabilities",), self._declared)

    def _discovered(self, example: Example) -> None:
        profile = ChildProfile(ChildEra.MODERN, None, example.raw)
        found = discover_result(profile)
        names = ("cacheScope", "supportedVersions")
        self.assertEqual(without(found, *names), without(example.raw, *names))

    def _declared(self, example: Example) -> None:
        said = b'{"capabilities":' + example.raw + b"}"
        found = JsonObject.read(discover_result(ChildProfile(ChildEra.LEGACY, said)))
        assert found is not None
        self.assertEqual(found.get("capabilities"), example.raw)

    def test_notifications(self) -> None:
        """Those of a request pass as they are, those of a stream with its id."""
        self.each(PASSING_NOTIFICATIONS, self._passing)
        self.each(LISTENED, self._listened)

    def _notification(self, example: Example) -> Notification:
        message = parse_child_line(example.raw)
        assert isinstance(message, Notification)
        return message

    def _passing(self, example: Example) -> None:
        encoded = notification_to_modern(self._notification(example))
        assert encoded is not None
        self.assertIn(example.get("params"), encoded)
        self.assertEqual(json.loads(encoded), example.members())

    def _listened(self, example: Example) -> None:
        encoded = tagged(self._notification(example), b'"listen-1"')
        expected = example.members()
        params = expected.setdefault("params", {})
        assert isinstance(params, dict)
        params.setdefault("_meta", {})[META_SUBSCRIPTION] = "listen-1"
        self.assertEqual(json.loads(encoded), expected)


class QuestionTests(ExampleCase):
    """From the child to the client and back, inside a result."""

    def test_questions(self) -> None:
        """They keep their bytes, and a client with everything may be asked."""
        self.each(QUESTIONS, self._question)
        self.each(QUESTION_PARAMS, self._alone)

    def _question(self, example: Example) -> None:
        method = QUESTIONS[example.kind]
        found = JsonObject.read(example.raw)
        assert found is not None
        self._asked(method, found.get("params"))

    def _alone(self, example: Example) -> None:
        self._asked(QUESTION_PARAMS[example.kind], example.raw)

    def _asked(self, method: str, params: bytes | None) -> None:
        written = b"" if params is None else b',"params":' + params
        line = b'{"jsonrpc":"2.0","id":1,"method":"%s"%s}'
        message = parse_child_line(line % (method.encode(), written))
        assert isinstance(message, Request)
        expected = b'{"method":"%s"%s}' % (method.encode(), written)
        self.assertEqual(input_request(message), expected)
        self.assertIsNotNone(required_for(message))

    def test_answers(self) -> None:
        """All of them have the right shape."""
        self.each(ANSWERS, self._answer)

    def _answer(self, example: Example) -> None:
        method = ANSWERS[example.kind]
        self.assertTrue(is_answer(Request(b"1", method), example.raw), example.name)

    def test_client_capabilities(self) -> None:
        """Each example declares what it is named after."""
        self.each(("ClientCapabilities",), self._capable)

    def _capable(self, example: Example) -> None:
        for name, parts in example.members().items():
            if name != "extensions":
                assert isinstance(parts, dict)
                required: Required = {
                    name: {part: {} for part in parts if part != "listChanged"}
                }
                self.assertTrue(declares(example.raw, required), example.name)


class EverythingTests(ExampleCase):
    """Any example is somebody's data, whatever it looks like."""

    def test_bytes_survive(self) -> None:
        """As an argument, in a result, in an error and in a notification."""
        self.each(None, self._survives)

    def _survives(self, example: Example) -> None:
        raw = example.raw
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t",'
        body += b'"arguments":{"x":%s},"_meta":%s}}' % (
            raw,
            json.dumps(meta()).encode(),
        )
        asked = parse(body)
        assert isinstance(asked, Request)
        judged = judge(asked, RequestHeaders(FIRST_MODERN, "tools/call", "t"))
        expected = b'{"name":"t","arguments":{"x":%s}}' % raw
        self.assertEqual(to_legacy(judged).params, expected)
        self.assertIn(raw, result_to_modern("tools/call", b'{"x":%s}' % raw, SERVER))
        error = b'{"code":-32002,"message":"m","data":%s}' % raw
        changed = error.replace(b"-32002", b"-32602", 1)
        self.assertEqual(error_to_modern(error, "resources/read"), (changed, 200))
        line = b'{"jsonrpc":"2.0","method":"m","params":{"x":%s}}' % raw
        message = parse_child_line(line)
        assert isinstance(message, Notification)
        self.assertEqual(notification_to_modern(message), line)
