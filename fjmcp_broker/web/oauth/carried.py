"""
The authorization request on its way through the browser.

Who only opens our address waits for no disk and leaves no row. What the consent page is
about travels in its form, sealed with the keys of the store, so it outlives a restart.
It is sealed for one pending id, which the form names in plain text as well; the form
token binds that id to the browser, and with it what is sealed. What makes an answer
count once is its row, which is kept for longer than the form can be used.

A client with a metadata document that the store does not have yet travels along: the
user answers about the document that the page was made from, and nothing has to be
fetched once more.
"""

import json
from base64 import b64decode
from typing import Any, Final

import msgspec
from msgspec.structs import asdict

from fjmcp_broker.oauth.authorization import AuthorizationRequest
from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.tokens import digest, url_safe_text
from fjmcp_broker.store.errors import SealError
from fjmcp_broker.store.pending import PendingAuthorization
from fjmcp_broker.store.sealing import Sealer, row_name


class NewDocument(msgspec.Struct, frozen=True):
    """
    A client as its metadata document describes it.

    @ivar client: of kind C{metadata-document}.
    @ivar save_until: when the document has to be fetched again.
    @ivar in_place_of: when the one expired that the store had at the time.
    """

    client: Client
    save_until: int
    in_place_of: int | None = None


class Asked(msgspec.Struct, frozen=True):
    """
    What a consent page asks about.

    @ivar pending: the sign-in, not decided.
    @ivar document: its client, when the store has to learn of it with the decision.
    """

    pending: PendingAuthorization
    document: NewDocument | None = None


class CarriedRequests:
    """
    Seals requests for the way through the browser, and opens them when they are back.
    """

    def __init__(self, sealer: Sealer) -> None:
        """
        @param sealer: with the keys of the store.
        """
        self._sealer = sealer

    def seal(self, asked: Asked) -> str:
        """
        @param asked: to carry.
        @return: url-safe text; of the longest request and document that are accepted
            L{MAXIMUM_FORM_BYTES<fjmcp_broker.web.forms.MAXIMUM_FORM_BYTES>} hold it.
        """
        pending = asked.pending
        values = {
            "request": asdict(pending.request),
            "created_at": pending.created_at,
            "expires_at": pending.expires_at,
            "document": None if asked.document is None else _values(asked.document),
        }
        # As short as can be. A lone surrogate may stand in a document.
        text = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
        plain = text.encode("utf-8", "surrogatepass")
        return url_safe_text(self._sealer.seal(plain, row=_row(pending.pending_id)))

    def open(self, text: str, pending_id: str) -> Asked:
        """
        @param text: controlled by the browser.
        @param pending_id: likewise.
        @return: what was sealed for it, expired or not.
        @raise SealError: damaged, forged, of another form, or sealed with a key that
            is gone.
        """
        try:
            sealed = b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        except ValueError:
            sealed = b""
        if url_safe_text(sealed) != text:
            raise SealError("a consent form is damaged")
        plain = self._sealer.open(sealed, row=_row(pending_id))
        try:
            return _asked(
                pending_id, json.loads(plain.decode("utf-8", "surrogatepass"))
            )
        except (KeyError, TypeError):
            raise SealError("a consent form is one of another version") from None


_TABLE: Final = "pending_authorizations"


def _row(pending_id: str) -> str:
    # Not a column: what opens here opens nowhere else. The digest keeps what a
    # browser wrote out of messages.
    return row_name(_TABLE, "consent_form", digest(pending_id))


def _values(document: NewDocument) -> dict[str, object]:
    return {
        "metadata": document.client.metadata,
        "created_at": document.client.created_at,
        "save_until": document.save_until,
        "in_place_of": document.in_place_of,
    }


def _asked(pending_id: str, values: dict[str, Any]) -> Asked:
    request = AuthorizationRequest.from_values(values["request"])
    pending = PendingAuthorization(
        pending_id=pending_id,
        client_id=request.client_id,
        request=request,
        created_at=values["created_at"],
        expires_at=values["expires_at"],
    )
    document = values["document"]
    if document is None:
        return Asked(pending)
    client = Client.from_metadata(
        client_id=request.client_id,
        kind="metadata-document",
        metadata=document["metadata"],
        secret_digest=None,
        created_at=document["created_at"],
    )
    # The page of a version before says nothing of it.
    in_place_of = document.get("in_place_of")
    return Asked(pending, NewDocument(client, document["save_until"], in_place_of))
