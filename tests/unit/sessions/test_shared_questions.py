"""Questions of children of the older revisions, and the clients' answers."""

from typing import Any

from twisted.internet.defer import Deferred

from fjmcp_broker.mcp.modern.errors import ModernError
from fjmcp_broker.sessions.children.population import Limits
from fjmcp_broker.sessions.errors import TooManySessions
from fjmcp_broker.sessions.stateless.workplace import DOUBT_SECONDS
from tests.fakes import FakeProcess
from tests.relay_stubs import principal
from tests.unit.sessions.shared_world import (
    EVERYTHING,
    Client,
    SharedWorld,
    accepted,
    modern,
)


class QuestionWorld(SharedWorld):
    """Calls whose child asks."""

    def start(self, id: Any = 1, **named: Any) -> Client:
        """A call whose client can be asked."""
        return self.send_modern(modern(id, capabilities=EVERYTHING, **named))

    def retry(self, before: Client, answers: Any, id: Any = 2, **named: Any) -> Client:
        """The same call, with answers."""
        return self.start(
            id, inputResponses=answers, requestState=before.state, **named
        )

    def refusal(self, before: Client, **named: Any) -> ModernError:
        """The same call, which is not taken any more."""
        who = named.pop("who", None)
        request = modern(
            2,
            capabilities=EVERYTHING,
            inputResponses={"q": accepted()},
            requestState=before.state,
            **named,
        )
        error = self.refused(request, who)
        self.assertIsInstance(error, ModernError)
        assert isinstance(error, ModernError)
        return error

    def asking(self) -> Client:
        """A call that waits for its client."""
        client = self.start()
        self.elicit(self.child)
        self.together()
        self.assertEqual(list(client.asked), ["q"])
        return client

    def finish(self, process: FakeProcess, **result: Any) -> None:
        """The child answers its last call."""
        self.reply(process, self.calls(process)[-1]["id"], result)


