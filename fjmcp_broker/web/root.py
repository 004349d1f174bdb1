"""The root of the site: the MCP endpoint beside everything else."""

from __future__ import annotations

from typing import Final

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from fjmcp_broker.oauth.vocabulary import MCP_PATH

_MCP: Final = MCP_PATH.encode()


class Root(Resource):
    """
    Sends C{/mcp} to its own resource, past the router of the other paths: that one is
    too slow for the path of every call.
    """

    def __init__(self, mcp: IResource, others: IResource) -> None:
        """
        @param mcp: serves exactly C{/mcp}.
        @param others: serves every other path; a leaf.
        """
        super().__init__()
        self._mcp = mcp
        self._others = others

    def leaf(self, target: bytes) -> IResource | None:
        """
        @param target: of a request, undecoded, without its query.
        @return: the resource for it, if it can be told from this alone.
        """
        return self._mcp if target == _MCP else None

    def getChild(self, path: bytes, request: Request) -> IResource:
        """
        @param path: the first segment, decoded.
        @param request: has the rest of the path in C{postpath}.
        @return: the resource for the whole path.
        """
        # The undecoded path decides: an escaped spelling is another path.
        if request.uri.partition(b"?")[0] == _MCP:
            return self._mcp
        return self._others
