"""
What the broker writes, against the schemas of the specification: what clients of the
stateless revisions get by theirs, what a child of the older ones gets by its own.
"""

import json
from collections.abc import Iterator
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.envelope import Request, Response, encode, encode_result
from fjmcp_broker.mcp.messages import parse
from fjmcp_broker.mcp.modern import errors
from fjmcp_broker.mcp.modern.answers import answer_to_modern
from fjmcp_broker.mcp.modern.edits import JsonObject
from fjmcp_broker.mcp.modern.listening import (
    META_SUBSCRIPTION,
    Filter,
    acknowledgement,
    ended,
    tagged,
)
from fjmcp_broker.mcp.modern.profiles import (
    ChildEra,
    ChildProfile,
    discover_result,
    initialize_params,
    probe,
)
from fjmcp_broker.mcp.modern.questions import (
    input_required,
    question_of,
    sort_answers,
)
from fjmcp_broker.mcp.modern.request_state import generation_lost
from fjmcp_broker.mcp.modern.requests import judge
from fjmcp_broker.mcp.modern.translation import to_legacy
from fjmcp_broker.mcp.versions import FIRST_MODERN, LATEST_LEGACY, SUPPORTED
from tests import skip_visibly
from tests.conformance.schemas import Revision, schema_directory

from .cases import SERVER, headers_for, modern, notification
from .test_examples import (
    ANSWERS,
    QUESTION_PARAMS,
    REQUESTS,
    RESULTS,
    Example,
    examples,
)

INITIALIZED: Final = (
    b'{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},'
    b'"tasks":{},"logging":{}},"serverInfo":{"name":"child","version":"1"}}'
)


class SchemaCase(SynchronousTestCase):
    """Has the schemas."""

    def setUp(self) -> None:
        """
        Read them, or say that they are not there.
        """
        directory = schema_directory()
        if directory is None:
            skip_visibly("the broker's messages", "the schemas are not there")
        self.modern = Revision(directory / FIRST_MODERN / "schema.json")
        self.legacy = Revision(directory / LATEST_LEGACY / "schema.json")

    def valid(
        self, revision: Revision, written: bytes, answered: str | None = None
    ) -> None:
        """
        @param revision: whose schema counts.
        @param written: a message.
        @param answered: the method that it answers, if it is a response.
        """
        message = json.loads(written)
        wrong = [why for _place, why in revision.message_errors(message, answered)]
        self.assertEqual(wrong, [], written)

    def legacy_results(self) -> Iterator[tuple[str, bytes]]:
        """
        @return: methods, and results as a child of the older revisions writes them.
        """
        for example in examples(RESULTS):
            found = JsonObject.read(example.raw)
            assert found is not None
            gone = ("resultType", "ttlMs", "cacheScope")
            yield RESULTS[example.kind], found.edited(without=gone)


class ToClientTests(SchemaCase):
    """By the schema of 2026-07-28."""

    def test_discovery(self) -> None:
        """Of an older child, of one that nobody has met, of one of these revisions."""
        modern_said = discover_result(ChildProfile(ChildEra.LEGACY, INITIALIZED))
        for profile in (
            None,
            ChildProfile(ChildEra.LEGACY),
            ChildProfile(ChildEra.LEGACY, INITIALIZED),
            ChildProfile(ChildEra.MODERN, None, modern_said),
        ):
            written = encode_result(b"1", discover_result(profile))
            self.valid(self.modern, written, "server/discover")

    def test_results(self) -> None:
        """Those of an older child are not; translated they are."""
        for method, result in self.legacy_results():
            asked = modern(method, {"name": "t", "uri": "t"})
            found, _status = answer_to_modern(asked, Response(b"9", result), SERVER)
            self.valid(self.modern, encode(found), method)
            bare = json.loads(encode_result(b"1", result))
            self.assertTrue(list(self.modern.message_errors(bare, method)))

    def test_errors(self) -> None:
        """The broker's own, and those of a child."""
        for made in (
            errors.header_mismatch(b"1", "m"),
            errors.invalid_params(b'"a"', "m"),
            errors.method_not_found(b"1"),
            errors.unsupported_version(b"1", "x", SUPPORTED),
            errors.missing_capability(b"1", {"sampling": {"tools": {}}}),
            errors.internal_error(b"1", "m"),
            generation_lost(b"1"),
        ):
            self.valid(self.modern, made.to_bytes(), "tools/call")
        for code in (-32002, -32042, -32020, -32021, -32022, -32601, 5):
            raw = b'{"code":%d,"message":"m"}' % code
            found, _status = answer_to_modern(modern(), Response(b"9", None, raw))
            self.valid(self.modern, encode(found), "tools/call")

    def test_questions(self) -> None:
        """Every kind that a child of an older revision asks."""
        questions = [
            question_of(question, [str(number)])
            for number, question in enumerate(self.questions())
        ]
        result = input_required(questions, "state", SERVER)
        self.valid(self.modern, encode_result(b"1", result), "tools/call")
        wrong = self.modern.errors("InputRequiredResult", json.loads(result))
        self.assertEqual(list(wrong), [])

    def questions(self) -> Iterator[Request]:
        """
        @return: the examples, as a child sends them.
        """
        for number, example in enumerate(examples(QUESTION_PARAMS)):
            method = QUESTION_PARAMS[example.kind]
            members = json.loads(example.raw)
            if members.get("mode") == "url":
                members["elicitationId"] = "e"
            line = {"jsonrpc": "2.0", "id": number, "method": method, "params": members}
            written = json.dumps(line).encode()
            self.valid(self.legacy, written)
            message = parse(written)
            assert isinstance(message, Request)
            yield message

    def test_subscriptions(self) -> None:
        """From the first message to the last."""
        self.valid(
            self.modern, acknowledgement(b"1", Filter(True, True, True, ("u:",)))
        )
        self.valid(self.modern, ended(b'"a"', SERVER), "subscriptions/listen")
        for method, params in (
            ("notifications/tools/list_changed", None),
            ("notifications/prompts/list_changed", {}),
            ("notifications/resources/list_changed", {"_meta": {"x": 1}}),
            ("notifications/resources/updated", {"uri": "file:///x"}),
        ):
            written = tagged(notification(method, params), b'"a"')
            self.assertIn(META_SUBSCRIPTION.encode(), written)
            self.valid(self.modern, written)


class ToChildTests(SchemaCase):
    """By the schema of 2025-11-25, or for the probe by the newer one."""

    def test_first_words(self) -> None:
        """The probe, and C{initialize}."""
        self.valid(self.modern, probe(b"1", "1.0"))
        line = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":%s}'
        self.valid(self.legacy, line % initialize_params("1.0"))

    def test_requests(self) -> None:
        """Those that an older child knows."""
        for example in examples(REQUESTS):
            if example.kind not in ("DiscoverRequest", "SubscriptionsListenRequest"):
                self._translated(example)

    def _translated(self, example: Example) -> None:
        asked = parse(example.raw)
        assert isinstance(asked, Request)
        found = to_legacy(judge(asked, headers_for(asked)))
        self.valid(self.legacy, encode(found))

    def test_answers(self) -> None:
        """What clients answer, under the child's own ids."""
        for example in examples(ANSWERS):
            method = ANSWERS[example.kind]
            question = question_of(Request(b"7", method))
            found = sort_answers({"7": example.raw}, [question])
            ((_question, answer),) = found.answered
            self.valid(self.legacy, answer, method)
            self.valid(self.legacy, question.failed("no"), method)
