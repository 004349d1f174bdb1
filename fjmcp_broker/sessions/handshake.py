"""What of a session outlives its children: whose it is, and what each is told."""

import json
from collections.abc import Callable, Mapping

import msgspec
from msgspec.structs import replace

from fjmcp_broker.mcp.messages import NULL, Request, Response, encode_request, parse
from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.sessions.children.waiting import Waiter

MAXIMUM_SUBSCRIPTIONS = 1000
"""A client may ask for more, but a new child is not told of those."""


class Identity(msgspec.Struct, frozen=True):
    """
    Whose a session is.

    @ivar grant_id: the grant that it belongs to.
    @ivar user_id: Forgejo's number of the user.
    @ivar client_id: the client that opened it.
    @ivar policy: of the grant that opened it.
    """

    grant_id: str
    user_id: int
    client_id: str
    policy: Policy


class Told(msgspec.Struct, frozen=True):
    """
    What each new child of a session is told.

    @ivar initialize: the client's request.
    @ivar log_level: as the client set it, or C{None}.
    @ivar subscriptions: URIs of resources, controlled by the client.
    """

    initialize: Request
    log_level: str | None = None
    subscriptions: tuple[str, ...] = ()

    @classmethod
    def stored(
        cls, params: bytes, log_level: str | None, subscriptions: tuple[str, ...]
    ) -> "Told":
        """
        @param params: raw JSON of the params of the client's C{initialize}.
        @param log_level: as the client set it.
        @param subscriptions: URIs of resources.
        @return: what was told before.
        """
        again = parse(
            encode_request(b"0", "initialize", None if params == NULL else params)
        )
        assert isinstance(again, Request)  # noqa: S101 - it was one before
        return cls(again, log_level, subscriptions)

    def after(self, request: Request) -> "Told":
        """
        @param request: of the client, and its child has agreed.
        @return: what the next child is told; the same when nothing changes.
        """
        if request.method == "logging/setLevel":
            level = _text(request, "level")
            return self if level is None else replace(self, log_level=level)
        uri = _text(request, "uri")
        others = tuple(known for known in self.subscriptions if known != uri)
        if request.method == "resources/subscribe" and uri is not None:
            if len(others) < MAXIMUM_SUBSCRIPTIONS:
                return replace(self, subscriptions=(*others, uri))
        elif request.method == "resources/unsubscribe":
            return replace(self, subscriptions=others)
        return self

    def repeat(self, ask: Callable[[str, Mapping[str, object]], object]) -> None:
        """
        Tell a new child what its predecessors were told after C{initialize}.

        @param ask: makes a request of the child: method and params. Nobody hears the
            answers.
        """
        if self.log_level is not None:
            ask("logging/setLevel", {"level": self.log_level})
        for uri in self.subscriptions:
            ask("resources/subscribe", {"uri": uri})


TELLING = frozenset(
    ("logging/setLevel", "resources/subscribe", "resources/unsubscribe")
)
"""Methods after which L{Told} may be another."""


def telling_params(request: Request) -> dict[str, str]:
    """
    @param request: of one of these methods.
    @return: what of its params another child has to be told.
    """
    texts = ((name, _text(request, name)) for name in ("level", "uri"))
    return {name: text for name, text in texts if text is not None}


class WatchedWaiter:
    """
    A client's waiter, and somebody who comes first when the answer is there.
    """

    def __init__(self, waiter: Waiter, first: Callable[[Response], None]) -> None:
        """
        @param waiter: the client's.
        @param first: called with the answer before the client gets it.
        """
        self._waiter = waiter
        self._first = first

    @property
    def takes_messages(self) -> bool:
        """
        @return: whether messages before the answer still reach the client.
        """
        return self._waiter.takes_messages

    def notified(self, message: bytes) -> None:
        """
        @param message: belongs to the request.
        """
        self._waiter.notified(message)

    def answered(self, response: Response) -> None:
        """
        @param response: the answer.
        """
        self._first(response)
        self._waiter.answered(response)

    def cancelled(self) -> None:
        """The client took the request back."""
        self._waiter.cancelled()


def _text(request: Request, member: str) -> str | None:
    raw = request.members.get(member)
    if raw is None:
        return None
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, str) else None
