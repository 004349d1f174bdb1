"""
Any interleaving of connections of both eras gives each exactly its own: answers,
progress, log messages, questions.

What belongs to whom is written into every message: the child puts the tag of the call
that it means into all that it says, and no client may ever see another tag.
"""

import json
from typing import Any

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from fjmcp_broker.mcp.messages import Notification, Request, Response, parse
from fjmcp_broker.sessions.children.population import Limits
from fjmcp_broker.sessions.session import Session
from fjmcp_broker.sessions.stateless.workplace import DOUBT_SECONDS
from tests.fakes import FakeProcess
from tests.unit.sessions.shared_world import (
    EVERYTHING,
    Client,
    SharedWorld,
    accepted,
    modern,
)

CONNECTIONS = 4
"""The first two are of the stateless era, the others use one session."""


@attrs.define(eq=False)
class OldClient:
    """
    Waits for the answer to one request of a session.

    @ivar seen: everything that came for it.
    @ivar answers: the answer, once.
    """

    takes_messages: bool = True
    seen: list[Any] = attrs.Factory(list)
    answers: list[Response] = attrs.Factory(list)
    is_over: bool = False

    def notified(self, message: bytes) -> None:
        """Something came before the answer."""
        assert not self.is_over
        self.seen.append(json.loads(message))

    def answered(self, response: Response) -> None:
        """The answer."""
        assert not self.is_over
        self.is_over = True
        self.answers.append(response)

    def cancelled(self) -> None:
        """Nothing follows."""
        self.is_over = True


@attrs.define(eq=False)
class Made:
    """
    One call of one connection, as the model has it.

    @ivar tag: in everything that belongs to it.
    @ivar connection: whose it is.
    @ivar id: as its client knows it now.
    @ivar clients: what watched it, the newest last.
    @ivar process: the child that has it.
    @ivar child_id: its id there.
    @ivar is_wanted: whether its client still waits.
    """

    tag: int
    connection: int
    id: Any
    clients: list[Any]
    process: FakeProcess
    child_id: Any
    is_wanted: bool = True
    given_up_at: float = 0.0


