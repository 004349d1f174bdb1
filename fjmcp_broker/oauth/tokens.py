"""
Making and hashing tokens, and deriving the successors of a refresh token.

Tokens are opaque: a readable prefix, so that leak scanners can find them, and the
url-safe text of 32 random bytes. The store keeps their SHA-256 only, which is enough
because nobody can guess 256 bits.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Final

import msgspec

from fjmcp_broker.secret import Confidential

CODE_PREFIX: Final = "fjmcp_code_"
ACCESS_PREFIX: Final = "fjmcp_at_"
REFRESH_PREFIX: Final = "fjmcp_rt_"
CLIENT_SECRET_PREFIX: Final = "fjmcp_cs_"  # noqa: S105 - the prefix of one
CLIENT_ID_PREFIX: Final = "fjmcp_client_"
GRANT_ID_PREFIX: Final = "g_"
PENDING_ID_PREFIX: Final = "p_"

TOKEN_BYTES: Final = 32
ID_BYTES: Final = 16
#: Of the random key under which the successors of one rotation are derived.
DERIVATION_KEY_BYTES: Final = 32

CODE_LIFETIME_SECONDS: Final = 600
#: How long a rotated refresh token gets the same answer whatever happened to it,
#: and a used code is taken for a parallel exchange rather than a theft.
GRACE_SECONDS: Final = 60

RandomBytes = Callable[[int], bytes]

# RFC 7636 section 4.1: code-verifier = 43*128unreserved
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)


def url_safe_text(raw: bytes) -> str:
    """
    @param raw: any bytes.
    @return: the same as base64 for URLs (RFC 4648 section 5), without padding.
    """
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def new_token(prefix: str, random_bytes: RandomBytes) -> str:
    """
    @param prefix: one of the C{*_PREFIX} constants.
    @param random_bytes: gives that many cryptographically random bytes.
    @return: the prefix and 43 url-safe characters.
    """
    return prefix + url_safe_text(random_bytes(TOKEN_BYTES))


def new_id(prefix: str, random_bytes: RandomBytes) -> str:
    """
    @param prefix: L{GRANT_ID_PREFIX}, L{PENDING_ID_PREFIX} or L{CLIENT_ID_PREFIX}.
    @param random_bytes: gives that many cryptographically random bytes.
    @return: the prefix and 22 url-safe characters; not a secret.
    """
    return prefix + url_safe_text(random_bytes(ID_BYTES))


def digest(text: str) -> bytes:
    """
    @param text: a token, code, client secret, state or cookie, as presented.
    @return: its SHA-256, 32 bytes: what the store keeps.
    """
    return sha256(text.encode("utf-8")).digest()


def digest_matches(text: str, expected: bytes) -> bool:
    """
    Compare in constant time.

    @param text: as presented.
    @param expected: what L{digest} gave for the right text.
    @return: whether it is the right one.
    """
    return compare_digest(digest(text), expected)


class Successor(Confidential, msgspec.Struct, frozen=True):
    """
    The pair of tokens that follows a refresh token.

    @ivar access_token: text of the access token.
    @ivar refresh_token: text of the refresh token.
    """

    access_token: str
    refresh_token: str


def derive_successor(presented: str, key: bytes, access_number: int) -> Successor:
    """
    Derive the successors of a refresh token, so that the same answer can be given
    again without any plaintext token at rest: the presented token alone is not
    enough, and neither is the key.

    @param presented: text of the refresh token being rotated.
    @param key: 32 random bytes made for this rotation; kept sealed.
    @param access_number: 0 for the first access token; each one that expired
        unused is followed by the next number. The refresh token does not depend
        on it.
    @return: the pair.
    """
    if len(key) != DERIVATION_KEY_BYTES:
        raise ValueError("a derivation key is 32 bytes")
    material = presented.encode("utf-8")
    access = hmac_digest(key, b"access\0%d\0" % access_number + material, "sha256")
    refresh = hmac_digest(key, b"refresh\0" + material, "sha256")
    return Successor(
        access_token=ACCESS_PREFIX + url_safe_text(access),
        refresh_token=REFRESH_PREFIX + url_safe_text(refresh),
    )


def code_challenge(verifier: str) -> str:
    """
    @param verifier: a code verifier.
    @return: its S256 challenge (RFC 7636 section 4.2).
    """
    return url_safe_text(sha256(verifier.encode("ascii")).digest())


def is_code_verifier(text: str) -> bool:
    """
    @param text: controlled by the client.
    @return: whether it has the form of RFC 7636 section 4.1.
    """
    return _VERIFIER.fullmatch(text) is not None


def verifier_matches(verifier: str, challenge: str) -> bool:
    """
    @param verifier: controlled by the client, any text.
    @param challenge: as sent with the authorization request.
    @return: whether S256 of the one is the other (RFC 7636 section 4.6).
    """
    return is_code_verifier(verifier) and compare_digest(
        code_challenge(verifier).encode("ascii"), challenge.encode("utf-8")
    )
