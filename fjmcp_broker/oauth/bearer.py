"""
Bearer tokens at the MCP endpoint (RFC 6750): the header, and the challenge.
"""

import re
from typing import Final

import msgspec

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.oauth.grants import AccessToken, Grant
from fjmcp_broker.oauth.vocabulary import ErrorCode, Policy, Scope

# RFC 6750 section 2.1: b64token; the scheme's name ignores case (RFC 9110 11.1).
_BEARER: Final = re.compile(rb"(?i:bearer) +([A-Za-z0-9._~+/-]{1,512}=*)")
_SCHEME: Final = re.compile(rb"(?i:bearer)(?:$|[\t ,])")


class Principal(msgspec.Struct, frozen=True):
    """
    Who a valid access token speaks for.

    @ivar grant_id: the grant behind it.
    @ivar user_id: Forgejo's number of the user.
    @ivar login: the user's name in Forgejo.
    @ivar client_id: the client that was given the token.
    @ivar policy: what it may do.
    @ivar expires_at: when the token ends, seconds since the epoch.
    @ivar token_digest: SHA-256 of the token.
    """

    grant_id: str
    user_id: int
    login: str
    client_id: str
    policy: Policy
    expires_at: int
    token_digest: bytes


class BearerFacts(msgspec.Struct, frozen=True):
    """
    What the store knows about a presented access token, read in one statement.

    @ivar token: the token.
    @ivar grant: its grant.
    @ivar login: the user's name in Forgejo.
    @ivar upstream_usable: whether the user's upstream token set is C{usable}.
    """

    token: AccessToken
    grant: Grant
    login: str
    upstream_usable: bool


class MalformedBearerError(BrokerError):
    """
    The header says C{Bearer} and does not have the form of RFC 6750 section 2.1.
    """


def parse_authorization(header: bytes | None) -> str | None:
    """
    @param header: the C{Authorization} header, controlled by the peer, or C{None}.
    @return: the token, or C{None}: no header, or credentials of another scheme,
        which are no credentials here.
    @raise MalformedBearerError: it says C{Bearer} and is not one token.
    """
    if header is None:
        return None
    match = _BEARER.fullmatch(header.strip(b"\t "))
    if match is not None:
        return match[1].decode("ascii")
    if _SCHEME.match(header.lstrip(b"\t ")):
        raise MalformedBearerError("not one bearer token")
    return None


def judge_bearer(facts: BearerFacts | None, now: int) -> Principal | None:
    """
    @param facts: what the store knows, or C{None}: an unknown token.
    @param now: seconds since the epoch.
    @return: who it speaks for, or C{None}: unknown, expired, revoked, or the user
        has to sign in to Forgejo again.
    """
    if facts is None:
        return None
    token, grant = facts.token, facts.grant
    if token.expires_at <= now or token.revoked_at is not None:
        return None
    if grant.revoked_at is not None or not facts.upstream_usable:
        return None
    policy = grant.policy
    if (
        policy is Policy.FULL
        and token.scope is not None
        and Scope.WRITE not in token.scope
    ):
        policy = Policy.READ_ONLY_REQUESTED
    return Principal(
        grant_id=grant.grant_id,
        user_id=grant.user_id,
        login=facts.login,
        client_id=grant.client_id,
        policy=policy,
        expires_at=token.expires_at,
        token_digest=token.token_digest,
    )


def challenge(
    resource_metadata_url: str,
    scope: str | None = None,
    error: ErrorCode | None = None,
    description: str | None = None,
) -> str:
    """
    Build a C{WWW-Authenticate} header (RFC 6750 section 3, RFC 9728 section 5.1).

    @param resource_metadata_url: where the protected resource metadata is.
    @param scope: space separated, what to ask for, or C{None}.
    @param error: C{None} when the request had no credentials at all: RFC 6750
        section 3.1 wants no error then.
    @param description: our own words, without quotes and backslashes.
    @return: the header's value.
    """
    parameters = {"resource_metadata": resource_metadata_url}
    if scope is not None:
        parameters["scope"] = scope
    if error is not None:
        parameters["error"] = error
    if description is not None:
        parameters["error_description"] = description
    for value in parameters.values():
        if '"' in value or "\\" in value or not value.isprintable():
            raise ValueError("not a quoted-string without escapes")
    return "Bearer " + ", ".join(
        f'{name}="{value}"' for name, value in parameters.items()
    )
