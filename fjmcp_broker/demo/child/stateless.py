"""
The stand-in child's other era: requests of 2026-07-28, each for itself. Switched on by
C{STANDIN_CHILD_ERA}.
"""

import threading
from typing import Any

from fjmcp_broker.demo.child.options import Options
from fjmcp_broker.demo.child.wire import Wire

VERSION = "2026-07-28"
PREFIX = "io.modelcontextprotocol/"
SUBSCRIPTION = PREFIX + "subscriptionId"
SERVER_INFO = {"name": "Forgejo MCP Server", "version": "stand-in"}
ANSWER_KEY = "asked"
STATE = "the stand-in remembers nothing"
LISTS = {
    "notifications/tools/list_changed": "toolsListChanged",
    "notifications/prompts/list_changed": "promptsListChanged",
    "notifications/resources/list_changed": "resourcesListChanged",
}


class InputRequired(Exception):  # noqa: N818 - it is an answer
    """
    The call can go on when its client has answered.
    """

    def __init__(self, method: str, params: Any) -> None:
        """
        @param method: of the question.
        @param params: of the question.
        """
        super().__init__("the client has to answer")
        question = {"method": method, "params": params}
        self.result = {
            "resultType": "input_required",
            "inputRequests": {ANSWER_KEY: question},
            "requestState": STATE,
        }


def is_stateless(params: dict[str, Any]) -> bool:
    """
    @param params: of a request.
    @return: whether it names its revision itself.
    """
    meta = params.get("_meta")
    return isinstance(meta, dict) and PREFIX + "protocolVersion" in meta


def ask(call_params: dict[str, Any], method: str, params: Any) -> Any:
    """
    @param call_params: of the call in which the client is asked.
    @param method: of the question.
    @param params: of the question.
    @return: the C{result} member, with its name.
    @raise InputRequired: there is no answer yet.
    """
    answers = call_params.get("inputResponses")
    known = call_params.get("requestState") == STATE
    if not known or not isinstance(answers, dict) or ANSWER_KEY not in answers:
        raise InputRequired(method, params)
    return {"result": answers[ANSWER_KEY]}


def completed(result: dict[str, Any]) -> dict[str, Any]:
    """
    @param result: of any request.
    @return: it in the form of this revision.
    """
    meta = {PREFIX + "serverInfo": SERVER_INFO}
    return {"resultType": "complete", **result, "_meta": meta}


class Stateless:
    """
    What concerns this era alone.
    """

    def __init__(self, options: Options, wire: Wire) -> None:
        """
        @param options: say whether there is this era, and the other one.
        @param wire: for answers.
        """
        self._wire = wire
        self._lock = threading.Lock()
        self._listening: dict[Any, dict[str, Any]] = {}
        era = options.text("ERA") or "legacy"
        self.is_spoken = era in ("dual", "modern")
        self.is_alone = era == "modern"

    def takes(self, request_id: Any, method: str, params: dict[str, Any]) -> bool:
        """
        Answer what has nothing to do with tools.

        @return: whether it is dealt with.
        """
        if not self.is_spoken:
            return False
        if not is_stateless(params):
            if not self.is_alone:
                return False
            self._wire.send(
                {
                    "jsonrpc": "2.0",
                    "id": request_id,
                    "error": {
                        "code": -32022,
                        "message": "Unsupported protocol version",
                        "data": {"supported": [VERSION]},
                    },
                }
            )
            return True
        if method == "server/discover":
            versions = [VERSION] if self.is_alone else [VERSION, "2025-11-25"]
            result = {
                "supportedVersions": versions,
                "capabilities": {"logging": {}, "tools": {"listChanged": True}},
                "ttlMs": 60_000,
                "cacheScope": "public",
            }
            self._wire.result(request_id, completed(result))
        elif method == "subscriptions/listen":
            self._listen(request_id, params.get("notifications"))
        elif method in ("initialize", "logging/setLevel", "ping"):
            self._wire.error(request_id, -32601, f"Method {method} not found")
        else:
            return False
        return True

    def cancelled(self, request_id: Any) -> None:
        """
        A client listens no more.
        """
        with self._lock:
            self._listening.pop(request_id, None)

    def notify(self, method: str, params: Any) -> bool:
        """
        Tell those who listen.

        @return: whether anybody listens to anything; else it is for everybody.
        """
        with self._lock:
            listening = list(self._listening.items())
        for request_id, wanted in listening:
            if wanted.get(LISTS.get(method, "")):
                tagged = {**(params or {}), "_meta": {SUBSCRIPTION: request_id}}
                self._wire.notify(method, tagged)
        return bool(listening)

    def _listen(self, request_id: Any, wanted: Any) -> None:
        known = wanted if isinstance(wanted, dict) else {}
        accepted = {}
        if known.get("toolsListChanged") is True:
            accepted["toolsListChanged"] = True
        with self._lock:
            self._listening[request_id] = accepted
        self._wire.notify(
            "notifications/subscriptions/acknowledged",
            {"_meta": {SUBSCRIPTION: request_id}, "notifications": accepted},
        )
