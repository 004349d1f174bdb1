"""
OAuth clients: the record of one, and the rules of registration (RFC 7591).
"""

import json
from collections.abc import Mapping
from typing import Final, Literal, Self

import attrs

ClientKind = Literal["dynamic", "metadata-document", "static"]

#: The name shown when a client registered none.
UNNAMED: Final = "An application without a name"


@attrs.frozen
class Client:
    """
    A client as registered. The store keeps C{metadata} as JSON and makes the rest
    of the record from it with L{Client.restore}.

    @ivar client_id: public identifier; our own random text for dynamic clients.
    @ivar kind: how it came to be known.
    @ivar redirect_uris: exactly as registered, at least one, all allowed.
    @ivar name: for display, controlled by the client, sanitised.
    @ivar token_endpoint_auth_method: C{none}, C{client_secret_basic} or
        C{client_secret_post}.
    @ivar application_type: C{web} or C{native}.
    @ivar metadata: client metadata as JSON values, controlled by the client.
    @ivar secret_digest: SHA-256 of the client secret, or C{None} for a public client.
    @ivar created_at: seconds since the epoch.
    @ivar last_used_at: when it last completed a sign-in, or C{None}: never.
    """

    client_id: str
    kind: ClientKind
    redirect_uris: tuple[str, ...]
    name: str
    token_endpoint_auth_method: str
    application_type: str
    metadata: Mapping[str, object]
    secret_digest: bytes | None
    created_at: int
    last_used_at: int | None = None

    @classmethod
    def restore(
        cls,
        *,
        client_id: str,
        kind: ClientKind,
        metadata: str,
        secret_digest: bytes | None,
        created_at: int,
        last_used_at: int | None,
    ) -> Self:
        """
        Make the record from what the store keeps.

        @param metadata: what L{Client.metadata_json} gave.
        @return: an equal record.
        """
        values = json.loads(metadata)
        return cls(
            client_id=client_id,
            kind=kind,
            redirect_uris=tuple(values["redirect_uris"]),
            name=values.get("client_name", UNNAMED),
            token_endpoint_auth_method=values["token_endpoint_auth_method"],
            application_type=values["application_type"],
            metadata=values,
            secret_digest=secret_digest,
            created_at=created_at,
            last_used_at=last_used_at,
        )

    def metadata_json(self) -> str:
        """
        @return: C{metadata} as one JSON object for the store.
        """
        return json.dumps(self.metadata, separators=(",", ":"))

    @property
    def is_confidential(self) -> bool:
        """
        Whether it must authenticate at the token endpoint.
        """
        return self.secret_digest is not None
