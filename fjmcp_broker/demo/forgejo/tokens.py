"""
The tokens of the stand-in Forgejo: signed JSON web tokens as Forgejo makes them.

Access and refresh tokens carry C{gnt}, C{tt}, C{cnt} (refresh only), C{exp} and
C{iat}, and nothing that makes two tokens of one second differ. They are at least
as long as real ones (a 4096 bit key), without the price of such a key.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

ACCESS: Final = 0
REFRESH: Final = 1
MINIMUM_LENGTH: Final = 880

JsonValue = (
    str | int | float | bool | None | list["JsonValue"] | Mapping[str, "JsonValue"]
)


class InvalidTokenError(Exception):
    """
    A text that is no token of this stand-in, or an expired one.
    """


class TokenClaims(msgspec.Struct, frozen=True):
    """
    What an access or refresh token says.
    """

    grant_id: int
    kind: int
    counter: int
    expires_at: int


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@cache
def _process_key() -> rsa.RSAPrivateKey:
    """
    The signing key of all stand-ins of one process: new in every run, and made
    once, because making one takes longer than most tests.
    """
    return new_key()


def new_key() -> rsa.RSAPrivateKey:
    """
    @return: a fresh signing key.
    """
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class TokenSigner:
    """
    Makes and reads tokens under one RSA key.
    """

    def __init__(self, key: rsa.RSAPrivateKey | None = None) -> None:
        """
        @param key: the signing key; by default this process's common one.
        """
        self._key = key or _process_key()
        numbers = self._key.public_key().public_numbers()
        self._modulus = _encode(numbers.n.to_bytes(256, "big"))
        self._kid = _encode(sha256(self._modulus.encode()).digest())

    def sign(self, claims: Mapping[str, JsonValue], minimum_length: int = 0) -> str:
        """
        @param claims: what the token says.
        @param minimum_length: characters that the token must have at least.
        @return: the token, RS256, the same for the same claims.
        """
        header = {"alg": "RS256", "kid": self._kid, "typ": "JWT"}
        payload = _encode(json.dumps(claims, separators=(",", ":")).encode())
        # Three bytes become four characters; 342 is the signature, 2 the dots.
        short = minimum_length - 344 - len(payload) - 148
        if short > 0:
            header["pad"] = "x" * (short * 3 // 4)
        start = _encode(json.dumps(header, separators=(",", ":")).encode())
        signed = f"{start}.{payload}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), SHA256())
        return f"{signed}.{_encode(signature)}"

    def token(
        self, grant_id: int, kind: int, counter: int, now: int, lifetime_seconds: int
    ) -> str:
        """
        @param kind: L{ACCESS} or L{REFRESH}.
        @param counter: the grant's counter; only refresh tokens carry it.
        @param now: epoch seconds.
        @return: an access or refresh token.
        """
        claims: dict[str, JsonValue] = {"gnt": grant_id, "tt": kind}
        if kind == REFRESH:
            claims["cnt"] = counter
        claims["exp"] = now + lifetime_seconds
        claims["iat"] = now
        return self.sign(claims, MINIMUM_LENGTH)

    def read(self, text: str, now: int) -> TokenClaims:
        """
        @param text: a presented token, controlled by the caller.
        @param now: epoch seconds.
        @return: what it says.
        @raise InvalidTokenError: when it is malformed, forged or expired.
        """
        try:
            signed, signature = text.rsplit(".", 1)
            self._key.public_key().verify(
                _decode(signature), signed.encode(), padding.PKCS1v15(), SHA256()
            )
            claims = json.loads(_decode(signed.split(".")[1]))
            read = TokenClaims(
                claims["gnt"], claims["tt"], claims.get("cnt", 0), claims["exp"]
            )
        except (ValueError, KeyError, IndexError, InvalidSignature) as error:
            raise InvalidTokenError("malformed token") from error
        if read.expires_at <= now:
            raise InvalidTokenError("expired token")
        return read

    def key_set(self) -> dict[str, JsonValue]:
        """
        @return: the JSON web key set that the C{keys} endpoint answers.
        """
        return {
            "keys": [
                {
                    "alg": "RS256",
                    "e": "AQAB",
                    "kid": self._kid,
                    "kty": "RSA",
                    "n": self._modulus,
                    "use": "sig",
                }
            ]
        }
