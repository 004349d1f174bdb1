"""
OAuth clients: the record of one, and the rules of registration (RFC 7591).
"""

import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Final, Literal, Self, cast

import msgspec

from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.redirect_uris import (
    DEFAULT_APPLICATION_SCHEMES,
    is_website,
    redirect_uri_problem,
)
from fjmcp_broker.oauth.vocabulary import AuthMethod, ErrorCode, GrantType, Scope

ClientKind = Literal["dynamic", "metadata-document", "static"]

#: The name shown when a client registered none.
UNNAMED: Final = "An application without a name"

MAXIMUM_REDIRECT_URIS: Final = 20
MAXIMUM_NAME_LENGTH: Final = 256
MAXIMUM_SHOWN_NAME_LENGTH: Final = 80
MAXIMUM_TEXT_LENGTH: Final = 2048
MAXIMUM_LIST_LENGTH: Final = 20
MAXIMUM_REGISTERED_BYTES: Final = 8 * 1024
"""Of everything that one registration stores: anybody may make them, and they are kept
for days."""

KNOWN_SCOPES: Final = frozenset({str(Scope.READ), str(Scope.WRITE)})
SUPPORTED_AUTH_METHODS: Final = frozenset(
    {
        str(AuthMethod.NONE),
        str(AuthMethod.BASIC),
        str(AuthMethod.POST),
    }
)

_category: Final = unicodedata.category
_LINKS: Final = ("client_uri", "logo_uri", "policy_uri", "tos_uri")
_WEB_LINK: Final = re.compile(r"https?://[!-~]+", re.IGNORECASE)
_MAXIMUM_MARKS: Final = 3
_SPACES: Final = frozenset({"Cc", "Zl", "Zp", "Zs"})
_INVISIBLE: Final = frozenset({"Cf", "Cn", "Co", "Cs"})
#: Letters and a symbol that show nothing: Hangul fillers, the empty Braille pattern.
_BLANKS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")


