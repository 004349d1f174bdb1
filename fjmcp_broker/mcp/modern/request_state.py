"""
C{requestState}: what a client repeats with its answers, sealed so that it can neither
be read nor changed (MCP 2026-07-28, multi round-trip requests, server requirements).

It only names a call that this daemon still holds; the call itself is nowhere in it. So
that it can be used once is kept by the table of waiting calls, not by the text.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, Protocol

import msgspec
from msgspec.structs import asdict

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.mcp.envelope import Request
from fjmcp_broker.mcp.modern.errors import ModernError, invalid_params

LIFETIME_SECONDS: Final = 600
"""How long a person has to answer."""

MAXIMUM_CHARACTERS: Final = 4096

_NOT_SALIENT: Final = frozenset(("_meta", "inputResponses", "requestState"))


class Sealing(Protocol):
    """
    Authenticated encryption, such as L{fjmcp_broker.store.sealing.Sealer}.
    """

    def seal(self, plaintext: bytes, *, row: str) -> bytes:
        """
        @param plaintext: what to seal.
        @param row: associated data.
        @return: the sealed value.
        """

    def open(self, sealed: bytes, *, row: str) -> bytes:
        """
        @param sealed: from L{seal}.
        @param row: the same associated data.
        @return: the plaintext.
        @raise BrokerError: forged, or sealed for something else.
        """


class RequestState(msgspec.Struct, frozen=True):
    """
    What a sealed text says.

    @ivar grant: whose call it is.
    @ivar generation: which running child has the call; different for every child ever.
    @ivar call: which call of that child.
    @ivar digest: from L{digest_of} of the request.
    @ivar expires_at: when it lapses, epoch seconds.
    @ivar nonce: which of the call's rounds of questions; different for each.
    """

    grant: str
    generation: str
    call: str
    digest: str
    expires_at: int
    nonce: str

    def sealed(self, sealing: Sealing) -> str:
        """
        @param sealing: with the store's key.
        @return: url-safe text for the client.
        """
        plaintext = msgspec.json.encode(asdict(self))
        raw = sealing.seal(plaintext, row=_row(self.grant))
        return _written(raw)


def opened(
    text: str, sealing: Sealing, *, grant: str, request: Request, now: int
) -> RequestState:
    """
    Read what a client repeated.

    @param text: C{requestState}, controlled by the client.
    @param sealing: with the store's key.
    @param grant: of the token that came with the request.
    @param request: the request that it came with.
    @param now: epoch seconds.
    @return: the state. Whether the call still waits is for the caller to say.
    @raise ModernError: -32602 when it is forged, another grant's, lapsed, or belongs to
        a request with another method or other params.
    """
    refused = "requestState is not valid for this request"
    try:
        if len(text) > MAXIMUM_CHARACTERS:
            raise ValueError("too long")
        raw = base64.b64decode(
            text + "=" * (-len(text) % 4), altchars=b"-_", validate=True
        )
        if _written(raw) != text:
            # Base64 has several texts for the same bytes; only one is ours.
            raise ValueError("changed")
        plaintext = sealing.open(raw, row=_row(grant))
        state = msgspec.json.decode(plaintext, type=RequestState)
    except (BrokerError, binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise invalid_params(request.id, refused) from error
    if state.grant != grant or state.digest != digest_of(request):
        raise invalid_params(request.id, refused)
    if now >= state.expires_at:
        raise invalid_params(request.id, "requestState has expired")
    return state


def generation_lost(id: bytes) -> ModernError:
    """
    @param id: raw JSON of the request's id.
    @return: the refusal of a retry whose call no longer exists: the child that had it
        ended, or the round was answered already. The call may have done its work, so
        it is never run again by itself.
    """
    message = "the call that this continues has ended; it was not run again"
    data = {"reason": "generation_lost"}
    return ModernError(400, -32602, message, data, id)


def digest_of(request: Request) -> str:
    """
    @param request: a request.
    @return: a digest of its method and params without what a retry changes. It is the
        same however the client writes the same values.
    """
    salient = {
        name: raw for name, raw in request.members.items() if name not in _NOT_SALIENT
    }
    hashed = sha256(request.method.encode())
    for name in sorted(salient):
        for part in (name.encode(), _canonical(salient[name])):
            hashed.update(b"%d:" % len(part))
            hashed.update(part)
    return hashed.hexdigest()


def _written(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _row(grant: str) -> str:
    return f"request_states/state/{grant}"


def _canonical(raw: bytes) -> bytes:
    try:
        value = json.loads(raw, parse_float=_number)
        return json.dumps(value, sort_keys=True).encode()
    except (ValueError, RecursionError):
        # Too long a number or too deep for it: then only the same bytes are the same.
        return raw


def _number(text: str) -> float | int | Mapping[str, str]:
    value = float(text)
    return int(value) if value.is_integer() else value
