"""How a call ends."""

import json
from typing import Final

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.envelope import Response, encode
from fjmcp_broker.mcp.modern.answers import (
    MAXIMUM_URLS,
    answer_passed_on,
    answer_to_modern,
    failed,
)
from fjmcp_broker.mcp.modern.capabilities import Required, merged
from fjmcp_broker.mcp.modern.translation import LARGE_RESULT_BYTES, result_to_modern

from .cases import SERVER, modern

SAMPLING: Required = {"sampling": {}}
PAGE: Final = {
    "mode": "url",
    "elicitationId": "e1",
    "url": "https://x/",
    "message": "go",
}
DATA: Final = {"elicitations": [PAGE]}
ABLE: Required = {"elicitation": {"url": {}}}


def error(code: int, data: object = None) -> Response:
    """
    @param code: of the error.
    @param data: its data.
    @return: a child's answer.
    """
    raw = msgspec.json.encode({"code": code, "message": "m", "data": data})
    return Response(b"17", None, raw)


class AnswerTests(SynchronousTestCase):
    """The answer goes back under the client's id."""

    def test_results_and_errors(self) -> None:
        """They are translated as the method asks for."""
        found, status = answer_to_modern(
            modern("tools/list", {}, id="a"), Response(b"17", b'{"tools":[]}'), SERVER
        )
        self.assertEqual((found.id, status), (b'"a"', 200))
        result = json.loads(found.result or b"")
        self.assertEqual(result["resultType"], "complete")
        self.assertEqual(result["cacheScope"], "private")
        found, status = answer_to_modern(modern("x/y", {}), error(-32601))
        self.assertEqual((found.id, status), (b"1", 404))

    def test_results_are_added_to_when_they_are_written(self) -> None:
        """If they are large or plainly written: the same members as with an edit, and
        nothing is copied for them."""
        text = b"x" * LARGE_RESULT_BYTES
        for result, is_spared in (
            (b'{"content":[{"type":"text","text":"%b"}]}' % text, True),
            (b' { "content" : "%b" }  ' % text, True),
            (b'{"_meta":{"a":1},"content":"%b"}' % text, False),
            (b'{"resultType":"x","content":"%b"}' % text, False),
            (b'{"a":1,"a":"%b"}' % text, False),
            (b'"%b"' % text, False),
            (b"{%b}" % (b" " * LARGE_RESULT_BYTES), False),
            (b'{"content":[{"type":"text","text":"x"}]}', True),
            (b'{"content":[], "isError":false}', False),
            (b'{"content":[],"content":[]}', False),
            (b'{"content":[],"\\u005fmeta":{"a":1}}', False),
            (b'{"content":[],"_meta":{"a":1}}', False),
            (b"{}", False),
            (b"null", False),
        ):
            for server in (SERVER, None):
                answer = Response(b"17", result)
                found, _status = answer_to_modern(modern(), answer, server)
                self.assertEqual(
                    found.result is result and found.added != b"", is_spared
                )
                whole = Response(b"1", result_to_modern("tools/call", result, server))
                self.assertEqual(json.loads(encode(found)), json.loads(encode(whole)))
                self.assertTrue(encode(found).startswith(b'{"jsonrpc":"2.0","id":1,'))

    def test_a_refused_question_is_the_reason(self) -> None:
        """MCP 2026-07-28, basic: the server MUST return -32021."""
        for answer in (
            error(-32000),
            Response(b"17", b'{"content":[],"isError":true}'),
        ):
            found, status = answer_to_modern(modern(), answer, refused=SAMPLING)
            self.assertEqual(status, 400)
            raw = json.loads(found.error or b"")
            self.assertEqual(raw["code"], -32021)
            self.assertEqual(raw["data"], {"requiredCapabilities": SAMPLING})

    def test_a_call_that_did_without(self) -> None:
        """It succeeded, so it needed nothing."""
        done = Response(b"17", b'{"content":[{"text":"\\"isError\\":true"}]}')
        found, status = answer_to_modern(modern(), done, refused=SAMPLING)
        self.assertEqual((found.error, status), (None, 200))
        self.assertFalse(failed(Response(b"1", b'{"isError":false}')))
        self.assertFalse(failed(Response(b"1", b'{"x":{"isError":true}}')))

    def test_capabilities_are_collected(self) -> None:
        """One call may be refused several questions."""
        one = merged(None, {"sampling": {"tools": {}}})
        both = merged(merged(one, {"sampling": {"context": {}}}), {"roots": {}})
        self.assertEqual(both, {"sampling": {"tools": {}, "context": {}}, "roots": {}})