class Client(msgspec.Struct, frozen=True):
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
    def from_metadata(
        cls,
        *,
        client_id: str,
        kind: ClientKind,
        metadata: Mapping[str, object],
        secret_digest: bytes | None,
        created_at: int,
        last_used_at: int | None = None,
    ) -> Self:
        """
        Make the record whose other fields are read from the metadata.

        @param metadata: values of a L{ClientMetadata}.
        @return: the record.
        """
        return cls(
            client_id=client_id,
            kind=kind,
            redirect_uris=tuple(cast("list[str]", metadata["redirect_uris"])),
            name=str(metadata.get("client_name", UNNAMED)),
            token_endpoint_auth_method=str(metadata["token_endpoint_auth_method"]),
            application_type=str(metadata["application_type"]),
            metadata=metadata,
            secret_digest=secret_digest,
            created_at=created_at,
            last_used_at=last_used_at,
        )

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
        return cls.from_metadata(
            client_id=client_id,
            kind=kind,
            metadata=json.loads(metadata),
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


class ClientMetadata(msgspec.Struct, frozen=True):
    """
    Metadata that passed the rules of registration.

    @ivar values: what is registered, echoed and stored: JSON values.
    """

    values: Mapping[str, object]

    @property
    def wants_secret(self) -> bool:
        """
        Whether the client authenticates with a secret (RFC 6749 section 2.3.1).
        """
        return self.values["token_endpoint_auth_method"] != AuthMethod.NONE

    @property
    def size_bytes(self) -> int:
        """
        How much is stored of it.
        """
        return len(json.dumps(self.values, separators=(",", ":")))


def validate_registration(
    document: Mapping[str, object],
    *,
    application_schemes: Collection[str] = DEFAULT_APPLICATION_SCHEMES,
) -> ClientMetadata:
    """
    Apply RFC 7591 section 2 to a registration request.

    Members that we do not know are ignored, as section 2 asks. Values that we cannot
    honour are replaced where section 3.2.1 permits it and no harm comes from it
    (additional grant types, response types and scopes, the application type); an
    authentication method that we cannot honour is refused, because the client would
    believe itself better protected than it is. C{null} counts as absent: several
    clients serialise their empty fields so.

    @param document: the JSON object sent, from L{strict_json.parse_object},
        controlled by the client.
    @param application_schemes: see L{redirect_uri_problem}.
    @return: what to register.
    @raise OAuthError: C{invalid_redirect_uri} or C{invalid_client_metadata}.
    """
    given = {name: value for name, value in document.items() if value is not None}
    redirect_uris = _redirect_uris(given.get("redirect_uris"), application_schemes)
    values: dict[str, object] = {
        "redirect_uris": redirect_uris,
        "token_endpoint_auth_method": _auth_method(given),
        "grant_types": _grant_types(given),
        "response_types": _response_types(given),
        "application_type": _application_type(given, redirect_uris),
    }
    name = sanitise_name(_text(given, "client_name", MAXIMUM_NAME_LENGTH))
    if name:
        values["client_name"] = name
    scope = " ".join(
        word
        for word in _text(given, "scope", MAXIMUM_TEXT_LENGTH).split(" ")
        if word in KNOWN_SCOPES
    )
    if scope:
        values["scope"] = scope
    for member in _LINKS:
        link = _text(given, member, MAXIMUM_TEXT_LENGTH)
        if link and _WEB_LINK.fullmatch(link) is None:
            raise _refused(f"{member} is not an http or https URL")
        if link:
            values[member] = link
    for member in ("software_id", "software_version"):
        text = _text(given, member, MAXIMUM_NAME_LENGTH)
        if text:
            values[member] = text
    contacts = _texts(given, "contacts")
    if contacts:
        values["contacts"] = contacts
    return ClientMetadata(values)


def sanitise_name(name: str) -> str:
    """
    Make a client's name safe to show: no control, format (bidirectional overrides,
    zero-width characters), private or unassigned characters, single spaces, bounded
    length, something to see. It is still controlled by the client and may lie.

    @param name: as registered, controlled by the client.
    @return: at most L{MAXIMUM_SHOWN_NAME_LENGTH} characters, may be empty.
    """
    shown = "".join(
        " " if character in _BLANKS or category in _SPACES else character
        for character, category in zip(name, map(_category, name), strict=True)
        if category not in _INVISIBLE
    )
    shown = _limit_marks(unicodedata.normalize("NFC", " ".join(shown.split())))
    if all(_category(character)[0] in "MZ" for character in shown):
        return ""
    if len(shown) > MAXIMUM_SHOWN_NAME_LENGTH:
        shown = shown[: MAXIMUM_SHOWN_NAME_LENGTH - 1].rstrip() + "…"
    return shown


def _limit_marks(text: str) -> str:
    # Piled up combining marks would paint over the lines around the name.
    kept: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if _category(character)[0] == "M" else 0
        if marks <= _MAXIMUM_MARKS:
            kept.append(character)
    return "".join(kept)


def _refused(problem: str) -> OAuthError:
    return OAuthError(ErrorCode.INVALID_CLIENT_METADATA, problem)


def _redirect_uris(value: object, application_schemes: Collection[str]) -> list[str]:
    if not isinstance(value, list) or not value or len(value) > MAXIMUM_REDIRECT_URIS:
        problem = f"redirect_uris must be 1 to {MAXIMUM_REDIRECT_URIS} redirect URIs"
        raise OAuthError(ErrorCode.INVALID_REDIRECT_URI, problem)
    uris: list[str] = []
    for number, uri in enumerate(value, 1):
        if not isinstance(uri, str):
            problem = f"redirect URI {number} is not a text"
            raise OAuthError(ErrorCode.INVALID_REDIRECT_URI, problem)
        clause = redirect_uri_problem(uri, application_schemes)
        if clause is not None:
            problem = f"redirect URI {number} {clause}"
            raise OAuthError(ErrorCode.INVALID_REDIRECT_URI, problem)
        uris.append(uri)
    return uris


def _auth_method(given: Mapping[str, object]) -> str:
    # RFC 7591 section 2: the default is client_secret_basic.
    method = given.get("token_endpoint_auth_method", AuthMethod.BASIC)
    if not isinstance(method, str) or method not in SUPPORTED_AUTH_METHODS:
        known = ", ".join(sorted(SUPPORTED_AUTH_METHODS))
        raise _refused(f"token_endpoint_auth_method must be one of {known}")
    return str(method)


def _grant_types(given: Mapping[str, object]) -> list[str]:
    wanted = _texts(given, "grant_types") or [GrantType.AUTHORIZATION_CODE]
    if GrantType.AUTHORIZATION_CODE not in wanted:
        raise _refused("grant_types must contain authorization_code")
    known = (GrantType.AUTHORIZATION_CODE, GrantType.REFRESH_TOKEN)
    return [str(grant_type) for grant_type in known if grant_type in wanted]


def _response_types(given: Mapping[str, object]) -> list[str]:
    if "code" not in (_texts(given, "response_types") or ["code"]):
        raise _refused("response_types must contain code")
    return ["code"]


def _application_type(given: Mapping[str, object], redirect_uris: list[str]) -> str:
    wanted = _text(given, "application_type", MAXIMUM_NAME_LENGTH)
    if wanted in ("native", "web"):
        return wanted
    return "web" if any(map(is_website, redirect_uris)) else "native"


def _text(given: Mapping[str, object], member: str, maximum: int) -> str:
    value = given.get(member, "")
    if not isinstance(value, str) or len(value) > maximum:
        raise _refused(f"{member} must be a text of at most {maximum} characters")
    return value


def _texts(given: Mapping[str, object], member: str) -> list[str]:
    value = given.get(member, [])
    if (
        not isinstance(value, list)
        or len(value) > MAXIMUM_LIST_LENGTH
        or not all(
            isinstance(item, str) and len(item) <= MAXIMUM_NAME_LENGTH for item in value
        )
    ):
        raise _refused(
            f"{member} must be at most {MAXIMUM_LIST_LENGTH} texts "
            f"of at most {MAXIMUM_NAME_LENGTH} characters"
        )
    return value
