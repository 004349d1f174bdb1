"""What L{fjmcp_broker.mcp.correlation} knows and tells: records without behaviour."""

from collections.abc import Hashable
from typing import Generic, TypeVar

import msgspec

from fjmcp_broker.mcp.messages import Notification, Request, Response

T = TypeVar("T")


class Pending(msgspec.Struct, Generic[T], frozen=True, eq=False):
    """
    A request that the child has and has not answered.

    @ivar child_id: raw JSON of the id towards the child.
    @ivar session: whose request it is.
    @ivar id: raw JSON of the id as the client wrote it.
    @ivar key: what equal ids have in common.
    @ivar method: the method.
    @ivar progress_token: raw JSON of the client's token, or None.
    @ivar waiter: what the caller stored with the request.
    """

    child_id: bytes
    session: Hashable
    id: bytes
    key: bytes
    method: str
    progress_token: bytes | None
    waiter: T


class Relayed(msgspec.Struct, Generic[T], frozen=True):
    """
    What became of a client's notification.

    @ivar message: what goes to the child, or None for nothing.
    @ivar cancelled: the request that it cancelled, no longer pending, or None.
    """

    message: bytes | None
    cancelled: Pending[T] | None = None


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """
    The answer to a request, which is no longer pending.

    @ivar pending: the request.
    @ivar response: the answer, under the client's own id.
    """

    pending: Pending[T]
    response: Response


class RequestNotification(msgspec.Struct, Generic[T], frozen=True):
    """
    A notification that belongs to a pending request and goes on its stream.

    @ivar pending: the request.
    @ivar message: the encoded notification, under the client's own progress token.
    """

    pending: Pending[T]
    message: bytes


class ChildRequest(msgspec.Struct, frozen=True):
    """
    A question of the child. L{fjmcp_broker.mcp.correlation.Correlation.ask} makes it
    one for a client.

    @ivar request: the question under the child's own id.
    """

    request: Request


class ChildNotification(msgspec.Struct, frozen=True):
    """
    A notification of the child that names no request.

    @ivar notification: the notification.
    @ivar session: the only session that it concerns, or None for any.
    @ivar message: the encoded notification.
    """

    notification: Notification
    session: Hashable | None
    message: bytes


class TornDown(msgspec.Struct, Generic[T], frozen=True):
    """
    The child ended a C{subscriptions/listen}, which is no longer pending.

    @ivar pending: the request.
    """

    pending: Pending[T]


class Dropped(msgspec.Struct, frozen=True):
    """
    A message of the child that concerns nobody any more.

    @ivar reason: why, for the log; nothing of the message is in it.
    """

    reason: str
