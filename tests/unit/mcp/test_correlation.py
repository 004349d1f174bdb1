"""Which answer belongs to whom."""

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.correlation import (
    Answer,
    ChildGoneError,
    ChildNotification,
    ChildRequest,
    Correlation,
    Dropped,
    DuplicateIdError,
    Relayed,
    RequestNotification,
    TooManyPendingError,
)
from fjmcp_broker.mcp.messages import (
    Response,
    parse,
    parse_child_line,
)


def client(body: str) -> Any:  # Any: each test knows which kind of message it wrote
    """A message as a client sends it."""
    return parse(('{"jsonrpc":"2.0",' + body + "}").encode())


def child(body: str) -> Any:  # Any: as above
    """A message as a child sends it."""
    return parse_child_line(('{"jsonrpc":"2.0",' + body + "}").encode())


CALL = (
    '"id":%s,"method":"tools/call","params":{"name":"a","_meta":{"progressToken":%s}}'
)
CANCEL = '"method":"notifications/cancelled","params":{"requestId":%s,"reason":"r"}'
PROGRESS = (
    '"method":"notifications/progress","params":{"progressToken":%s,"progress":1}'
)
ASK = '"id":%s,"method":"roots/list","params":{"_meta":{"progressToken":%s}}'


class RequestTests(SynchronousTestCase):
    """Requests of clients and their answers."""

    def setUp(self) -> None:
        self.correlation: Correlation[str] = Correlation("c1", maximum_pending=3)

    def test_answer_comes_back_under_the_clients_id(self) -> None:
        """Id and progress token are ours towards the child, the client's on return."""
        sent = self.correlation.request(client(CALL % ('"x"', '"t"')), "s1", "w1")
        self.assertEqual(
            json.loads(sent),
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {"name": "a", "_meta": {"progressToken": 1}},
            },
        )
        note = self.correlation.receive(child(PROGRESS % "1"))
        assert isinstance(note, RequestNotification)
        self.assertEqual(note.pending.waiter, "w1")
        self.assertEqual(json.loads(note.message)["params"]["progressToken"], "t")
        answer = self.correlation.receive(child('"id":1,"result":{"a" : 1e400}'))
        assert isinstance(answer, Answer)
        self.assertEqual(answer.pending.waiter, "w1")
        self.assertEqual(answer.pending.method, "tools/call")
        self.assertEqual(answer.response, Response(b'"x"', b'{"a" : 1e400}'))
        self.assertEqual(len(self.correlation), 0)

    def test_number_and_string_are_two_ids(self) -> None:
        """1 and "1" of one session, and 1 of another, are three requests."""
        for id, session in (("1", "s1"), ('"1"', "s1"), ("1", "s2")):
            self.correlation.request(client(CALL % (id, "1")), session, id + session)
        got: list[tuple[bytes, str]] = []
        for number in (3, 1, 2):
            event = self.correlation.receive(child(f'"id":{number},"result":{{}}'))
            assert isinstance(event, Answer)
            got.append((event.response.id, event.pending.waiter))
        self.assertEqual(got, [(b"1", "1s2"), (b"1", "1s1"), (b'"1"', '"1"s1')])

    def test_duplicate_id_in_flight(self) -> None:
        """409 for the second, in whatever spelling; free again after the answer."""
        self.correlation.request(client(CALL % ('"a"', "1")), "s1", "w")
        again = client(CALL % ('"\\u0061"', "1"))
        self.assertRaises(DuplicateIdError, self.correlation.request, again, "s1", "w")
        self.correlation.receive(child('"id":1,"result":{}'))
        self.correlation.request(again, "s1", "w")

    def test_limit(self) -> None:
        """A client cannot queue without end."""
        for number in range(3):
            self.correlation.request(client(CALL % (number, 1)), "s1", "w")
        more = client(CALL % (9, 1))
        self.assertRaises(
            TooManyPendingError, self.correlation.request, more, "s2", "w"
        )

    def test_cancellation_names_the_childs_id(self) -> None:
        """The request is no longer pending, and its late answer is dropped."""
        self.correlation.request(client(CALL % ("0", "1")), "other", "w0")
        self.correlation.request(client(CALL % ("7", "1")), "s1", "w")
        relayed = self.correlation.notify(client(CANCEL % "7"), "s1")
        assert relayed.message is not None and relayed.cancelled is not None
        self.assertEqual(
            json.loads(relayed.message)["params"], {"requestId": 2, "reason": "r"}
        )
        self.assertEqual(relayed.cancelled.waiter, "w")
        event = self.correlation.receive(child('"id":2,"result":{}'))
        self.assertIsInstance(event, Dropped)
        self.assertEqual(self.correlation.late_answers, 1)
        self.assertEqual(len(self.correlation), 1)

    def test_cancellation_of_nothing_is_dropped(self) -> None:
        """Unknown, another session's, without an id, and of initialize."""
        self.correlation.request(client(CALL % ("7", "1")), "s1", "w")
        self.correlation.request(client('"id":8,"method":"initialize"'), "s1", "w")
        for body, session in (
            (CANCEL % "7", "s2"),
            (CANCEL % '"7"', "s1"),
            (CANCEL % "null", "s1"),
            (CANCEL % "[7]", "s1"),
            (CANCEL % "8", "s1"),
            ('"method":"notifications/cancelled"', "s1"),
        ):
            self.assertEqual(
                self.correlation.notify(client(body), session), Relayed(None)
            )
        self.assertEqual(len(self.correlation), 2)

    def test_withdrawal(self) -> None:
        """A request of a client that went away is cancelled once."""
        self.correlation.request(client(CALL % ("7", "1")), "s1", "w")
        pending = self.correlation.sole_pending("s1")
        assert pending is not None
        message = self.correlation.withdraw(pending, 'the client "left"')
        assert message is not None
        self.assertEqual(
            json.loads(message)["params"],
            {"requestId": 1, "reason": 'the client "left"'},
        )
        self.assertIsNone(self.correlation.withdraw(pending, ""))

    def test_progress_on_nothing_is_dropped(self) -> None:
        """Late, unknown, and on a request that asked for none."""
        self.correlation.request(client('"id":1,"method":"tools/call"'), "s1", "w")
        for token in ("1", "2", '"1"', "null"):
            event = self.correlation.receive(child(PROGRESS % token))
            self.assertIsInstance(event, Dropped, token)

    def test_error_without_id_answers_the_only_request(self) -> None:
        """forgejo-mcp 2.34 says no more after a panic in a tool."""
        body = '"id":null,"error":{"code":-32603,"message":"panic"}'
        self.assertIsInstance(self.correlation.receive(child(body)), Dropped)
        self.correlation.request(client(CALL % ("7", "1")), "s1", "w")
        event = self.correlation.receive(child(body))
        assert isinstance(event, Answer)
        self.assertEqual(event.response.id, b"7")
        for number in (1, 2):
            self.correlation.request(client(CALL % (number, "1")), "s1", "w")
        self.assertIsInstance(self.correlation.receive(child(body)), Dropped)
        self.assertEqual(len(self.correlation), 2)

    def test_drain_returns_everybody(self) -> None:
        """When the child ends nobody is left waiting, and nothing more is taken."""
        for number in (1, 2):
            self.correlation.request(client(CALL % (number, "1")), "s1", f"w{number}")
        event = self.correlation.receive(child(ASK % ("1", "1")))
        assert isinstance(event, ChildRequest)
        self.assertEqual([p.waiter for p in self.correlation.drain()], ["w1", "w2"])
        self.assertEqual(self.correlation.drain(), [])
        request = client(CALL % ("1", "1"))
        self.assertRaises(ChildGoneError, self.correlation.request, request, "s1", "w")
        self.assertRaises(ChildGoneError, self.correlation.ask, event, "s1")

    def test_sole_pending(self) -> None:
        """A question of the child goes to the only request in flight."""
        self.assertIsNone(self.correlation.sole_pending())
        self.correlation.request(client(CALL % ("1", "1")), "s1", "w1")
        self.correlation.request(client(CALL % ("1", "1")), "s2", "w2")
        self.assertIsNone(self.correlation.sole_pending())
        found = self.correlation.sole_pending("s2")
        assert found is not None
        self.assertEqual(found.waiter, "w2")

    def test_other_notifications_pass(self) -> None:
        """In both directions, untouched."""
        relayed = self.correlation.notify(client('"method":"notifications/x"'), "s1")
        self.assertEqual(
            relayed,
            Relayed(b'{"jsonrpc":"2.0","method":"notifications/x"}'),
        )
        event = self.correlation.receive(
            child('"method":"notifications/message","params":{"level":"info"}')
        )
        assert isinstance(event, ChildNotification)
        self.assertIsNone(event.session)
        self.assertIn(b'{"level":"info"}', event.message)


