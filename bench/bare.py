"""
The least that twisted.web does for a call: a resource that answers it itself, without
sessions, children or anybody signed in. C{python bench/bare.py PORT}.
"""

import re
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

reactor: Any = _reactor  # a module to mypy

_ID = re.compile(rb'"id"\s*:\s*("[^"\\]*"|-?\d+)')
_TEXT = re.compile(rb'"text"\s*:\s*("[^"\\]*")')


class Echo(Resource):
    """C{/mcp}."""

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        """
        @param request: a call of C{echo}, or whatever opens a session.
        @return: the answer.
        """
        assert request.content is not None  # noqa: S101 - it has been received
        body = request.content.read()
        id, text = _ID.search(body), _TEXT.search(body)
        request.setHeader(b"Content-Type", b"application/json")
        if id is None:
            request.setResponseCode(202)
            return b""
        said = b'""' if text is None else text[1]
        return (
            b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text",'
            b'"text":%b}]}}' % (id[1], said)
        )

    def render_DELETE(self, request: Request) -> bytes:
        """
        @param request: of whoever closes a session.
        @return: nothing.
        """
        request.setResponseCode(204)
        return b""


def main() -> None:
    """Serve until it is ended."""
    root = Resource()
    root.putChild(b"mcp", Echo())
    endpoint = TCP4ServerEndpoint(reactor, int(sys.argv[1]), interface="127.0.0.1")
    endpoint.listen(Site(root))
    reactor.run()


if __name__ == "__main__":
    main()