class PassedOnTests(SynchronousTestCase):
    """The answer of a child that speaks these revisions itself."""

    def test_nothing_changes_but_the_id(self) -> None:
        """Errors keep their numbers, which mean here what they say."""
        raw = b'{"resultType":"input_required","requestState":"s", "n":1.0}'
        found, status = answer_passed_on(modern(id="a"), Response(b"17", raw))
        self.assertEqual((found, status), (Response(b'"a"', raw), 200))
        for code, expected in ((-32021, 400), (-32601, 404), (-32602, 200)):
            answer = error(code)
            found, status = answer_passed_on(modern(), answer)
            self.assertEqual((found.error, status), (answer.error, expected))
        odd, status = answer_passed_on(modern(), Response(b"17", None, b"7"))
        self.assertEqual((odd.error, status), (b"7", 200))

    def test_nothing_is_for_everybody(self) -> None:
        """What one person's child lists, no shared cache may keep."""
        raw = b'{"tools":[], "cacheScope": "public" ,"ttlMs":7}'
        asked = modern("tools/list", {})
        found, _status = answer_passed_on(asked, Response(b"17", raw))
        self.assertEqual(found.result, raw.replace(b"public", b"private"))
        other = b'{"tools":["public"],"cacheScope":"x"}'
        found, _status = answer_passed_on(asked, Response(b"17", other))
        self.assertEqual(found.result, other)
        found, _status = answer_passed_on(modern(), Response(b"17", raw))
        self.assertEqual(found.result, raw)


class UrlElicitationTests(SynchronousTestCase):
    """The older error with pages to visit (MCP 2025-11-25, elicitation)."""

    def test_becomes_a_question(self) -> None:
        """Without a state: the retry is a new call, as it was in that revision."""
        asked = modern(capabilities=ABLE)
        found, status = answer_to_modern(asked, error(-32042, DATA), SERVER)
        self.assertEqual(status, 200)
        result = json.loads(found.result or b"")
        del result["_meta"]
        self.assertEqual(
            result,
            {
                "resultType": "input_required",
                "inputRequests": {
                    "e1": {
                        "method": "elicitation/create",
                        "params": {"mode": "url", "message": "go", "url": "https://x/"},
                    }
                },
            },
        )

    def test_undeclared(self) -> None:
        """A client that knows forms alone hears what it lacks."""
        asked = modern(capabilities={"elicitation": {}})
        found, status = answer_to_modern(asked, error(-32042, DATA))
        self.assertEqual(status, 400)
        data = json.loads(found.error or b"")["data"]
        self.assertEqual(data, {"requiredCapabilities": ABLE})

    def test_declined(self) -> None:
        """The question is not asked for ever."""
        for action in ("decline", "cancel"):
            params = {"name": "t", "inputResponses": {"e1": {"action": action}}}
            asked = modern("tools/call", params, capabilities=ABLE)
            found, status = answer_to_modern(asked, error(-32042, DATA))
            self.assertEqual(status, 200)
            self.assertEqual(json.loads(found.error or b"")["code"], -32603)
        params = {"name": "t", "inputResponses": {"e1": {"action": "accept"}}}
        asked = modern("tools/call", params, capabilities=ABLE)
        found, _status = answer_to_modern(asked, error(-32042, DATA))
        self.assertIsNotNone(found.result)

    def test_what_cannot_be_read(self) -> None:
        """It is an error like any other; so it is on a method that cannot ask."""
        unreadable: tuple[object, ...] = (
            None,
            {},
            {"elicitations": []},
            {"elicitations": [1]},
        )
        for data in unreadable:
            asked = modern(capabilities=ABLE)
            found, status = answer_to_modern(asked, error(-32042, data))
            self.assertEqual(status, 200)
            self.assertEqual(json.loads(found.error or b"")["code"], -32603)
        asked = modern("tools/list", {}, capabilities=ABLE)
        found, _status = answer_to_modern(asked, error(-32042, DATA))
        self.assertEqual(json.loads(found.error or b"")["code"], -32603)

    def test_many_pages(self) -> None:
        """There is a bound, and a name counts once."""
        pages = [{**PAGE, "elicitationId": f"e{i // 2}"} for i in range(100)]
        asked = modern(capabilities=ABLE)
        found, _status = answer_to_modern(asked, error(-32042, {"elicitations": pages}))
        result = json.loads(found.result or b"")
        self.assertEqual(len(result["inputRequests"]), MAXIMUM_URLS // 2)