class AskingTests(QuestionWorld):
    """From the question to the answer of the call."""

    def test_whole_way(self) -> None:
        """Question, answer, result; the child saw one call."""
        client = self.start()
        self.elicit(self.child, "q", "your name?")
        self.assertEqual(client.answers, [])
        self.together()
        self.assertEqual(client.status, 200)
        question = client.asked["q"]
        self.assertEqual(question["method"], "elicitation/create")
        self.assertEqual(question["params"]["message"], "your name?")
        again = self.retry(client, {"q": accepted(name="x")})
        self.assertEqual(
            self.said_to(self.child),
            [{"jsonrpc": "2.0", "id": "q", "result": accepted(name="x")}],
        )
        self.finish(self.child, done=True)
        self.assertEqual(
            (again.answer["id"], again.answer["result"]["done"]), (2, True)
        )
        self.assertEqual(len(self.calls(self.child)), 1)

    def test_questions_travel_together(self) -> None:
        """And one that comes later is asked with the next retry."""
        client = self.start()
        self.elicit(self.child, 1)
        self.clock.advance(0.04)
        self.say(self.child, id="r", method="roots/list")
        self.clock.advance(0.01)
        self.assertEqual(set(client.asked), {"1", "r"})
        self.elicit(self.child, "late")
        answers = {"1": accepted(), "r": {"roots": []}}
        again = self.retry(client, answers)
        self.together()
        self.assertEqual(list(again.asked), ["late"])
        last = self.retry(again, {"late": accepted()}, 3)
        self.finish(self.child)
        self.assertEqual(last.answer["id"], 3)
        said = [message["id"] for message in self.said_to(self.child)]
        self.assertEqual(said, [1, "r", "late"])

    def test_equal_looking_ids(self) -> None:
        """Are different questions."""
        client = self.start()
        self.elicit(self.child, 1, "number")
        self.elicit(self.child, "1", "text")
        self.together()
        keys = {q["params"]["message"]: key for key, q in client.asked.items()}
        self.retry(
            client,
            {keys["number"]: accepted(is_="n"), keys["text"]: accepted(is_="t")},
        )
        self.assertEqual(
            {repr(m["id"]): m["result"]["content"] for m in self.said_to(self.child)},
            {"1": {"is_": "n"}, "'1'": {"is_": "t"}},
        )

    def test_missing_and_malformed_answers(self) -> None:
        """Are asked for again, as often as it takes; what is too much is ignored."""
        client = self.asking()
        for answers in (None, {}, {"x": accepted()}, {"q": {"action": "maybe"}}):
            named = {} if answers is None else {"inputResponses": answers}
            client = self.start(2, requestState=client.state, **named)
            self.together()
            self.assertEqual(list(client.asked), ["q"])
        self.assertEqual(self.said_to(self.child), [])
        self.retry(client, {"q": {"action": "decline"}})
        self.assertEqual(len(self.said_to(self.child)), 1)

    def test_answer_before_the_question(self) -> None:
        """Is given at once, on a first call too, for one question."""
        client = self.start(inputResponses={"q": accepted(a=1), "x": 3})
        self.elicit(self.child)
        self.assertEqual(self.said_to(self.child)[0]["result"], accepted(a=1))
        self.elicit(self.child)
        self.together()
        self.assertEqual(list(client.asked), ["q"])

    def test_progress_of_a_retry(self) -> None:
        """Goes under its own token."""
        client = self.start(token="first")
        self.elicit(self.child)
        self.together()
        again = self.retry(client, {"q": accepted()}, token="second")
        child_token = self.calls(self.child)[0]["params"]["_meta"]["progressToken"]
        self.notify(
            self.child, "notifications/progress", progressToken=child_token, progress=1
        )
        (message,) = again.messages
        self.assertEqual(message["params"]["progressToken"], "second")

    def test_undeclared_capability(self) -> None:
        """The child hears it; when the call fails of that, so does the client."""
        client = self.send_modern(modern(capabilities={"elicitation": {}}))
        self.say(self.child, id="s", method="sampling/createMessage", params={})
        (answer,) = self.said_to(self.child)
        self.assertEqual(answer["error"]["code"], -32601)
        self.finish(self.child, content=[], isError=True)
        self.assertEqual((client.answer["error"]["code"], client.status), (-32021, 400))
        self.assertEqual(
            client.answer["error"]["data"], {"requiredCapabilities": {"sampling": {}}}
        )

    def test_undeclared_capability_that_was_not_needed(self) -> None:
        """Then the call went well."""
        client = self.send_modern(modern())
        self.elicit(self.child)
        self.finish(self.child, content=[])
        self.assertIn("result", client.answer)

    def test_ping(self) -> None:
        """Is about the connection, which is ours."""
        self.start()
        self.say(self.child, id=5, method="ping")
        self.assertEqual(
            self.said_to(self.child), [{"jsonrpc": "2.0", "id": 5, "result": {}}]
        )

    def test_two_calls_in_flight(self) -> None:
        """Nobody is asked: it could be the other's question."""
        clients = [self.start(), self.start()]
        self.elicit(self.child)
        self.together()
        (answer,) = self.said_to(self.child)
        self.assertEqual(answer["error"]["data"], {"reason": "no_single_call"})
        self.assertEqual([client.answers for client in clients], [[], []])

    def test_call_that_was_given_up(self) -> None:
        """Its questions go to nobody else."""
        one, two = self.start(), self.start()
        one.leave()
        self.elicit(self.child)
        self.assertEqual(len(self.said_to(self.child)), 1)
        self.clock.advance(DOUBT_SECONDS)
        self.elicit(self.child, "mine")
        self.together()
        self.assertEqual(list(two.asked), ["mine"])

    def test_nothing_in_flight_that_may_be_asked(self) -> None:
        """The child hears that."""
        self.manual.add("tools/list")
        self.send_modern(modern(1, "tools/list", EVERYTHING))
        self.elicit(self.child)
        self.assertIn("error", self.said_to(self.child)[0])

    def test_answer_of_the_call_while_it_is_asked(self) -> None:
        """Goes to the client at once, or with its retry; the question is over."""
        client = self.start()
        self.elicit(self.child)
        self.finish(self.child, first=True)
        self.assertTrue(client.answer["result"]["first"])
        self.assertEqual(self.said_to(self.child)[0]["id"], "q")
        client = self.asking()
        self.reply(self.child, self.calls(self.child)[1]["id"], {"second": True})
        again = self.retry(client, {"q": accepted()})
        self.assertTrue(again.answer["result"]["second"])
        self.assertEqual(again.answer["id"], 2)

    def test_answer_that_outlives_its_child(self) -> None:
        """It is an answer like any other, and the call is not lost."""
        client = self.asking()
        self.finish(self.child, late=True)
        self.child.exit(1)
        again = self.retry(client, {"q": accepted()})
        self.assertTrue(again.answer["result"]["late"])
        self.assertEqual(again.answer["result"]["resultType"], "complete")


