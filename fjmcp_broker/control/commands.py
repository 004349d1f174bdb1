"""
The commands, as what they do to the store. The daemon runs them on its connections and
tells its other parts what has ended; without a daemon they run on the file.
"""

import re
from collections.abc import Callable
from sqlite3 import Connection
from typing import Any, Final

import msgspec
from msgspec.structs import asdict

from fjmcp_broker.control.protocol import PAGE_ROWS, ControlError, Request
from fjmcp_broker.store import administration, audit, traces
from fjmcp_broker.store.administration import Choice, Page
from fjmcp_broker.store.audit import ShownEvent
from fjmcp_broker.store.traces import ShownAttempt
from fjmcp_broker.trace.verdict import judge

ROTATE_KEY: Final = "rotate-key"
REVOKE: Final = "revoke"
SESSIONS: Final = "sessions"

_TRACES_SHOWN: Final = 50
_TRACES_OF_A_NETWORK: Final = 10
"""In the short list these come first; whoever floods it hides nobody else."""

_TRACE_ID: Final = re.compile("[a-z2-7]{8}")


class Outcome(msgspec.Struct, frozen=True):
    """
    What a command did.

    @ivar result: for whoever asked, JSON values.
    @ivar ended: ids of grants that it ended.
    @ivar user_id: whom it was about, if it named a user.
    """

    result: Any
    ended: tuple[str, ...] = ()
    user_id: int | None = None


class Command(msgspec.Struct, frozen=True):
    """
    A command.

    @ivar perform: with a connection, the request and seconds since the epoch.
    @ivar writes: whether it needs a transaction that may write.
    """

    perform: Callable[[Connection, Request, int], Outcome]
    writes: bool = False


def command(request: Request) -> Command:
    """
    @param request: of an operator.
    @return: what it asks for.
    @raise ControlError: there is no such command.
    """
    found = _COMMANDS.get(request.command)
    if found is None:
        raise ControlError(f"there is no command {request.command[:40]!r}")
    return found


def _paged(page: Page) -> Outcome:
    return Outcome({"rows": page.rows, "after": page.after})


def _users(connection: Connection, request: Request, now: int) -> Outcome:
    after = request.number("after")
    return _paged(administration.users(connection, PAGE_ROWS, after))


def _clients(connection: Connection, request: Request, now: int) -> Outcome:
    return _paged(
        administration.clients(
            connection, PAGE_ROWS, request.text("after"), unused=request.is_set("all")
        )
    )


def _grants(connection: Connection, request: Request, now: int) -> Outcome:
    return _paged(
        administration.grants(
            connection,
            PAGE_ROWS,
            request.text("after"),
            ended=request.is_set("all"),
            user_id=_user(connection, request),
        )
    )


def _sessions(connection: Connection, request: Request, now: int) -> Outcome:
    after, user_id = request.text("after"), _user(connection, request)
    try:
        page = administration.sessions(connection, PAGE_ROWS, after, user_id=user_id)
    except ValueError:
        raise ControlError("after must be a session") from None
    for row in page.rows:
        row["digest"], row["session"] = row["session"], row["session"][:10]
        row["state"] = "dormant"
    return _paged(page)


def _revoke(connection: Connection, request: Request, now: int) -> Outcome:
    choice = Choice(
        _user(connection, request), request.text("client"), request.text("grant")
    )
    if choice == Choice():
        raise ControlError("say whose: a user, a client or a grant")
    if not administration.exists(connection, choice):
        raise ControlError("there is no such client or grant")
    ended = administration.end_grants(connection, choice, now)
    more = len(ended) >= administration.ENDED_AT_ONCE
    return Outcome({"grants": ended, "more": more}, tuple(ended), choice.user_id)


def _audit(connection: Connection, request: Request, now: int) -> Outcome:
    after = request.arguments.get("after")
    if after is not None:
        is_pair = (
            isinstance(after, list) and [type(each) for each in after] == [int] * 2
        )
        if not is_pair:
            raise ControlError("after must be the end of a page")
        after = (after[0], after[1])
    shown = audit.select(
        connection,
        limit=PAGE_ROWS,
        user_id=_user(connection, request),
        since=request.number("since") or 0,
        after=after,
    )
    last = shown[-1] if len(shown) >= PAGE_ROWS else None
    page = None if last is None else [last.event.at, last.event_id]
    return Outcome({"rows": [_event(each) for each in shown], "after": page})


def _event(shown: ShownEvent) -> dict[str, Any]:
    values = asdict(shown.event)
    return {
        **values,
        "kind": str(shown.event.kind),
        "login": shown.login,
        "client_name": shown.client_name,
    }


def _trace(connection: Connection, request: Request, now: int) -> Outcome:
    trace_id = request.text("id")
    if trace_id is None:
        return _traces(connection, request, now)
    trace_id = trace_id.strip().lower()
    found = None
    if _TRACE_ID.fullmatch(trace_id):
        found = traces.find(connection, trace_id)
    if found is None:
        raise ControlError("there is no such trace; old ones are forgotten")
    return Outcome({"rows": [_attempt(found, now)]})


def _traces(connection: Connection, request: Request, now: int) -> Outcome:
    user_id = _user(connection, request)
    if user_id is None and not request.is_set("all"):
        shown = traces.newest(connection, _TRACES_SHOWN, _TRACES_OF_A_NETWORK)
        return Outcome({"rows": [_attempt(each, now) for each in shown]})
    after = request.arguments.get("after")
    if after is not None:
        is_pair = isinstance(after, list) and [type(e) for e in after] == [int, str]
        if not is_pair:
            raise ControlError("after must be the end of a page")
        after = (after[0], after[1])
    shown = traces.page(connection, _TRACES_SHOWN, after, user_id=user_id)
    last = shown[-1].attempt if len(shown) >= _TRACES_SHOWN else None
    end = None if last is None else [last.began_at, last.trace_id]
    return Outcome({"rows": [_attempt(each, now) for each in shown], "after": end})


def _attempt(shown: ShownAttempt, now: int) -> dict[str, Any]:
    attempt = shown.attempt
    verdict = judge(attempt, now)
    return {
        "trace": attempt.trace_id,
        "began_at": attempt.began_at,
        "updated_at": attempt.updated_at,
        "network": attempt.network,
        "client_id": attempt.client_id,
        "client_name": shown.client_name,
        "user_id": attempt.user_id,
        "login": shown.login,
        "grant_id": attempt.grant_id,
        "status": str(verdict.status),
        "verdict": verdict.sentence,
        "advice": verdict.advice,
        "steps": [{**asdict(step), "name": str(step.name)} for step in attempt.steps],
        "possibly_related": [asdict(seen) for seen in attempt.related],
    }


def _user(connection: Connection, request: Request) -> int | None:
    name = request.text("user")
    if name is None:
        return None
    found = administration.users_called(connection, name)
    if not found:
        raise ControlError(f"nobody called {name[:100]!r} has ever signed in")
    if len(found) > 1:
        numbers = " and ".join(map(str, found))
        raise ControlError(f"{name[:100]!r} can mean the users {numbers}")
    return found[0]


_COMMANDS: Final = {
    "users": Command(_users),
    "clients": Command(_clients),
    "grants": Command(_grants),
    SESSIONS: Command(_sessions),
    REVOKE: Command(_revoke, writes=True),
    "audit": Command(_audit),
    "trace": Command(_trace),
}
