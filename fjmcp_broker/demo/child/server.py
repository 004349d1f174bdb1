"""
The stand-in child's message loop: one reader, five workers, one writer at a time.
"""

import json
import os
import queue
import select
import signal
import threading
import time
from typing import Any, NoReturn

from fjmcp_broker.demo.child.api import ForgejoApi
from fjmcp_broker.demo.child.options import Options
from fjmcp_broker.demo.child.stateless import (
    InputRequired,
    Stateless,
    ask,
    completed,
    is_stateless,
)
from fjmcp_broker.demo.child.steps import Steps
from fjmcp_broker.demo.child.test_tools import Conversation, TestTools
from fjmcp_broker.demo.child.tools import ForgejoTools, Tool, ToolError, text_result
from fjmcp_broker.demo.child.wire import Wire, log, write_stderr

REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
REVISION_WHEN_ABSENT = "2025-03-26"
WORKERS = 5
QUEUE_LENGTH = 100
UNSUPPORTED = {
    "completion": "completions",
    "prompts": "prompts",
    "resources": "resources",
}


class Call:
    """
    One C{tools/call} that runs.
    """

    def __init__(self, request_id: Any, params: dict[str, Any]) -> None:
        """
        @param params: of the request, names folded.
        """
        self.request_id = request_id
        self.name = str(params.get("name", ""))
        arguments = params.get("arguments")
        self.arguments = arguments if isinstance(arguments, dict) else {}
        self.params = params
        self.is_stateless = is_stateless(params)
        meta = params.get("_meta")
        self.progress_token = (
            meta.get("progressToken") if isinstance(meta, dict) else None
        )
        self.cancelled = threading.Event()


