"""What is logged and how: levels, formats, redaction, detached work."""

import json
import re
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from io import TextIOBase
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
)
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from zope.interface import implementer

from .errors import BrokerError
from .secret import REDACTED, Secret

log = Logger()

REQUEST_ID_FIELD: Final = "request_id"
"""The field of log events that belong to one HTTP request."""

_TOKENS: Final = re.compile(
    r"(?P<ours>fjmcp_(?:at|rt|code|cs)_)[A-Za-z0-9_-]{8,}"
    r"|(?P<forgejo>gt[oa]_)[A-Za-z0-9]{16,}"
    r"|(?P<jwt>\beyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{2,}(?:\.[A-Za-z0-9_-]*)?"
)
_CONTROL: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))
}
_TEXT_CONTROL: Final = {**_CONTROL, ord("\n"): "\n\t", ord("\t"): "\t"}


def background(coroutine: Coroutine[Deferred[Any], Any, object], what: str) -> None:
    """
    Start work that nobody waits for; its failure is logged, its result dropped.

    Most of what is started for a request waits for nothing. So the work runs up to its
    first wait by itself, and only what waits is given to a Deferred: to await one asks
    it again each time that it goes on, so that nothing is lost in between.

    @param coroutine: the work, not begun. It runs in the context (C{contextvars}) of
        whoever starts it as far as its first wait.
    @param what: names it in the log, from our own code alone.
    """
    try:
        coroutine.send(None)
    except StopIteration:
        return
    except BaseException:
        _failed(Failure(), what)
    else:
        Deferred.fromCoroutine(coroutine).addErrback(_failed, what)


def _failed(failure: Failure, what: str) -> None:
    if failure.check(BrokerError):
        # Foreseen, and its message is one clear line.
        log.warn("{what} failed: {error}", what=what, error=str(failure.value))
    elif not failure.check(CancelledError):
        log.failure("{what} failed", failure=failure, what=what)


def redact(text: str) -> str:
    """
    Take out what looks like a token: a second line of defence, behind never
    logging one.

    @param text: any text.
    @return: the text with the prefix of each token left, so that one sees what it
        was.
    """
    return _TOKENS.sub(lambda match: f"{match[match.lastgroup or 0]}{REDACTED}", text)


def _traceback(event: LogEvent) -> str | None:
    failure = event.get("log_failure")
    return failure.getTraceback() if isinstance(failure, Failure) else None


def _time(event: LogEvent) -> str:
    moment = datetime.fromtimestamp(float(event.get("log_time", 0.0)), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _level(event: LogEvent) -> str:
    level = event.get("log_level")
    return str(level.name) if level is not None else "info"


def json_line(event: LogEvent) -> str:
    """
    Write an event as one JSON object on one line.

    @param event: the event.
    @return: C{time} (RFC 3339), C{level}, C{namespace}, C{message}, where there are
        any C{request_id} and C{traceback}, and C{fields} with the event's own plain
        values; no line end.
    """
    record: dict[str, object] = {
        "time": _time(event),
        "level": _level(event),
        "namespace": str(event.get("log_namespace", "-")),
        "message": formatEvent(event),
    }
    request_id = event.get(REQUEST_ID_FIELD)
    if request_id is not None:
        record[REQUEST_ID_FIELD] = str(request_id)
    traceback = _traceback(event)
    if traceback is not None:
        record["traceback"] = traceback
    fields = {
        name: REDACTED if isinstance(value, Secret) else value
        for name, value in event.items()
        if isinstance(value, str | int | float | bool | Secret)
        and not name.startswith("log_")
        and name not in (*_LEGACY_FIELDS, REQUEST_ID_FIELD)
    }
    if fields:
        record["fields"] = fields
    return redact(json.dumps(record))


_LEGACY_FIELDS: Final = ("format", "isError", "message", "system", "time", "why")


def text_line(event: LogEvent) -> str:
    """
    Write an event for people.

    @param event: the event.
    @return: time, level, namespace and message; a traceback on indented lines. What
        came from outside cannot begin a line of its own or move the cursor.
    """
    request_id = event.get(REQUEST_ID_FIELD)
    request = "" if request_id is None else f" ({request_id})"
    namespace = event.get("log_namespace", "-")
    message = formatEvent(event).translate(_CONTROL)
    line = f"{_time(event)} {_level(event)} {namespace}: {message}{request}"
    traceback = _traceback(event)
    if traceback is not None:
        line += f"\n{traceback.rstrip()}".translate(_TEXT_CONTROL)
    return redact(line)


class Output(Protocol):
    """Where log lines go: a stream, or Twisted's rotating log file."""

    def write(self, data: str, /) -> object:
        """
        @param data: whole lines.
        """

    def flush(self) -> object:
        """Hand over what is buffered."""


@implementer(ILogObserver)
class LineObserver:
    """Writes each event as a line, or for people as a few."""

    def __init__(self, output: Output, as_json: bool) -> None:
        """
        @param output: where to write.
        @param as_json: one JSON object a line; else text for people.
        """
        self._output = output
        self._format = json_line if as_json else text_line

    def __call__(self, event: LogEvent) -> None:
        """
        @param event: the event.
        """
        try:
            line = self._format(event)
        except Exception as error:
            # Nothing about a log event may stop the program that logs it.
            line = f"an event that cannot be written: {type(error).__name__}"
        self._output.write(line + "\n")
        self._output.flush()


def make_observer(level: str, format: str, output: Output) -> ILogObserver:
    """
    Make the observer that the configuration asks for.

    @param level: the least severe level that is written.
    @param format: C{json}, C{text}, or C{auto}: text on a terminal, else JSON.
    @param output: where to write.
    @return: the observer.
    """
    return _make_observer(_threshold(level), format, output)


def _threshold(level: str) -> LogLevelFilterPredicate:
    return LogLevelFilterPredicate(LogLevel.levelWithName(level))


def _make_observer(
    threshold: LogLevelFilterPredicate, format: str, output: Output
) -> ILogObserver:
    on_terminal = isinstance(output, TextIOBase) and output.isatty()
    as_json = format == "json" or (format == "auto" and not on_terminal)
    observer = LineObserver(output, as_json)
    filtering: ILogObserver = FilteringLogObserver(observer, [threshold])
    return filtering


def install(
    parent: object, level: str, format: str, output: Output | None = None
) -> Callable[[str], None] | None:
    """
    Have C{twistd} log through our observer. C{twist} does not ask for it and keeps
    its own; a parent that is no application is left alone.

    @param parent: what the root service was given as its parent.
    @param level: the least severe level that is written.
    @param format: C{auto}, C{json} or C{text}.
    @param output: where to write; standard output unless given.
    @return: sets another level; C{None} if the parent was left alone.
    """
    if not isinstance(parent, Componentized):
        return None
    threshold = _threshold(level)
    observer = _make_observer(threshold, format, output or sys.stdout)
    parent.setComponent(ILogObserver, observer)

    def set_level(level: str) -> None:
        threshold.setLogLevelForNamespace("", LogLevel.levelWithName(level))

    return set_level