class Interleaving:
    """One run: what happens, and what must come of it."""

    def __init__(self, world: SharedWorld) -> None:
        """
        @param world: with nobody in it.
        """
        self.world = world
        self.calls: list[Made] = []
        self.over: list[Made] = []
        self.questions: dict[Any, Made] = {}
        self.count = 0
        self.session = self.open()
        self.listeners = [
            world.send_modern(
                modern("s", "subscriptions/listen", notifications={"tools": True})
            )
        ]

    def open(self) -> Session:
        """A session of the older revisions."""
        request = parse(
            b'{"jsonrpc":"2.0","id":0,"method":"initialize",'
            b'"params":{"protocolVersion":"2025-11-25","capabilities":{}}}'
        )
        assert isinstance(request, Request)
        opening = Deferred.fromCoroutine(
            self.world.registry.open(self.world.alice, request)
        )
        opened = self.world.successResultOf(opening)
        assert opened.session is not None
        session: Session = opened.session
        return session

    def number(self) -> int:
        """A new tag."""
        self.count += 1
        return self.count

    # What happens

    def begin(self, which: int) -> None:
        """A connection makes a call; ids of different connections are equal."""
        connection, tag = which % CONNECTIONS, self.number()
        own = sum(made.connection == connection for made in self.calls + self.over)
        id: Any = own
        if connection == CONNECTIONS - 1:
            id = str(own)  # beside the number of the other one
        arguments = {"tag": tag}
        if connection < 2:
            client: Any = self.world.send_modern(
                modern(
                    id,
                    capabilities=EVERYTHING,
                    log_level="debug",
                    token="t",
                    arguments=arguments,
                )
            )
        else:
            client = OldClient()
            self.world.successResultOf(Deferred.fromCoroutine(self.session.awake()))
            request = parse(
                json.dumps(
                    {
                        "jsonrpc": "2.0",
                        "id": id,
                        "method": "tools/call",
                        "params": {
                            "name": "hold",
                            "arguments": arguments,
                            "_meta": {"progressToken": "t"},
                        },
                    }
                ).encode()
            )
            assert isinstance(request, Request)
            self.session.request(request, client)
        found = [
            (process, call["id"])
            for process in self.world.living
            for call in self.world.calls(process)
            if call["params"]["arguments"] == arguments
        ]
        ((process, child_id),) = found
        self.calls.append(Made(tag, connection, id, [client], process, child_id))

    def pick(self, which: int, *, wanted: bool = False) -> Made | None:
        """One of the calls that a child has."""
        for made in [m for m in self.calls if m.process.exited]:
            self.calls.remove(made)
            self.over.append(made)
        calls = [m for m in self.calls if m.is_wanted or not wanted]
        return calls[which % len(calls)] if calls else None

    def answer(self, which: int) -> None:
        """A child answers, also what nobody wants any more."""
        made = self.pick(which)
        if made is not None:
            self.calls.remove(made)
            self.over.append(made)
            self.world.reply(made.process, made.child_id, {"tag": made.tag})

    def progress(self, which: int) -> None:
        """A child reports."""
        made = self.pick(which)
        if made is not None:
            self.world.notify(
                made.process,
                "notifications/progress",
                progressToken=made.child_id,
                progress=self.number(),
                message=str(made.tag),
            )

    def log(self, which: int) -> None:
        """A child logs about a call, which it does not name."""
        made = self.pick(which)
        if made is not None:
            self.world.notify(
                made.process, "notifications/message", level="error", data=made.tag
            )

    def ask(self, which: int) -> None:
        """A child asks about a call, which it does not name."""
        made = self.pick(which)
        if made is not None:
            id = f"q{self.number()}"
            self.questions[id] = made
            self.world.elicit(made.process, id, str(made.tag))

    def leave(self, which: int) -> None:
        """A client takes its call back; the child does not care."""
        made = self.pick(which, wanted=True)
        if made is None:
            return
        made.is_wanted = False
        made.given_up_at = self.world.clock.seconds()
        client = made.clients[-1]
        if isinstance(client, Client):
            client.leave()
            if client.answers:
                made.is_wanted = True  # it only left after a question
        else:
            params = {"requestId": made.id}
            note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
            parsed = parse(json.dumps({**note, "params": params}).encode())
            assert isinstance(parsed, Notification)
            self.session.notify(parsed)
            # Both connections are one client to its session, so that a child that
            # went on would speak to that client: here it only answers late.
            self.calls.remove(made)
            self.over.append(made)
            self.world.reply(made.process, made.child_id, {"tag": made.tag})

    def retry(self, which: int) -> None:
        """A client answers what it was asked."""
        made = self.pick(which, wanted=True)
        if made is None or not isinstance(made.clients[-1], Client):
            return
        client = made.clients[-1]
        if not client.answers or "inputRequests" not in client.answer.get("result", {}):
            return
        made.id = f"retry {self.number()}"
        made.clients.append(
            self.world.send_modern(
                modern(
                    made.id,
                    capabilities=EVERYTHING,
                    log_level="debug",
                    token=f"t{made.tag}",
                    arguments={"tag": made.tag},
                    requestState=client.state,
                    inputResponses={
                        key: accepted(tag=made.tag) for key in client.asked
                    },
                )
            )
        )

    def wait(self, which: int) -> None:
        """Time passes."""
        self.pass_time((0.01, 0.05, 1.0, DOUBT_SECONDS)[which % 4])

    def pass_time(self, seconds: float) -> None:
        """A child that still works on what was taken back stops it some time."""
        self.world.clock.advance(seconds)
        now = self.world.clock.seconds()
        for made in list(self.calls):
            if not made.is_wanted and now - made.given_up_at >= DOUBT_SECONDS:
                self.calls.remove(made)
                self.over.append(made)

    def crash(self, which: int) -> None:
        """A child ends."""
        living = self.world.living
        if living:
            process = living[which % len(living)]
            process.exit(1)
            self.pass_time(60)
            for made in [m for m in self.calls if m.process is process]:
                self.calls.remove(made)
                self.over.append(made)

    # What must come of it

    def finish(self) -> None:
        """Answer what is left."""
        while self.pick(0) is not None:
            self.answer(0)

    def check(self) -> None:
        """Nobody has seen anything of anybody else, and nobody was left waiting."""
        test = self.world
        for made in self.over:
            tags = set()
            for client in made.clients:
                old = isinstance(client, OldClient)
                for message in client.seen if old else client.messages:
                    tags.add(self.tag_of(message))
                if old:
                    answers = [
                        json.loads(answer.result or b"{}") for answer in client.answers
                    ]
                else:
                    answers = [
                        answer["result"]
                        for answer, _ in client.answers
                        if "result" in answer
                    ]
                for result in answers:
                    for question in result.get("inputRequests", {}).values():
                        tags.add(int(question["params"]["message"]))
                    if "tag" in result:
                        tags.add(result["tag"])
            test.assertLessEqual(tags, {made.tag})
        for made in self.over:
            if made.is_wanted and not isinstance(made.clients[-1], OldClient):
                test.assertEqual(len(made.clients[-1].answers), 1)
                test.assertEqual(made.clients[-1].answer["id"], made.id)
            elif made.is_wanted:
                test.assertEqual(len(made.clients[-1].answers), 1)
        for process in test.spawner.processes:
            for answer in test.said_to(process):
                made = self.questions[answer["id"]]
                if "result" in answer:
                    test.assertEqual(answer["result"]["content"], {"tag": made.tag})
                    test.assertIs(process, made.process)
            tags_made = [c["params"]["arguments"]["tag"] for c in test.calls(process)]
            test.assertEqual(len(tags_made), len(set(tags_made)))
        for listener in self.listeners:
            test.assertEqual(len(listener.messages), 1)

    @staticmethod
    def tag_of(message: Any) -> int:
        """Which call a message means."""
        params = message["params"]
        if message["method"] == "notifications/message":
            return int(params["data"])
        return int(params["message"])


