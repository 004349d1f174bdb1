"""
The stand-in child's tools for tests: about the process, time, size and the client.
"""

import json
import os
import threading
import time
from typing import Any, Protocol

from fjmcp_broker.demo.child.api import ForgejoApi, ForgejoError
from fjmcp_broker.demo.child.stateless import Stateless
from fjmcp_broker.demo.child.tools import Arguments, Tool, ToolError
from fjmcp_broker.demo.child.wire import Wire


class Host(Protocol):
    """
    The child, as its tools see it: L{fjmcp_broker.demo.child.server.Server}.
    """

    @property
    def stateless(self) -> Stateless:
        """
        @return: what it does in the way of MCP 2026-07-28.
        """

    def cancelled(self) -> threading.Event:
        """
        @return: set when the client cancelled the running call.
        """

    def progress_token(self) -> Any:
        """
        @return: the progress token of the running call, None without one.
        """

    def ask(self, method: str, params: Any) -> Any:
        """
        @return: as L{Conversation.ask}.
        """

    def received(self) -> dict[str, Any]:
        """
        @return: what the client has sent.
        """


class Conversation:
    """
    Requests from the child to its client, and the answers.
    """

    def __init__(self, wire: Wire) -> None:
        """
        @param wire: where requests go.
        """
        self._wire = wire
        self._lock = threading.Lock()
        self._last = 0
        self._waiting: dict[Any, tuple[threading.Event, list[Any]]] = {}
        self._is_over = False

    def ask(self, method: str, params: Any) -> Any:
        """
        Send a request and wait for its answer.

        @return: the C{result} or C{error} member with its name, None when the
            client is gone.
        """
        with self._lock:
            if self._is_over:
                return None
            self._last += 1
            request_id = self._last
            answered, answer = threading.Event(), list[Any]()
            self._waiting[request_id] = (answered, answer)
        self._wire.send(
            {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        )
        answered.wait()
        return answer[0] if answer else None

    def answered(self, request_id: Any, message: Any) -> None:
        """
        Take an answer; one that nobody waits for is dropped.
        """
        with self._lock:
            waiting = self._waiting.pop(request_id, None)
        if waiting is not None:
            waiting[1].append(
                {name: message[name] for name in ("result", "error") if name in message}
            )
            waiting[0].set()

    def end(self) -> None:
        """
        No more answers will come.
        """
        with self._lock:
            self._is_over = True
            waiting, self._waiting = self._waiting, {}
        for event, _ in waiting.values():
            event.set()


class TestTools:
    """
    Tools that exist for tests only. Every one takes C{key}, which goes into the
    ledger.
    """

    def __init__(
        self,
        server: Host,
        api: ForgejoApi,
        wire: Wire,
        descriptors: list[int],
    ) -> None:
        """
        @param server: the child, for what it received.
        @param api: calls as the user.
        @param wire: for notifications and requests.
        @param descriptors: the file descriptors that were open at start.
        """
        self._server = server
        self._api = api
        self._wire = wire
        self._descriptors = descriptors

    def tools(self) -> list[Tool]:
        """
        @return: all of them.
        """
        return [
            Tool("who_am_i", "The login that Forgejo sees", "", self._who_am_i),
            Tool("echo", "Give the text back", "text:string key:string", self._echo),
            Tool("fail", "Fail", "message:string key:string", self._fail),
            Tool("slow", "Take time", "seconds:number* key:string", self._slow),
            Tool(
                "progress",
                "Report progress",
                "steps:number* seconds:number key:string",
                self._progress,
            ),
            Tool("big", "Give many bytes", "bytes:number* key:string", self._big),
            Tool(
                "ask",
                "Ask the client",
                "method:string* params:object key:string",
                self._ask,
            ),
            Tool(
                "notify",
                "Send a notification that belongs to no call",
                "method:string* params:object key:string",
                self._notify,
            ),
            Tool(
                "crash", "End the process", "exit_code:number key:string", self._crash
            ),
            Tool("process_info", "What this process sees", "", self._process_info),
        ]

    def _who_am_i(self, arguments: Arguments) -> Any:
        try:
            return self._api.call("GET", "/user")["login"]
        except ForgejoError as error:
            raise ToolError(f"who am i err: {error}") from error

    def _echo(self, arguments: Arguments) -> Any:
        return arguments.get("text", "")

    def _fail(self, arguments: Arguments) -> Any:
        raise ToolError(str(arguments.get("message", "failed on request")))

    def _slow(self, arguments: Arguments) -> Any:
        if self._server.cancelled().wait(float(arguments["seconds"])):
            raise ToolError("context canceled")
        return "done"

    def _progress(self, arguments: Arguments) -> Any:
        steps = int(arguments["steps"])
        token = self._server.progress_token()
        for step in range(1, steps + 1):
            if token is not None:
                self._wire.notify(
                    "notifications/progress",
                    {
                        "progressToken": token,
                        "progress": step,
                        "total": steps,
                        "message": f"step {step}",
                    },
                )
            time.sleep(float(arguments.get("seconds", 0)))
        return steps

    def _big(self, arguments: Arguments) -> Any:
        return "x" * int(arguments["bytes"])

    def _ask(self, arguments: Arguments) -> Any:
        params = arguments.get("params", {})
        if isinstance(params, str):
            params = json.loads(params)
        answer = self._server.ask(str(arguments["method"]), params)
        if answer is None:
            raise ToolError("the client did not answer")
        return answer

    def _notify(self, arguments: Arguments) -> Any:
        method, params = str(arguments["method"]), arguments.get("params")
        if not self._server.stateless.notify(method, params):
            self._wire.notify(method, params)
        return "sent"

    def _crash(self, arguments: Arguments) -> Any:
        os._exit(int(arguments.get("exit_code", 2)))

    def _process_info(self, arguments: Arguments) -> Any:
        """
        Names of the environment only: the token is nobody's business.
        """
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "group": os.getpgrp(),
            "session": os.getsid(0),
            "directory": os.getcwd(),
            "directory_entries": sorted(os.listdir(".")),
            "environment": sorted(os.environ),
            "descriptors": self._descriptors,
            "written_bytes": self._wire.written_bytes,
            "received": self._server.received(),
        }
