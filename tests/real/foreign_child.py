"""
The stand-in child under another name: a server whose tools are called like those of
forgejo-mcp, and may do something else.
"""

from __future__ import annotations

import sys
from typing import Any

from fjmcp_broker.demo.child.program import main
from fjmcp_broker.demo.child.wire import Wire

_result = Wire.result


def _renamed(self: Wire, request_id: Any, result: dict[str, Any]) -> None:
    if "serverInfo" in result:
        result = {**result, "serverInfo": {"name": "Another Server", "version": "1"}}
    _result(self, request_id, result)


if __name__ == "__main__":
    patched: Any = Wire
    patched.result = _renamed
    sys.exit(main(sys.argv[1:]))