class QuestionTests(SynchronousTestCase):
    """Questions of the child and the clients' answers."""

    def setUp(self) -> None:
        self.correlation: Correlation[str] = Correlation("c1", maximum_pending=2)

    def ask(self, id: str = '"q"', token: str = "4") -> Any:  # Any: parsed JSON
        """The question as session s1 gets it."""
        event = self.correlation.receive(child(ASK % (id, token)))
        assert isinstance(event, ChildRequest)
        return json.loads(self.correlation.ask(event, "s1"))

    def test_answer_goes_back_under_the_childs_id(self) -> None:
        """Under an id that no other child of the session ever used."""
        asked = self.ask()
        self.assertEqual(asked["id"], "c1-1")
        self.assertEqual(asked["params"]["_meta"]["progressToken"], "c1-1")
        answer = client('"id":"c1-1","result":{"roots" : []}')
        self.assertIsNone(self.correlation.respond(answer, "s2"))
        self.assertEqual(
            self.correlation.respond(answer, "s1"),
            b'{"jsonrpc":"2.0","id":"q","result":{"roots" : []}}',
        )
        self.assertIsNone(self.correlation.respond(answer, "s1"))

    def test_refusal_goes_back(self) -> None:
        """The person said no."""
        self.ask("1.5")
        answer = client('"id":"c1-1","error":{"code":-1,"message":"no"}')
        self.assertEqual(
            self.correlation.respond(answer, "s1"),
            b'{"jsonrpc":"2.0","id":1.5,"error":{"code":-1,"message":"no"}}',
        )

    def test_progress_of_the_client(self) -> None:
        """On the child's token; nobody else's progress reaches the child."""
        self.ask()
        relayed = self.correlation.notify(client(PROGRESS % '"c1-1"'), "s1")
        assert relayed.message is not None
        self.assertEqual(json.loads(relayed.message)["params"]["progressToken"], 4)
        for token, session in (('"c1-1"', "s2"), ("4", "s1"), ('"c1-2"', "s1")):
            relayed = self.correlation.notify(client(PROGRESS % token), session)
            self.assertEqual(relayed, Relayed(None))

    def test_child_gives_up_its_question(self) -> None:
        """The client learns it under the id that it knows."""
        self.ask()
        event = self.correlation.receive(child(CANCEL % '"q"'))
        assert isinstance(event, ChildNotification)
        self.assertEqual(event.session, "s1")
        self.assertEqual(json.loads(event.message)["params"]["requestId"], "c1-1")
        again = self.correlation.receive(child(CANCEL % '"q"'))
        self.assertIsInstance(again, Dropped)
        answer = client('"id":"c1-1","result":{}')
        self.assertIsNone(self.correlation.respond(answer, "s1"))

    def test_limit(self) -> None:
        """A child cannot ask without end."""
        self.ask("1")
        self.ask("2")
        self.assertRaises(TooManyPendingError, self.ask, "3")
