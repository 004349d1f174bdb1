"""
A small MCP server on standard input and output, for the tests of the relay. Standard
library only; each call runs in a thread of its own, so that answers come out of order.

Its tools: C{echo}, C{sleep} (C{seconds}), C{progress} (C{steps}), C{notify} (C{bytes}
each, C{count}), C{big} (C{bytes}), C{ask} (sampling), C{who} (its token's digest),
C{seen} (the methods of all notifications so far), C{crash}, C{mute} (never answers).
"""

import hashlib
import json
import os
import sys
import threading
import time
from typing import Any

_lock = threading.Lock()
_answers: dict[str, "threading.Event"] = {}
_results: dict[str, Any] = {}
_seen: list[str] = []


def _say(message: dict[str, Any]) -> None:
    line = json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
    with _lock:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def _note(method: str, params: dict[str, Any]) -> None:
    _say({"method": method, "params": params})


def _ask(method: str, params: dict[str, Any]) -> Any:
    number = f"q{len(_answers)}"
    event = _answers[number] = threading.Event()
    _say({"id": number, "method": method, "params": params})
    event.wait()
    return _results[number]


def _call(name: str, arguments: dict[str, Any], token: Any) -> Any:
    if name == "echo":
        return arguments
    if name == "sleep":
        time.sleep(arguments["seconds"])
        return arguments
    if name == "progress":
        for step in range(arguments["steps"]):
            _note(
                "notifications/progress",
                {"progressToken": token, "progress": step, "note": arguments["note"]},
            )
        return arguments
    if name == "notify":
        for step in range(arguments["count"]):
            _note(
                "notifications/progress",
                {
                    "progressToken": token,
                    "progress": step,
                    "message": "x" * arguments["bytes"],
                },
            )
        return "done"
    if name == "big":
        return "x" * arguments["bytes"]
    if name == "ask":
        return _ask("sampling/createMessage", {"messages": []})
    if name == "who":
        text = os.environ["FORGEJO_ACCESS_TOKEN"]
        return hashlib.sha256(text.encode()).hexdigest()
    if name == "seen":
        return list(_seen)
    if name == "crash":
        sys.stderr.write("crashed as asked\n")
        sys.stderr.flush()
        os._exit(7)
    raise KeyError(name)


def _request(message: dict[str, Any]) -> None:
    id, method = message["id"], message["method"]
    params = message.get("params") or {}
    if method == "initialize":
        result: Any = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "Forgejo MCP Server", "version": "0"},
        }
    elif method == "tools/list":
        tools = [{"name": "list_my_repos"}, {"name": "create_issue"}, {"name": "echo"}]
        result = {"tools": tools}
    elif method == "tools/call":
        if params["name"] == "mute":
            return
        token = (params.get("_meta") or {}).get("progressToken")
        try:
            result = {
                "value": _call(params["name"], params.get("arguments") or {}, token)
            }
        except KeyError as error:
            _say({"id": id, "error": {"code": -32602, "message": f"unknown {error}"}})
            return
    else:
        _say({"id": id, "error": {"code": -32601, "message": "no such method"}})
        return
    _say({"id": id, "result": result})


def main() -> None:
    """Serve until the end of the input."""
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "method" not in message:
            _results[message["id"]] = message.get("result", message.get("error"))
            _answers[message["id"]].set()
        elif "id" in message:
            threading.Thread(target=_request, args=(message,), daemon=True).start()
        else:
            _seen.append(message["method"])


if __name__ == "__main__":
    main()