MIXTURES = (
    ("answer", "ask", "crash", "leave", "log", "progress", "retry"),
    ("answer", "ask", "retry"),
    ("answer", "log", "progress"),
    ("ask", "crash", "retry"),
    ("ask", "leave"),
    ("ask", "leave", "retry"),
    ("leave", "log"),
    ("crash", "leave", "log"),
)
"""Fewer kinds of events meet each other more often."""


def steps_of(events: tuple[str, ...]) -> st.SearchStrategy[list[tuple[str, int]]]:
    """Runs of calls and these events."""
    names = st.sampled_from(["begin", "wait", *events])
    return st.lists(st.tuples(names, st.integers(0, 3)), min_size=8, max_size=40)


RUNS = st.sampled_from(MIXTURES).flatmap(steps_of)


class InterleavingTests(SharedWorld):
    """Two connections of each era of one user."""

    @settings(max_examples=1000, suppress_health_check=list(HealthCheck), deadline=None)
    @given(RUNS)
    def test_each_gets_its_own(self, steps: list[tuple[str, int]]) -> None:
        """Whatever happens in whatever order."""
        self.run_steps(steps)

    def run_steps(self, steps: list[tuple[str, int]]) -> None:
        """One run, from nobody to nobody."""
        SharedWorld.setUp(self)
        run = Interleaving(self)
        for name, which in steps:
            getattr(run, name)(which)
        run.finish()
        run.check()
        self.successResultOf(Deferred.fromCoroutine(self.registry.stop(3)))
        self.assertEqual((self.living, len(self.registry)), ([], 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LeasedInterleavingTests(InterleavingTests):
    """The same, where calls have children for themselves, one after another."""

    interactive = True
    limits = Limits(total=1000, per_user=1000)
