"""What can go wrong between a session and its child."""

# The names say what happened; an "Error" behind each would add nothing.
# ruff: noqa: N818

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.mcp.messages import Response


class SessionError(BrokerError):
    """
    A session cannot do what was asked. The message is one clear line.
    """


class ChildCannotStart(SessionError):
    """
    No child process could be made ready: the program is missing, ended before it
    answered C{initialize}, or took too long.
    """


class InitializeRefused(ChildCannotStart):
    """
    The child answered C{initialize} with an error.
    """

    def __init__(self, response: Response) -> None:
        """
        @param response: the answer.
        """
        super().__init__("the child refused to be initialized")
        self.response = response


class ChildGone(SessionError):
    """
    The child has ended or is being stopped, and takes no message any more.
    """


class ChildBusy(SessionError):
    """
    The child reads its standard input too slowly: the queue towards it is full.
    The message was not queued and the caller may try again later.
    """


class SessionGone(SessionError):
    """
    The session does not exist (any more) for this caller: HTTP 404.
    """


class SessionForbidden(SessionError):
    """
    The session belongs to another user: HTTP 403.
    """


class TooManySessions(SessionError):
    """
    Every place for a child is taken by a busy one: HTTP 503 with C{Retry-After}.
    """

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        """
        @param message: one line for the client and the log.
        @param retry_after_seconds: when another try makes sense.
        """
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Stopping(SessionError):
    """
    The daemon is going down and opens or uses no session any more: HTTP 503.
    """