class StateTests(QuestionWorld):
    """What the client repeats."""

    def test_is_good_once(self) -> None:
        """And the call is not made again."""
        client = self.asking()
        self.retry(client, {"q": accepted()})
        error = self.refusal(client)
        self.assertEqual(error.data, {"reason": "generation_lost"})
        self.assertEqual(len(self.calls(self.child)), 1)

    def test_two_retries_at_once(self) -> None:
        """One of them wins."""
        client = self.asking()
        request = modern(
            2,
            capabilities=EVERYTHING,
            inputResponses={"q": accepted()},
            requestState=client.state,
        )
        leases = [self.lease(request), self.lease(request)]
        leases[0].begin(request, Client())
        with self.assertRaises(ModernError):
            leases[1].begin(request, Client())
        self.assertEqual(len(self.said_to(self.child)), 1)

    def test_for_another_request(self) -> None:
        """Other arguments, another tool, another method: refused, and still good."""
        client = self.asking()
        for named in ({"arguments": {"a": 1}}, {"name": "echo"}):
            self.assertEqual(self.refusal(client, **named).code, -32602)
        read = modern(
            2, "resources/read", EVERYTHING, uri="x:y", requestState=client.state
        )
        self.assertEqual(self.refused(read).code, -32602)
        self.retry(client, {"q": accepted()})
        self.assertEqual(len(self.said_to(self.child)), 1)

    def test_of_somebody_else(self) -> None:
        """Another grant of the same user included."""
        client = self.asking()
        for who in (self.bob, principal(1, "g_other")):
            # Any child of theirs, so that it is known what children speak.
            self.send_modern(modern(name="echo"), who)
            error = self.refusal(client, who=who)
            self.assertEqual((error.status, error.code), (400, -32602))

    def test_forged(self) -> None:
        """Each bit of it counts."""
        client = self.asking()
        for forged in ("", "x", client.state[:-2], "A" + client.state[1:]):
            if forged != client.state:
                request = modern(2, capabilities=EVERYTHING, requestState=forged)
                self.assertEqual(self.refused(request).code, -32602)

    def test_ten_minutes(self) -> None:
        """Then the child is told, and the retry comes too late."""
        client = self.asking()
        self.clock.advance(599)
        self.assertEqual(self.said_to(self.child), [])
        self.clock.advance(1)
        self.assertIn("error", self.said_to(self.child)[0])
        self.assertEqual(len(self.calls(self.child, "notifications/cancelled")), 1)
        error = self.refusal(client)
        self.assertEqual((error.code, error.data), (-32602, None))
        self.assertEqual(len(self.calls(self.child)), 1)

    def test_child_is_not_put_to_sleep(self) -> None:
        """A waiting question counts as in flight."""
        client = self.asking()
        self.clock.advance(500)
        self.successResultOf(Deferred.fromCoroutine(self.registry.reap(100, 10**6)))
        self.retry(client, {"q": accepted()})
        self.assertEqual(len(self.said_to(self.child)), 1)

    def test_child_is_let_wait(self) -> None:
        """It is not asked for signs of life; when it has its answer, it is."""
        client = self.asking()
        self.manual.add("ping")

        def look(seconds: int) -> None:
            for _ in range(seconds // 5):
                self.clock.advance(5)
                looking = self.registry.population.look_after_children()
                self.successResultOf(Deferred.fromCoroutine(looking))

        look(590)
        self.assertEqual(self.calls(self.child, "ping"), [])
        self.retry(client, {"q": accepted()})
        look(70)
        self.assertEqual(len(self.calls(self.child, "ping")), 1)
        self.finish(self.child)
        look(400)
        self.assertEqual(len(self.living), 1)

    def check_lost(self, client: Client) -> None:
        """The retry fails with the reason, and no child hears of it."""
        error = self.refusal(client)
        self.assertEqual(error.data, {"reason": "generation_lost"})
        calls = sum(len(self.calls(process)) for process in self.spawner.processes)
        self.assertEqual(calls, 1)

    def test_child_that_crashed(self) -> None:
        """The call is lost."""
        client = self.asking()
        self.child.exit(1)
        self.check_lost(client)

    def test_daemon_that_was_started_again(self) -> None:
        """Likewise, and it is known for what it was; the stop was not held up."""
        client = self.asking()
        self.restart()
        self.check_lost(client)

    def test_rotation(self) -> None:
        """The old child waits for the client, until its token expires."""
        client = self.asking()
        old = self.child
        self.clock.advance(10)
        later = int(self.clock.seconds()) + 3600
        self.registry.population.rotate_user(1, later)
        self.send_modern(modern(5, name="echo"))
        self.assertEqual(len(self.living), 2)
        again = self.retry(client, {"q": accepted()})
        self.assertEqual(len(self.said_to(old)), 1)
        self.finish(old, done=True)
        self.assertTrue(again.answer["result"]["done"])
        self.assertTrue(old.exited)

    def test_rotation_without_an_answer(self) -> None:
        """The call is lost with the old token."""
        self.tokens.life_seconds = 400
        client = self.asking()
        self.clock.advance(10)
        self.tokens.life_seconds = 3600
        later = int(self.clock.seconds()) + 3600
        self.registry.population.rotate_user(1, later)
        self.clock.advance(390)
        self.check_lost(client)

    def test_grant_that_ends(self) -> None:
        """Everything ends."""
        self.asking()
        self.registry.close_grant("g_1")
        self.assertEqual((self.living, len(self.registry)), ([], 0))

    def test_client_that_leaves_after_the_question(self) -> None:
        """Its first request was answered: nothing is cancelled."""
        client = self.asking()
        client.leave()
        self.assertEqual(self.calls(self.child, "notifications/cancelled"), [])
        again = self.retry(client, {"q": accepted()})
        client.leave()
        again.leave()
        self.assertEqual(len(self.calls(self.child, "notifications/cancelled")), 1)

    def test_client_that_leaves_while_questions_gather(self) -> None:
        """The child hears that nobody will answer."""
        client = self.start()
        self.elicit(self.child)
        client.leave()
        self.together()
        self.assertIn("error", self.said_to(self.child)[0])
        self.assertEqual(client.answers, [])


class LeaseTests(QuestionWorld):
    """C{child.interactive}: a child for each call that may be asked."""

    interactive = True
    limits = Limits(total=4, per_user=3)

    def setUp(self) -> None:
        """The era of the child is known."""
        super().setUp()
        self.send_modern(modern(name="echo"))
        self.shared_child = self.child

    def test_own_child(self) -> None:
        """For calls that declare something; the others share one."""
        one, two = self.start(1), self.start(1)
        self.send_modern(modern())
        first, second = self.living[1:]
        self.assertEqual(len(self.calls(self.shared_child)), 2)
        self.elicit(first, "q", "first")
        self.elicit(second, "q", "second")
        self.together()
        for client, text in ((one, "first"), (two, "second")):
            self.assertEqual(client.asked["q"]["params"]["message"], text)
        for process, client in ((second, two), (first, one)):
            again = self.retry(client, {"q": accepted()})
            self.finish(process, pid=process.pid)
            self.assertEqual(again.answer["result"]["pid"], process.pid)
            self.assertEqual(again.answer["result"]["resultType"], "complete")
        self.assertEqual(self.living, [self.shared_child, first, second])
        self.assertEqual(len(self.registry), 3)

    def test_log_level(self) -> None:
        """Is set before the call, for that call alone."""
        client = self.send_modern(modern(log_level="info"))
        methods = [message["method"] for message in self.received(self.child)]
        self.assertEqual(methods[-2:], ["logging/setLevel", "tools/call"])
        other = self.send_modern(modern(log_level="debug"))
        self.notify(self.living[1], "notifications/message", level="info", data="x")
        self.assertEqual((len(client.messages), other.messages), (1, []))

    def test_child_that_does_not_set_the_level(self) -> None:
        """The call is made after a while."""
        self.manual.add("logging/setLevel")
        session = self.registry.shared(self.alice)
        waiting = Deferred.fromCoroutine(session.awake(modern(log_level="info")))
        self.assertNoResult(waiting)
        self.registry.population.put_idle_to_sleep(self.clock.seconds() + 1)
        self.clock.advance(2)
        lease = self.successResultOf(waiting)
        lease.begin(modern(log_level="info"), Client())
        self.assertEqual(len(self.calls(self.child)), 1)

    def test_limits(self) -> None:
        """A leased child counts."""
        self.send_modern(modern())
        self.start(), self.start()
        request = modern(9, capabilities=EVERYTHING)
        self.assertIsInstance(self.refused(request), TooManySessions)
        self.assertEqual(len(self.living), 3)
        self.assertEqual(len(self.registry), 3)

    def test_questions_that_nobody_answers(self) -> None:
        """They hold the user's places for ten minutes, as docs/configuration.md says:
        another client of the same user has to wait, and then goes on."""
        other = principal(1, "g_other")
        clients = [self.start() for _ in range(3)]
        for process in self.living[-3:]:
            self.elicit(process)
        self.together()
        for client in clients:
            self.assertEqual(len(client.asked), 1)
        self.assertIsInstance(self.refused(modern(), other), TooManySessions)
        self.clock.advance(600)
        answer = self.send_modern(modern(name="echo"), other).answer
        self.assertIn("result", answer)

    def test_lease_that_is_not_used(self) -> None:
        """Its child is for the next one."""
        lease = self.lease(modern(capabilities=EVERYTHING))
        leased = self.child
        lease.release()
        lease.release()
        self.start()
        self.assertEqual(self.living, [self.shared_child, leased])
        self.assertEqual(len(self.calls(leased)), 1)

    def test_child_is_used_again(self) -> None:
        """By one request after another, each with its own questions and messages."""
        for number in range(3):
            client = self.send_modern(
                modern(number, capabilities=EVERYTHING, log_level="info")
            )
            process = self.child
            self.notify(process, "notifications/message", level="info", data=number)
            self.elicit(process, "q", f"question {number}")
            self.together()
            self.assertEqual(
                client.asked["q"]["params"]["message"], f"question {number}"
            )
            self.assertEqual(len(client.messages), 1)
            again = self.retry(client, {"q": accepted()})
            self.finish(process)
            self.assertEqual(again.answer["result"]["resultType"], "complete")
        self.assertEqual(self.living, [self.shared_child, process])

    def test_few_are_kept(self) -> None:
        """Two, and those of a request at a time are for that one alone."""
        for number in range(1, 3):
            self.start(number)
        first, second = self.living[1:]
        self.finish(first)
        self.finish(second)
        self.assertEqual(len(self.living), 3)
        self.start(3), self.start(4)
        self.assertEqual(self.living, [self.shared_child, first, second])
        self.assertEqual([len(self.calls(one)) for one in (first, second)], [2, 2])

    def test_kept_child_that_goes(self) -> None:
        """Of itself, or because it is idle: the next request gets another one."""
        for end in ("crash", "idle"):
            self.start()
            process = self.child
            self.finish(process)
            if end == "crash":
                process.exit(1)
                self.clock.advance(120)
            else:
                self.clock.advance(1)
                self.registry.population.put_idle_to_sleep(self.clock.seconds())
            self.assertTrue(process.exited, end)
            client = self.start()
            self.assertIsNot(self.child, process)
            self.finish(self.child)
            self.assertIn("result", client.answer)

    def test_kept_child_makes_room(self) -> None:
        """It is idle, so that others need not wait for it."""
        for number in range(1, 3):
            self.start(number)
        kept = self.living[1:]
        for process in kept:
            self.finish(process)
        self.clock.advance(1)
        self.send_modern(modern(), self.bob), self.send_modern(modern(name="echo"))
        self.assertEqual(len(self.living), 4)
        self.send_modern(modern(capabilities=EVERYTHING), self.bob)
        self.assertEqual(len([process for process in kept if process.exited]), 1)

    def test_kept_children_end_with_the_grant(self) -> None:
        """Nothing of it is left."""
        self.start()
        self.finish(self.child)
        self.registry.close_grant("g_1")
        self.assertEqual((self.living, len(self.registry)), ([], 0))

    def test_call_that_does_not_end_well(self) -> None:
        """Is the end of its child, which may still be at it."""
        for end in ("leave", "expire", "crash"):
            client = self.start()
            process = self.child
            if end == "leave":
                client.leave()
            elif end == "crash":
                process.exit(1)
                self.assertIn("error", client.answer)
            else:
                self.elicit(process)
                self.together()
                self.clock.advance(600)
            self.assertEqual(self.living, [self.shared_child], end)

    def test_child_is_not_rotated(self) -> None:
        """It is nobody else's, and serves its call as long as its token lives."""
        client = self.start()
        self.clock.advance(10)
        later = int(self.clock.seconds()) + 3600
        self.registry.population.rotate_user(1, later)
        self.assertEqual(len(self.spawner.processes), 3)
        self.clock.advance(3580)
        self.assertEqual(client.answer["error"]["data"], {"reason": "token_expired"})

    def test_grant_that_ends(self) -> None:
        """Everything ends."""
        client = self.start()
        self.registry.close_grant("g_1")
        self.assertEqual(client.answer["error"]["data"], {"reason": "grant_ended"})
        self.assertEqual((self.living, len(self.registry)), ([], 0))

    def test_retry_needs_no_place(self) -> None:
        """Its child is there already."""
        client = self.start()
        process = self.child
        self.elicit(process)
        self.together()
        self.send_modern(modern())
        self.start()
        again = self.retry(client, {"q": accepted()})
        self.finish(process)
        self.assertIn("result", again.answer)
