"""
What clients and browsers ask, counted once it has been answered.
"""

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from fjmcp_broker.metrics import OTHER, Metrics
from fjmcp_broker.oauth.vocabulary import (
    AUTHORIZATION_SERVER_PATH,
    AUTHORIZE_PATH,
    CALLBACK_PATH,
    CONSENT_PATH,
    MCP_PATH,
    PROTECTED_RESOURCE_PATH,
    REGISTER_PATH,
    REVOKE_PATH,
    TOKEN_PATH,
    ErrorCode,
)
from fjmcp_broker.observing.labels import Limit
from fjmcp_broker.series import Series
from fjmcp_broker.web.metrics import METRICS_PATH
from fjmcp_broker.web.request import BrokerRequest

OWN_PATHS: Final = frozenset(
    (
        "/",
        "/healthz",
        "/healthz/stream",
        "/readyz",
        METRICS_PATH,
        AUTHORIZATION_SERVER_PATH,
        PROTECTED_RESOURCE_PATH,
        PROTECTED_RESOURCE_PATH + MCP_PATH,
        REGISTER_PATH,
        AUTHORIZE_PATH,
        CONSENT_PATH,
        CALLBACK_PATH,
        TOKEN_PATH,
        REVOKE_PATH,
        MCP_PATH,
    )
)
"""What the label C{endpoint} can be, beside C{other}."""

_MCP_PATH: Final = MCP_PATH.encode("ascii")
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "DELETE", "OPTIONS"))
_RPC_METHODS: Final = frozenset(
    (
        "initialize",
        "ping",
        "server/discover",
        "subscriptions/listen",
        "logging/setLevel",
        "completion/complete",
        "tools/list",
        "tools/call",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "resources/subscribe",
        "resources/unsubscribe",
    )
)


_Post = tuple[str, bool | None, int]
"""A message posted to the MCP endpoint: its method, whether its answer was an error,
and the status."""


class RequestCounter:
    """Counts the requests of a site."""

    def __init__(self, metrics: Metrics) -> None:
        """
        @param metrics: counts.
        """
        self._http = metrics.http
        self._mcp = metrics.mcp
        self._sign_ins = metrics.sign_ins
        self._limits_hit = metrics.limits_hit
        # Whatever clients send, these are as few as the series that they lead to.
        self._posts: dict[_Post, tuple[Series, Series]] = {}

    def __call__(self, request: BrokerRequest, seconds: float) -> None:
        """
        @param request: it has been answered.
        @param seconds: how long that took.
        """
        if request.path == _MCP_PATH and request.method == b"POST":
            called = request.rpc_method
            known = called if called in _RPC_METHODS else OTHER
            key = known, request.has_failed, request.code
            http, mcp = self._posts.get(key) or self._find(key)
            http.add(seconds)
            mcp.add(seconds)
            if request.code == 413:
                self._limits_hit.add(Limit.REQUEST_BYTES)
            return
        path = (request.path or b"").decode("latin-1")
        method = request.method.decode("latin-1")
        is_stream = path == MCP_PATH and method == "GET" and request.code == 200
        self._http.add(
            None if is_stream else seconds,
            path if path in OWN_PATHS else OTHER,
            method if method in _METHODS else OTHER,
            str(int(request.code)),
        )
        if path in (CALLBACK_PATH, CONSENT_PATH):
            outcome = _outcome(request)
            if outcome is not None:
                self._sign_ins.add(outcome)

    def _find(self, post: _Post) -> tuple[Series, Series]:
        """
        @return: what counts such messages: as requests of HTTP, and as messages.
        """
        method, has_failed, code = post
        status = str(int(code))
        series = self._posts[post] = (
            self._http.of(MCP_PATH, "POST", status),
            self._mcp.of(method, _call_outcome(has_failed, code), status),
        )
        return series


def _call_outcome(has_failed: bool | None, code: int) -> str:
    if code >= 400:
        return "error"
    if code == 202:
        return "accepted"
    return "error" if has_failed else "result"


def _outcome(request: BrokerRequest) -> str | None:
    """
    @return: what the browser is sent back to its client with, C{page} when it is not,
        C{None} when it goes on to Forgejo.
    """
    if request.code != 303:
        return "page"
    location = request.responseHeaders.getRawHeaders(b"location") or [b""]
    query = dict(parse_qsl(urlsplit(location[0].decode("latin-1")).query))
    if query.get("error") in set(ErrorCode):
        return query["error"]
    return "success" if "code" in query and "iss" in query else None
