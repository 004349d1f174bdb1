"""The child's questions, and a client's answers."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.envelope import Request
from fjmcp_broker.mcp.messages import parse_child_line
from fjmcp_broker.mcp.modern.capabilities import (
    ELICITATION,
    FULL,
    ROOTS,
    SAMPLING,
    Required,
    declares,
    interactive,
    required_for,
)
from fjmcp_broker.mcp.modern.questions import (
    Question,
    input_request,
    input_required,
    is_answer,
    question_of,
    refusal,
    sort_answers,
)
from fjmcp_broker.mcp.modern.translation import META_SERVER

from .cases import SERVER, modern

ACCEPT = b'{"action":"accept","content":{"name":"x"}}'


def asked(method: str, params: object = None, id: object = 3) -> Request:
    """
    @param method: of the question.
    @param params: its params, or None.
    @param id: the child's own id.
    @return: the question as it is parsed.
    """
    written: dict[str, object] = {"jsonrpc": "2.0", "id": id, "method": method}
    if params is not None:
        written["params"] = params
    message = parse_child_line(msgspec.json.encode(written))
    assert isinstance(message, Request)
    return message


class CapabilityTests(SynchronousTestCase):
    """What a question needs, and who has it."""

    def test_needs(self) -> None:
        """By method and what is in it."""
        cases: tuple[tuple[Request, Required | None], ...] = (
            (asked(ROOTS), {"roots": {}}),
            (asked(ELICITATION, {"message": "m"}), {"elicitation": {}}),
            (asked(ELICITATION, {"mode": "form"}), {"elicitation": {}}),
            (asked(ELICITATION, {"mode": "url"}), {"elicitation": {"url": {}}}),
            (asked(SAMPLING, {}), {"sampling": {}}),
            (asked(SAMPLING, {"includeContext": "none"}), {"sampling": {}}),
            (
                asked(SAMPLING, {"includeContext": "allServers", "tools": []}),
                {"sampling": {"tools": {}, "context": {}}},
            ),
            (asked("ping"), None),
            (asked("tasks/get", {}), None),
        )
        for question, required in cases:
            self.assertEqual(required_for(question), required)

    def test_declared(self) -> None:
        """An empty elicitation is a form; null declares nothing."""
        cases: tuple[tuple[bytes, Required, bool], ...] = (
            (b"{}", {"roots": {}}, False),
            (b'{"roots":{}}', {"roots": {}}, True),
            (b'{"roots":null}', {"roots": {}}, False),
            (b'{"elicitation":{}}', {"elicitation": {}}, True),
            (b'{"elicitation":{"form":{}}}', {"elicitation": {}}, True),
            (b'{"elicitation":{"url":{}}}', {"elicitation": {}}, False),
            (b'{"elicitation":{}}', {"elicitation": {"url": {}}}, False),
            (b'{"elicitation":{"url":{}}}', {"elicitation": {"url": {}}}, True),
            (b'{"sampling":{}}', {"sampling": {"tools": {}}}, False),
            (b'{"sampling":{"tools":null}}', {"sampling": {"tools": {}}}, False),
            (b'{"sampling":{"tools":{}}}', {"sampling": {"tools": {}}}, True),
            (b"nonsense", {"roots": {}}, False),
        )
        for capabilities, required, expected in cases:
            self.assertEqual(declares(capabilities, required), expected, capabilities)

    def test_the_broker_declares_everything(self) -> None:
        """A child may ask anything; each client decides for itself."""
        for question in (
            asked(ROOTS),
            asked(ELICITATION, {}),
            asked(ELICITATION, {"mode": "url"}),
            asked(SAMPLING, {"tools": [], "includeContext": "thisServer"}),
        ):
            required = required_for(question)
            assert required is not None
            self.assertTrue(declares(FULL, required))

    def test_interactive(self) -> None:
        """Whether a child could ask this client anything."""
        self.assertFalse(interactive(b'{"extensions":{}}'))
        self.assertFalse(interactive(b'{"roots":null}'))
        self.assertTrue(interactive(b'{"elicitation":{}}'))


class RefusalTests(SynchronousTestCase):
    """Who may be asked."""

    def test_declared_questions_are_asked(self) -> None:
        """On the three methods whose answer may be a question."""
        question = asked(ELICITATION, {})
        able: Required = {"elicitation": {}}
        for method, params in (
            ("tools/call", {"name": "t"}),
            ("prompts/get", {"name": "t"}),
            ("resources/read", {"uri": "t"}),
        ):
            call = modern(method, params, capabilities=able)
            self.assertIsNone(refusal(question, call))
        refused = refusal(question, modern("tools/list", {}, capabilities=able))
        assert refused is not None
        self.assertIsNone(refused.missing)

    def test_undeclared_questions(self) -> None:
        """The child gets an error under its id; what is missing is known."""
        refused = refusal(asked(SAMPLING, {}, "q"), modern(capabilities={"roots": {}}))
        assert refused is not None
        self.assertEqual(refused.missing, {"sampling": {}})
        answer = json.loads(refused.answer)
        self.assertEqual((answer["id"], answer["error"]["code"]), ("q", -32601))

    def test_other_requests(self) -> None:
        """Nobody can be asked what these revisions do not have."""
        refused = refusal(asked("x/y"), modern(capabilities=json.loads(FULL)))
        assert refused is not None
        self.assertIsNone(refused.missing)


class InputRequiredTests(SynchronousTestCase):
    """MCP 2026-07-28, multi round-trip requests, InputRequiredResult."""

    def test_result(self) -> None:
        """The questions by the child's own ids, and no caching hints."""
        questions = [
            question_of(asked(ELICITATION, {"message": "m"}, "name")),
            question_of(asked(ROOTS, None, 5)),
        ]
        self.assertEqual(
            json.loads(input_required(questions, "state", SERVER)),
            {
                "resultType": "input_required",
                "inputRequests": {
                    "name": {"method": ELICITATION, "params": {"message": "m"}},
                    "5": {"method": ROOTS},
                },
                "requestState": "state",
                "_meta": {META_SERVER: json.loads(SERVER)},
            },
        )
        bare = json.loads(input_required([], None))
        self.assertEqual(bare, {"resultType": "input_required", "inputRequests": {}})

    def test_keys_are_unique(self) -> None:
        """A number and a text that look alike can both be open."""
        taken: list[str] = []
        for id in (1, "1", "1'", -1):
            taken.append(question_of(asked(ROOTS, None, id), taken).key)
        self.assertEqual(len(set(taken)), 4)
        self.assertEqual(taken[0], "1")

    def test_only_removed_members_leave(self) -> None:
        """The rest of a question keeps its bytes."""
        line = (
            b'{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":'
            b'{ "mode":"url","elicitationId":"e", "url":"https:\\/\\/x",'
            b'"task":{"ttl":1},"n": 1.0, "_meta":{"progressToken":1,"x": 2}}}'
        )
        message = parse_child_line(line)
        assert isinstance(message, Request)
        self.assertEqual(
            input_request(message),
            b'{"method":"elicitation/create","params":{ "mode":"url",'
            b' "url":"https:\\/\\/x","n": 1.0, "_meta":{"x": 2}}}',
        )
        progress = asked(SAMPLING, {"_meta": {"progressToken": 1}, "maxTokens": 2})
        self.assertEqual(
            json.loads(input_request(progress))["params"], {"maxTokens": 2}
        )
        plain = asked(SAMPLING, {"elicitationId": 1})
        self.assertIn(b"elicitationId", input_request(plain))


