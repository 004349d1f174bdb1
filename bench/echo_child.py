"""
A minimal MCP server on standard input and output, fast enough not to be what is
measured: a call of C{echo} is answered without parsing it. Standard library only.

Its tools: C{echo} (C{text}), and C{payload} (C{bytes}), whose answer has a text of so
many characters.
"""

import json
import os
import re
from typing import Any, Final

READ_BYTES: Final = 1024 * 1024

_ID = re.compile(rb'"id"\s*:\s*("[^"\\]*"|-?\d+)')
_TEXT = re.compile(rb'"text"\s*:\s*("[^"\\]*")')

_TOOLS: Final = [
    {
        "name": "echo",
        "description": "Says it again.",
        "inputSchema": {
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
        },
    },
    {
        "name": "payload",
        "description": "Says much.",
        "inputSchema": {
            "type": "object",
            "properties": {"bytes": {"type": "integer"}},
            "required": ["bytes"],
        },
    },
]


def answer(line: bytes) -> bytes:
    """
    @param line: one message.
    @return: the answer with its line end; nothing for a notification.
    """
    if b'"echo"' in line:
        id, text = _ID.search(line), _TEXT.search(line)
        if id is not None and text is not None:
            return (
                b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text",'
                b'"text":%b}]}}\n' % (id[1], text[1])
            )
    message = json.loads(line)
    if "id" not in message or "method" not in message:
        return b""
    outcome: dict[str, Any] = {"result": _result(message)}
    if outcome["result"] is None:
        outcome = {"error": {"code": -32601, "message": "no such method"}}
    whole = {"jsonrpc": "2.0", "id": message["id"], **outcome}
    return json.dumps(whole, separators=(",", ":")).encode() + b"\n"


def _result(message: dict[str, Any]) -> dict[str, Any] | None:
    method, params = message["method"], message.get("params") or {}
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "echo", "version": "1"},
        }
    if method == "ping":
        return {}
    if method == "tools/list":
        return {"tools": _TOOLS}
    if method == "tools/call" and params["name"] == "payload":
        text = "x" * params["arguments"]["bytes"]
        return {"content": [{"type": "text", "text": text}]}
    return None


def main() -> None:
    """Serve until the end of the input."""
    rest = b""
    while data := os.read(0, READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        said = b"".join(answer(line) for line in lines if line.strip())
        view = memoryview(said)
        while view:
            view = view[os.write(1, view) :]


if __name__ == "__main__":
    main()
