"""
The well-known documents: where clients learn how to sign in.
"""

from typing import Final

from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.metadata import (
    authorization_server_metadata,
    protected_resource_metadata,
)
from fjmcp_broker.web.errors import answer_json

#: Short: after a change of configuration clients should not be wrong for long.
_CACHE: Final = {"Cache-Control": "public, max-age=300"}


class Discovery:
    """
    The documents depend on C{public_url} alone, never on what a request says.
    """

    def __init__(
        self, public_url: str, *, client_id_metadata_documents: bool = False
    ) -> None:
        """
        @param public_url: origin of this service.
        @param client_id_metadata_documents: whether these work, so that they may be
            advertised.
        """
        self._authorization_server = authorization_server_metadata(
            public_url, client_id_metadata_documents=client_id_metadata_documents
        )
        self._protected_resource = protected_resource_metadata(public_url)

    async def authorization_server(self, request: IRequest) -> bytes:
        """
        @param request: whose content does not matter.
        @return: the document of RFC 8414.
        """
        return answer_json(request, self._authorization_server, headers=_CACHE)

    async def protected_resource(self, request: IRequest) -> bytes:
        """
        @param request: whose content does not matter.
        @return: the document of RFC 9728, the same at both of its paths: there is
            one resource.
        """
        return answer_json(request, self._protected_resource, headers=_CACHE)
