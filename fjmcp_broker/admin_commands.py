"""
The commands of C{fjmcp-broker} with which an operator looks at what a daemon does and
ends it: lists, C{revoke}, C{rotate-key}, C{audit} and C{trace}.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fjmcp_broker.config.kinds import parse_duration
from fjmcp_broker.config.load import load
from fjmcp_broker.control.client import Ask, administration
from fjmcp_broker.control.protocol import ControlError, Request
from fjmcp_broker.control.tables import COLUMNS, attempt, table
from fjmcp_broker.errors import BrokerError
from fjmcp_broker.secret import Secret

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_DAY: Final = 86400
_LISTS: Final = {
    "users": "who has signed in",
    "clients": "which clients there are",
    "grants": "what users allowed which clients",
    "sessions": "which sessions are open, and which of them have a child",
}
_ALL: Final = {
    "clients": "those as well with which nobody has ever signed in",
    "grants": "those as well that have ended",
}


def add_to(commands: "Commands") -> None:
    """
    @param commands: of the command line; they get some more.
    """
    for name, about in _LISTS.items():
        command = commands.add_parser(name, help=about)
        verbs = command.add_subparsers(dest="verb", required=True, metavar="list")
        verb = verbs.add_parser("list", help=about)
        _add_common(verb, _listed)
        if name in _ALL:
            verb.add_argument("--all", action="store_true", help=_ALL[name])
        if name in ("grants", "sessions"):
            verb.add_argument("--user", metavar="LOGIN|ID", help="of this user only")

    revoke = commands.add_parser(
        "revoke", help="end grants: tokens, sessions and children, at once"
    )
    _add_common(revoke, _revoke)
    revoke.add_argument("--user", metavar="LOGIN|ID", help="those of this user")
    revoke.add_argument("--client", metavar="ID", help="those of this client")
    revoke.add_argument("--grant", metavar="ID", help="this one")

    rotate = commands.add_parser(
        "rotate-key", help="seal everything in the store with another key"
    )
    _add_common(rotate, _rotate_key)

    audit = commands.add_parser("audit", help="who called which tool, and what else")
    _add_common(audit, _audit)
    audit.add_argument("--user", metavar="LOGIN|ID", help="of this user only")
    audit.add_argument(
        "--since",
        metavar="TIME",
        type=since,
        default="1d",
        help="a duration before now (1h30m, 7d) or a time (2026-01-31,"
        " 2026-01-31T09:00, UTC); default: the last day",
    )

    trace = commands.add_parser(
        "trace", help="how far sign-ins came, and why no further"
    )
    _add_common(trace, _trace)
    trace.add_argument("id", metavar="ID", nargs="?", help="from a page or the log")
    trace.add_argument("--user", metavar="LOGIN|ID", help="of this user only")
    trace.add_argument(
        "--all", action="store_true", help="all that are kept, not the latest only"
    )


def _add_common(
    command: argparse.ArgumentParser, run: Callable[[Ask, argparse.Namespace], int]
) -> None:
    where = command.add_mutually_exclusive_group()
    where.add_argument("--config", metavar="FILE", help="the TOML file")
    where.add_argument(
        "--store",
        metavar="FILE",
        help="the store itself; the configuration is not read then",
    )
    command.add_argument("--json", action="store_true", help="for programs")
    command.set_defaults(run=lambda arguments: _run(run, arguments))


def since(text: str) -> int:
    """
    @param text: a duration before now, or a date or time, UTC unless it says
        otherwise.
    @return: seconds since the epoch.
    @raise argparse.ArgumentTypeError: it is neither.
    """
    try:
        return max(0, int(time.time()) - parse_duration(text))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0, int(moment.timestamp()))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            "must be a duration such as 1h30m or 7d, or a time such as 2026-01-31T09:00"
        ) from None


def _run(
    run: Callable[[Ask, argparse.Namespace], int], arguments: argparse.Namespace
) -> int:
    try:
        path: str = arguments.store
        keys: Sequence[Secret] = ()
        if path is None:
            database = load(arguments.config, os.environ).config.database
            path, keys = database.path, database.encryption_keys
        with administration(path, keys) as ask:
            return run(ask, arguments)
    except BrokerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except BrokenPipeError:
        # Whoever reads has seen enough. Nothing more may be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _pages(ask: Ask, command: str, arguments: Mapping[str, Any]) -> Iterator[Any]:
    after = None
    while True:
        page = ask(Request(command, {**arguments, "after": after}))
        yield page["rows"]
        after = page.get("after")
        if after is None:
            return


def _show(ask: Ask, name: str, arguments: argparse.Namespace, **more: Any) -> int:
    pages = _pages(ask, name, more)
    if arguments.json:
        for rows in pages:
            for row in rows:
                sys.stdout.write(json.dumps(row) + "\n")
        return 0
    rows = [row for page in pages for row in page]
    if rows:
        sys.stdout.write(table(COLUMNS[name], rows))
    else:
        sys.stderr.write(f"no {'events' if name == 'audit' else name}\n")
    return 0


def _listed(ask: Ask, arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    chosen = {name: given[name] for name in ("all", "user") if given.get(name)}
    return _show(ask, arguments.command, arguments, **chosen)


def _audit(ask: Ask, arguments: argparse.Namespace) -> int:
    return _show(ask, "audit", arguments, user=arguments.user, since=arguments.since)


def _trace(ask: Ask, arguments: argparse.Namespace) -> int:
    if arguments.id is None:
        return _listed(ask, arguments)
    (row,) = ask(Request("trace", {"id": arguments.id}))["rows"]
    sys.stdout.write(json.dumps(row) + "\n" if arguments.json else attempt(row))
    return 0


def _revoke(ask: Ask, arguments: argparse.Namespace) -> int:
    chosen = {name: vars(arguments)[name] for name in ("user", "client", "grant")}
    if not any(chosen.values()):
        raise ControlError("say whose: --user, --client or --grant")
    revoked: list[str] = []
    more = True
    while more:
        done = ask(Request("revoke", chosen))
        revoked += done["grants"]
        more = done["more"]
    if arguments.json:
        sys.stdout.write(json.dumps({"revoked": revoked}) + "\n")
    elif revoked:
        for grant_id in revoked:
            sys.stdout.write(f"revoked {grant_id}\n")
    else:
        sys.stdout.write("nothing to revoke: it has ended already\n")
    return 0


def _rotate_key(ask: Ask, arguments: argparse.Namespace) -> int:
    done = ask(Request("rotate-key"))
    if arguments.json:
        sys.stdout.write(json.dumps(done) + "\n")
        return 0
    lines = [f"sealed with key {done['key_id']}: {done['resealed']} values anew"]
    if done["new_key"]:
        lines.append(
            "The key file holds the new key alone. Backups made before need the old"
            " one: make a new backup now, and one of the key file."
        )
    elif done["spare"]:
        lines.append(
            "Nothing needs the keys behind the first of database.encryption_keys any"
            " more, but for backups made before: take them out and restart."
        )
    else:
        lines.append(
            "The first of database.encryption_keys seals. For another one, put it in"
            " front of it, restart, and run this again."
        )
    if done["key_file_is_spare"]:
        lines.append("The key file beside the store is of no use any more.")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0
