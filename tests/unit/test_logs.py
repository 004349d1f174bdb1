"""What the log looks like, and what it never shows."""

import json
from collections.abc import Callable, Coroutine
from io import StringIO
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Application, MultiService
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.python.log import err
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.logs import (
    LineObserver,
    background,
    install,
    json_line,
    make_observer,
    redact,
    text_line,
)
from fjmcp_broker.secret import Secret

TOKENS = (
    "fjmcp_at_" + "a" * 43,
    "fjmcp_rt_" + "-_Z9" * 11,
    "fjmcp_code_" + "b" * 43,
    "fjmcp_cs_" + "c" * 43,
    "gto_" + "d" * 52,
    "gta_" + "e" * 52,
    "eyJhbGciOiJSUzI1NiJ9.eyJnbnQiOjF9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg",
)


def events(**fields: object) -> list[LogEvent]:
    """
    @param fields: of the event.
    @return: the event as an observer gets it.
    """
    found: list[LogEvent] = []
    log = Logger(
        namespace="fjmcp_broker.test", observer=cast(ILogObserver, found.append)
    )
    log.emit(LogLevel.warn, str(fields.pop("format")), **fields)
    return found


class TerminalText(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """
        @return: always.
        """
        return True


class JsonTests(SynchronousTestCase):
    """One JSON object a line."""

    def test_fields(self) -> None:
        """Time, level, namespace, message, request id and plain values."""
        [event] = events(
            format="session {session} opened",
            session="s1",
            count=3,
            secret=Secret("hush"),
            request_id="r-1",
            thing=object(),
        )
        record = json.loads(json_line(event))
        self.assertRegex(record.pop("time"), r"^20\d\d-\d\d-\d\dT[\d:.]+Z$")
        self.assertEqual(
            record,
            {
                "level": "warn",
                "namespace": "fjmcp_broker.test",
                "message": "session s1 opened",
                "request_id": "r-1",
                "fields": {"session": "s1", "count": 3, "secret": "[redacted]"},
            },
        )

    def test_failure_has_its_traceback(self) -> None:
        """A bug is worth where it happened, still on one line."""
        found: list[LogEvent] = []
        log = Logger(namespace="x", observer=cast(ILogObserver, found.append))
        try:
            raise ValueError("broken")
        except ValueError:
            log.failure("no {what}", what="luck")
        line = json_line(found[0])
        self.assertNotIn("\n", line)
        self.assertIn("ValueError: broken", json.loads(line)["traceback"])
        self.assertIn("\n\t", text_line(found[0]))

    @given(st.text(), st.text())
    def test_no_text_breaks_the_line(self, text: str, namespace: str) -> None:
        """Whatever a peer sent, a line stays one line."""
        [event] = events(format="got {text}", text=text)
        event["log_namespace"] = namespace
        self.assertEqual(len(json_line(event).splitlines()), 1)
        event["log_namespace"] = "x"
        line = text_line(event)
        self.assertFalse({"\n", "\r", "\x1b", "\x9b"} & set(line))


class RedactionTests(SynchronousTestCase):
    """A second line of defence."""

    def test_known_tokens_are_taken_out(self) -> None:
        """In messages, in fields and in tracebacks, of both forms."""
        for token in TOKENS:
            [event] = events(format="got {text}", text=f"x{token[:0]} ={token};")
            for line in (json_line(event), text_line(event)):
                self.assertNotIn(token, line)
                self.assertNotIn(token[-20:], line)
                self.assertIn("[redacted]", line)

    def test_harmless_text_stays(self) -> None:
        """Client ids, session ids and words are no tokens."""
        for text in ("fjmcp_client_" + "a" * 22, "eyJ", "gto_", "a.b.c", "x" * 43):
            self.assertEqual(redact(text), text)

    def test_secret_in_a_message_is_redacted(self) -> None:
        """A Secret never formats as itself."""
        [event] = events(format="with {secret}", secret=Secret("hush"))
        self.assertNotIn("hush", json_line(event) + text_line(event))


class ObserverTests(SynchronousTestCase):
    """Levels, formats, and events that cannot be written."""

    def written(self, output: StringIO, level: str, format: str) -> str:
        """
        @param output: the stream.
        @param level: the threshold.
        @param format: the configured format.
        @return: what one event each at debug, warn and error leaves there.
        """
        observer = make_observer(level, format, output)
        log = Logger(namespace="x", observer=observer)
        log.debug("one")
        log.warn("two")
        log.error("three")
        return output.getvalue()

    def test_level_is_a_threshold(self) -> None:
        """Less severe events are not written."""
        self.assertEqual(len(self.written(StringIO(), "debug", "json").splitlines()), 3)
        self.assertEqual(len(self.written(StringIO(), "warn", "json").splitlines()), 2)
        self.assertEqual(len(self.written(StringIO(), "critical", "text")), 0)

    def test_auto_is_text_on_a_terminal_only(self) -> None:
        """People get text, collectors JSON; both can be asked for by name."""
        for output, format, as_json in (
            (StringIO(), "auto", True),
            (TerminalText(), "auto", False),
            (TerminalText(), "json", True),
            (StringIO(), "text", False),
        ):
            first = self.written(output, "info", format)[0]
            self.assertEqual(first == "{", as_json)

    def test_unwritable_event_does_not_stop_the_program(self) -> None:
        """A field whose text cannot be made costs one line, no exception."""

        class Broken:
            """Cannot be formatted."""

            def __repr__(self) -> str:
                raise ValueError("no")

        output = StringIO()
        observer = LineObserver(output, as_json=True)
        observer({"log_time": "never", "log_format": "{x}", "x": Broken()})
        self.assertEqual(len(output.getvalue().splitlines()), 1)

    def test_install_needs_an_application(self) -> None:
        """twistd's application gets the observer, another parent nothing."""
        application = Application("x")
        install(application, "info", "json", StringIO())
        self.assertIsNotNone(application.getComponent(ILogObserver))
        self.assertIsNone(install(MultiService(), "info", "json", StringIO()))

    def test_the_level_can_change(self) -> None:
        """Both ways, while the observer stays."""
        application, output = Application("x"), StringIO()
        set_level = install(application, "warn", "text", output)
        assert set_level is not None
        log = Logger(namespace="x", observer=application.getComponent(ILogObserver))
        for level in ("warn", "debug", "error"):
            set_level(level)
            log.info("at {name}", name=level)
        [line] = output.getvalue().splitlines()
        self.assertIn("at debug", line)


class BackgroundTests(SynchronousTestCase):
    """Detached work."""

    def test_failure_is_logged(self) -> None:
        """Nobody waits for it, so somebody has to read it."""

        async def broken() -> None:
            raise ValueError("broken")

        background(broken(), "sweeping")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_foreseen_failure_is_one_line(self) -> None:
        """A store that is locked for a while fills no log with tracebacks."""
        events: list[LogEvent] = []
        keep = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)

        async def broken() -> None:
            raise BrokerError("the store is locked")

        background(broken(), "sweeping")
        self.assertEqual(self.flushLoggedErrors(), [])
        [told] = events
        self.assertEqual(formatEvent(told), "sweeping failed: the store is locked")
        self.assertIs(told["log_level"], LogLevel.warn)

    def test_result_and_cancellation_are_dropped(self) -> None:
        """Neither is worth a line."""
        waiting: Deferred[None] = Deferred()

        async def wait() -> int:
            await waiting
            return 1

        async def cancelled() -> None:
            raise CancelledError

        background(wait(), "waiting")
        background(cancelled(), "waiting")
        waiting.callback(None)
        self.assertEqual(self.flushLoggedErrors(), [])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["there", "later", "failed", "fails", "nested"]),
                st.booleans(),
            ),
            max_size=6,
        ),
        st.sampled_from(["result", "broken"]),
    )
    def test_work_runs_as_in_a_deferred(
        self, steps: list[tuple[str, bool]], end: str
    ) -> None:
        """Where it waits, what it gets there and how it ends are all the same."""

        def started_by(start: Callable[[Coroutine[Any, Any, str]], None]) -> list[str]:
            said: list[str] = []
            waits: list[tuple[Deferred[int], bool]] = []

            async def inner(number: int) -> int:
                return await later(number, fails=False) + 1

            def later(number: int, *, fails: bool) -> Deferred[int]:
                waiting: Deferred[int] = Deferred()
                waits.append((waiting, fails))
                return waiting

            async def work() -> str:
                for number, (kind, is_caught) in enumerate(steps):
                    said.append(f"{number} begins")
                    try:
                        if kind == "there":
                            got = await succeed(number)
                        elif kind == "failed":
                            got = await fail(ValueError("at once"))
                        elif kind == "nested":
                            got = await inner(number)
                        else:
                            got = await later(number, fails=kind == "fails")
                        said.append(f"{number} got {got}")
                    except ValueError as error:
                        said.append(f"{number} raised {error}")
                        if not is_caught:
                            raise
                if end == "broken":
                    raise ValueError("at the end")
                said.append("finished")
                return end

            start(work())
            said.append("started")
            while waits:
                waiting, fails = waits.pop()
                said.append("fires")
                if fails:
                    waiting.errback(ValueError("later"))
                else:
                    waiting.callback(len(said))
            said.append(f"logged {len(self.flushLoggedErrors(ValueError))}")
            return said

        def plainly(coroutine: Coroutine[Any, Any, str]) -> None:
            Deferred.fromCoroutine(coroutine).addErrback(lambda failure: err(failure))

        self.assertEqual(
            started_by(lambda work: background(work, "working")), started_by(plainly)
        )