class AnswerTests(SynchronousTestCase):
    """What a retry brings."""

    def test_answers_are_sorted(self) -> None:
        """Unknown keys are ignored; wrong and missing ones are asked again."""
        questions = [question_of(asked(ELICITATION, {}, key)) for key in "abc"]
        given = {"a": ACCEPT, "b": b"12345", "z": ACCEPT}
        found = sort_answers(given, questions)
        self.assertEqual([question.key for question in found.open], ["b", "c"])
        ((question, answer),) = found.answered
        self.assertEqual(question.key, "a")
        self.assertEqual(answer, b'{"jsonrpc":"2.0","id":"a","result":' + ACCEPT + b"}")
        self.assertEqual(sort_answers(None, questions).open, tuple(questions))

    def test_shapes(self) -> None:
        """MCP 2026-07-28, schema, InputResponse."""
        sampled = b'{"role":"assistant","model":"m","content":{"type":"text"}}'
        for method, result, expected in (
            (ELICITATION, ACCEPT, True),
            (ELICITATION, b'{"action":"decline"}', True),
            (ELICITATION, b'{"action":"cancel","content":{}}', True),
            (ELICITATION, b'{"action":"Accept"}', False),
            (ELICITATION, b'{"action":"accept","content":[1]}', False),
            (ELICITATION, b"{}", False),
            (ELICITATION, b"null", False),
            (SAMPLING, sampled, True),
            (SAMPLING, sampled.replace(b'{"type":"text"}', b"[]"), True),
            (SAMPLING, sampled.replace(b'{"type":"text"}', b'"t"'), False),
            (SAMPLING, b'{"role":"assistant","content":{}}', False),
            (SAMPLING, b'{"role":"system","model":"m","content":{}}', False),
            (ROOTS, b'{"roots":[]}', True),
            (ROOTS, b'{"roots":[{"uri":"file:///x","name":"n"}]}', True),
            (ROOTS, b'{"roots":[{"name":"n"}]}', False),
            (ROOTS, b'{"roots":null}', False),
            (ROOTS, b"{}", False),
        ):
            self.assertEqual(is_answer(asked(method, {}), result), expected, result)

    def test_a_question_that_fails(self) -> None:
        """The child hears why."""
        failed = json.loads(question_of(asked(ROOTS, None, "r")).failed("late", -1))
        self.assertEqual(failed["id"], "r")
        self.assertEqual(failed["error"], {"code": -1, "message": "late"})

    @given(
        st.lists(st.sampled_from("abcdef"), unique=True),
        st.dictionaries(
            st.sampled_from("abcdefgh"), st.sampled_from([ACCEPT, b"1", b"{}"])
        ),
    )
    def test_nothing_is_lost(self, open: list[str], given: dict[str, bytes]) -> None:
        """Each question is answered by what its key brought, or still open."""
        questions = [question_of(asked(ELICITATION, {}, key)) for key in open]
        found = sort_answers(given, questions)
        answered = [question for question, _answer in found.answered]
        order = questions.index
        self.assertEqual(sorted([*answered, *found.open], key=order), questions)
        for question in questions:
            expected = given.get(question.key) == ACCEPT
            self.assertEqual(question in answered, expected)
        self.assertIsInstance(questions, list)
        self.assertTrue(all(isinstance(each, Question) for each in answered))
