"""
The stand-in child, except that each answer of C{echo} begins with the login that
Forgejo knows this process's token under.
"""

from __future__ import annotations

import sys
from typing import Any

from fjmcp_broker.demo.child.program import main
from fjmcp_broker.demo.child.test_tools import TestTools

LOGINS: dict[str, str] = {}


def _echo(self: Any, arguments: dict[str, Any]) -> str:
    if not LOGINS:
        LOGINS["own"] = self._api.call("GET", "/user")["login"]
    return f"{LOGINS['own']}: {arguments['text']}"


if __name__ == "__main__":
    patched: Any = TestTools
    patched._echo = _echo
    sys.exit(main(sys.argv[1:]))