class Server:
    """
    Reads messages from stdin and answers them.
    """

    def __init__(
        self,
        options: Options,
        api: ForgejoApi,
        token: str,
        descriptors: list[int],
    ) -> None:
        """
        @param options: how to misbehave.
        @param descriptors: the file descriptors that were open at start.
        @param api: calls as the user.
        @param token: only repeated when the options say so.
        """
        self._options = options
        self._token = token
        self._wire = Wire(options)
        self._hang = options.words("HANG")
        self._steps = Steps(options)
        self._calls: queue.Queue[Call | None] = queue.Queue(QUEUE_LENGTH)
        self._running: dict[Any, Call] = {}
        self._current = threading.local()
        self._received: dict[str, Any] = {"methods": []}
        self.conversation = Conversation(self._wire)
        self.stateless = Stateless(options, self._wire)
        test_tools = TestTools(self, api, self._wire, descriptors)
        tools = ForgejoTools(api).tools() + test_tools.tools()
        if options.text("NEW_TOOL"):
            tools.append(Tool(options.text("NEW_TOOL"), "New", "", lambda _: "new"))
        self._tools = {tool.name: tool for tool in tools}
        self._ledger = -1
        if options.text("LEDGER"):
            self._ledger = os.open(
                options.text("LEDGER"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
            )

    # What tools ask about

    def cancelled(self) -> threading.Event:
        """
        @return: set when the client cancelled the running call.
        """
        call: Call = self._current.call
        return call.cancelled

    def progress_token(self) -> Any:
        """
        @return: the progress token of the running call, None without one.
        """
        call: Call = self._current.call
        return call.progress_token

    def ask(self, method: str, params: Any) -> Any:
        """
        Ask the client of the running call, in the way of its era.

        @return: as L{Conversation.ask}.
        @raise InputRequired: the call has to be made again with the answer.
        """
        call: Call = self._current.call
        if self.stateless.is_spoken and call.is_stateless:
            return ask(call.params, method, params)
        return self.conversation.ask(method, params)

    def received(self) -> dict[str, Any]:
        """
        @return: the params of C{initialize}, the log level, and the methods of
            all messages in their order.
        """
        return self._received

    # Reading

    def run(self) -> None:
        """
        Serve until stdin ends or a signal says so; then finish what runs.
        """
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        workers = [
            threading.Thread(target=self._work, daemon=True) for _ in range(WORKERS)
        ]
        for worker in workers:
            worker.start()
        if self._options.text("JUNK"):
            self._wire.send_line(self._options.text("JUNK").encode())
        write_stderr(b"x" * self._options.number("FLOOD_STDERR_BYTES"))
        self._read(wake_read)
        self._steps.reach("shutdown")
        self.conversation.end()
        for _ in workers:
            self._calls.put(None)
        for worker in workers:
            worker.join()
        log("INFO", "MCP stdio server shutdown")

    def _read(self, wake: int) -> None:
        """
        Read lines; an unfinished last one is dropped.
        """
        ignored = self._options.words("IGNORE")
        rate = self._options.number("READ_BYTES_PER_SECOND")
        rest = bytearray()
        inputs = [0, wake]
        while True:
            ready, _, _ = select.select(inputs, [], [])
            if wake in ready:
                os.read(wake, 100)
                if "term" not in ignored:
                    return
                continue
            data = os.read(0, min(rate, 65536) or 65536)
            if not data:
                if "eof" not in ignored:
                    return
                inputs.remove(0)
            if rate:
                time.sleep(len(data) / rate)
            start = 0
            while (end := data.find(b"\n", start)) >= 0:
                rest += data[start:end]
                self._line(bytes(rest))
                rest.clear()
                start = end + 1
            rest += data[start:]

    def _line(self, line: bytes) -> None:
        try:
            message = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            self._wire.error(None, -32700, "Parse error")
            return
        if isinstance(message, dict):
            message = _folded(message, ("jsonrpc", "id", "method", "params"))
        if not isinstance(message, dict) or _is_container(message.get("id")):
            self._wire.error(None, -32700, "Failed to parse message")
            return
        request_id = message.get("id")
        if message.get("jsonrpc") != "2.0":
            self._wire.error(request_id, -32600, "Invalid JSON-RPC version")
            return
        method = message.get("method")
        if not isinstance(method, str):
            self.conversation.answered(request_id, message)
            return
        params = message.get("params")
        folded = _folded(
            params if isinstance(params, dict) else {},
            (
                *("name", "arguments", "_meta", "protocolVersion", "level"),
                *("requestId", "inputResponses", "requestState", "notifications"),
            ),
        )
        self._received["methods"].append(method)
        if request_id is None:
            self._notification(method, folded)
        else:
            self._request(request_id, method, folded)

    def _notification(self, method: str, params: dict[str, Any]) -> None:
        if method == "notifications/cancelled":
            cancelled = params.get("requestId")
            if not _is_container(cancelled):
                self.stateless.cancelled(cancelled)
            call = None if _is_container(cancelled) else self._running.get(cancelled)
            if call is not None and self._options.text("HONOUR_CANCEL"):
                call.cancelled.set()
        elif method == "notifications/initialized" and self._options.text("NEW_TOOL"):
            self._wire.notify("notifications/tools/list_changed")

    def _request(self, request_id: Any, method: str, params: dict[str, Any]) -> None:
        if self.stateless.takes(request_id, method, params):
            return
        if method == "initialize":
            self._initialize(request_id, params)
        elif method == "ping":
            self._wire.result(request_id, {})
        elif method == "tools/list":
            self._list(request_id, params)
        elif method == "tools/call":
            self._take(Call(request_id, params))
        elif method == "logging/setLevel":
            if "initialize" not in self._received:
                text = "session not properly initialized"
                self._wire.error(request_id, -32603, text)
            else:
                self._received["log_level"] = params.get("level")
                self._wire.result(request_id, {})
        elif method.split("/")[0] in UNSUPPORTED:
            what = UNSUPPORTED[method.split("/")[0]]
            self._wire.error(request_id, -32601, f"{what} not supported")
        else:
            self._wire.error(request_id, -32601, f"Method {method} not found")

    # Answering

    def _initialize(self, request_id: Any, params: dict[str, Any]) -> None:
        crash = self._options.text("CRASH")
        if crash == "before-initialize":
            self._crash()
        if "initialize" in self._hang:
            return
        self._received["initialize"] = params
        client = params.get("clientInfo")
        if isinstance(client, dict):
            self._steps.client = str(client.get("name", ""))
        self._steps.reach("initialize")
        wanted = params.get("protocolVersion", REVISION_WHEN_ABSENT)
        self._wire.result(
            request_id,
            {
                "protocolVersion": wanted if wanted in REVISIONS else REVISIONS[0],
                "capabilities": {"logging": {}, "tools": {"listChanged": True}},
                "serverInfo": {"name": "Forgejo MCP Server", "version": "stand-in"},
            },
        )
        if crash == "after-initialize":
            self._crash()
        self._steps.reach("initialized")

    def _list(self, request_id: Any, params: dict[str, Any]) -> None:
        if params.get("cursor"):
            text = "illegal base64 data at input byte 0"
            self._wire.error(request_id, -32602, text)
            return
        self._steps.reach("tools/list")
        tools = sorted(self._tools.values(), key=lambda tool: tool.name)
        share = -(-self._options.number("TOOLS_BYTES") // len(tools))
        result: dict[str, Any] = {
            "tools": [tool.described("." * share) for tool in tools]
        }
        if self.stateless.is_spoken and is_stateless(params):
            result = completed({**result, "ttlMs": 0, "cacheScope": "public"})
        self._wire.result(request_id, result)

    def _take(self, call: Call) -> None:
        """
        Give a call to the workers; with a full queue it runs here, and nothing
        more is read meanwhile.
        """
        if self._ledger >= 0:
            entry = {
                "name": call.name,
                "id": call.request_id,
                "key": call.arguments.get("key"),
                "pid": os.getpid(),
            }
            os.write(self._ledger, json.dumps(entry).encode() + b"\n")
        self._running[call.request_id] = call
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._call(call)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._call(call)

    def _call(self, call: Call) -> None:
        self._current.call = call
        try:
            self._run_tool(call)
        finally:
            self._running.pop(call.request_id, None)

    def _run_tool(self, call: Call) -> None:
        options, name = self._options, call.name
        tool = self._tools.get(name)
        if tool is None:
            text = f"tool '{name}' not found: tool not found"
            self._wire.error(call.request_id, -32602, text)
            return
        if name in self._hang:
            threading.Event().wait()
        if name in options.words("PANIC_EXIT"):
            self._crash()
        if name in options.words("PANIC_NULL"):
            self._wire.error(None, -32603, f"panic recovered in {name} tool handler")
            return
        try:
            if name in options.words("ECHO_TOKEN"):
                text = f"access token does not exist [sha: {self._token}]"
                raise ToolError(f"{name} err: {text}")
            self._steps.reach(f"{name}.before")
            result = text_result(tool.run(call.arguments))
            self._steps.reach(f"{name}.after")
            if self.stateless.is_spoken and call.is_stateless:
                result = completed(result)
        except InputRequired as needed:
            self._wire.result(call.request_id, needed.result)
        except ToolError as error:
            log("ERROR", f'{{"tool": "{name}", "error": "{error}"}}')
            self._wire.error(call.request_id, -32603, str(error))
        except Exception as error:
            # Arguments of any shape arrive here; a call is always answered.
            self._wire.error(call.request_id, -32603, f"{name}: {error!r}")
        else:
            self._wire.result(call.request_id, result)

    def _crash(self) -> NoReturn:
        write_stderr(b"panic: on request\n\ngoroutine 1 [running]:\nmain.main()\n")
        os._exit(self._options.number("EXIT_CODE", 2))


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list)


def _folded(value: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """
    @return: the object, with the known names in their usual case whatever their
        case was; the last of several wins.
    """
    known = {name.casefold(): name for name in names}
    return {known.get(name.casefold(), name): each for name, each in value.items()}
