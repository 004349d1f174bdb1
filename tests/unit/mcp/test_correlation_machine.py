"""Two connections on one child, by a state machine."""

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.correlation import (
    Answer,
    Correlation,
    Dropped,
    DuplicateIdError,
    RequestNotification,
    TooManyPendingError,
)
from fjmcp_broker.mcp.messages import (
    Notification,
    Request,
    Response,
    encode,
    parse,
    parse_child_line,
)

ids = st.one_of(
    st.integers(-2, 2).map(lambda number: str(number).encode()),
    st.sampled_from([b'"1"', b'"a"', b'"\\u0061"', b'"0"', b"9" * 40]),
)
sessions = st.sampled_from(["s1", "s2"])


class TwoConnections(RuleBasedStateMachine):
    """
    Two connections share a child that answers in any order, twice or never. The model
    is the plain list of what each sent; every request carries its own number, which
    the child sends back.
    """

    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.correlation: Correlation[int] = Correlation("x", maximum_pending=6)
        self.waiting: dict[int, tuple[str, bytes]] = {}
        self.number = 0
        self.dropped = 0

    @rule(target=sent, id=ids, session=sessions, token=ids)
    def send(self, id: bytes, session: str, token: bytes) -> Any:  # Any: a bundle
        """A connection asks."""
        self.number += 1
        params = b'{"n":%d,"_meta":{"progressToken":%s}}' % (self.number, token)
        body = encode(Request(id, "tools/call", params))
        request = parse(body)
        assert isinstance(request, Request)
        value = json.loads(id)
        busy = (session, value) in [
            (other, json.loads(one)) for other, one in self.waiting.values()
        ]
        try:
            line = self.correlation.request(request, session, self.number)
        except DuplicateIdError:
            assert busy
            return (0, 0, token)
        except TooManyPendingError:
            assert not busy and len(self.waiting) == 6
            return (0, 0, token)
        assert not busy
        self.waiting[self.number] = (session, id)
        at_child = json.loads(line)
        assert at_child["params"]["_meta"]["progressToken"] == at_child["id"]
        return (at_child["id"], at_child["params"]["n"], token)

    @rule(which=consumes(sent))
    def answer(self, which: tuple[int, int, bytes]) -> None:
        """The child answers; the right connection gets the right number."""
        child_id, number, _ = which
        line = b'{"id":%d,"result":{"n":%d}}' % (child_id, number)
        event = self.correlation.receive(parse_child_line(line))
        if number not in self.waiting:
            assert isinstance(event, Dropped)
            self.dropped += 1
            return
        assert isinstance(event, Answer)
        session, id = self.waiting.pop(number)
        assert event.pending.waiter == number
        assert event.pending.session == session
        assert event.response == Response(id, b'{"n":%d}' % number)

    @rule(which=sent)
    def progress(self, which: tuple[int, int, bytes]) -> None:
        """The child reports; the request's own token comes with it."""
        child_id, number, token = which
        params = b'{"progressToken":%d}' % child_id
        event = self.correlation.receive(
            Notification(
                "notifications/progress", params, {"progressToken": params[17:-1]}
            )
        )
        if number not in self.waiting:
            assert isinstance(event, Dropped)
            return
        assert isinstance(event, RequestNotification)
        assert event.pending.waiter == number
        assert b'{"progressToken":' + token + b"}" in event.message

    @rule(id=ids, session=sessions)
    def cancel(self, id: bytes, session: str) -> None:
        """A connection gives up; only its own request ends."""
        members = {"requestId": id}
        params = b'{"requestId":' + id + b"}"
        relayed = self.correlation.notify(
            Notification("notifications/cancelled", params, members), session
        )
        mine = [
            number
            for number, (other, one) in self.waiting.items()
            if other == session and json.loads(one) == json.loads(id)
        ]
        assert [relayed.cancelled.waiter] if relayed.cancelled else [] == mine
        for number in mine:
            del self.waiting[number]

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """Who waits in the model waits here."""
        found: Iterator[int] = (p.waiter for p in self.correlation.pending())
        assert list(found) == list(self.waiting)
        assert self.correlation.late_answers == self.dropped

    def teardown(self) -> None:
        """The child ends and everybody hears of it."""
        assert [p.waiter for p in self.correlation.drain()] == list(self.waiting)


class TwoConnectionsTests(SynchronousTestCase):
    """Two connections on one child."""

    def test_each_gets_exactly_its_own_answers(self) -> None:
        """Whatever ids they choose and in whatever order things happen."""
        run_state_machine_as_test(
            TwoConnections, settings=settings(max_examples=100, stateful_step_count=30)
        )
