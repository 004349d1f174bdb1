"""
Clients that the operator registers: the tables C{[[clients.static]]}.
"""

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from fjmcp_broker.oauth.clients import ClientMetadata, validate_registration
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.tokens import CLIENT_ID_PREFIX
from fjmcp_broker.oauth.vocabulary import AuthMethod
from fjmcp_broker.secret import REDACTED, Secret

from .kinds import Kind, plain_text

#: Like what we make for clients that register themselves, within reason.
MINIMUM_SECRET_LENGTH: Final = 16

_CLIENT_ID: Final = re.compile(r"[!-~]{1,1024}")
_TEXTS: Final = (
    "client_id",
    "client_name",
    "client_secret",
    "client_secret_file",
    "token_endpoint_auth_method",
)
_LIST: Final = "redirect_uris"


class StaticClient(msgspec.Struct, frozen=True, kw_only=True):
    """
    One of the tables.

    @ivar client_id: chosen by the operator; may be the URL of a metadata document,
        which is then never fetched.
    @ivar client_name: shown to people; empty: none.
    @ivar redirect_uris: as given; L{metadata} judges them.
    @ivar token_endpoint_auth_method: C{none} for a public client.
    @ivar client_secret: of a confidential one, once it was found.
    @ivar client_secret_file: where it is instead.
    """

    client_id: str
    client_name: str = ""
    redirect_uris: tuple[str, ...] = ()
    token_endpoint_auth_method: str = str(AuthMethod.NONE)
    client_secret: Secret | None = None
    client_secret_file: str | None = None

    @property
    def is_confidential(self) -> bool:
        """
        Whether it has to have a secret.
        """
        return self.token_endpoint_auth_method != AuthMethod.NONE

    @property
    def credential(self) -> str:
        """
        The name of the systemd credential that may hold the secret.
        """
        return f"clients.static.{self.client_id}"

    def metadata(self, application_schemes: Collection[str]) -> ClientMetadata:
        """
        @param application_schemes: allowed in redirect URIs.
        @return: the metadata, as if the client had registered itself.
        @raise ValueError: the end of a sentence that begins with the client.
        """
        document: dict[str, object] = {
            "redirect_uris": list(self.redirect_uris),
            "token_endpoint_auth_method": self.token_endpoint_auth_method,
        }
        if self.client_name:
            document["client_name"] = self.client_name
        try:
            return validate_registration(
                document, application_schemes=application_schemes
            )
        except OAuthError as error:
            raise ValueError(f"cannot be registered: {error.description}") from None


def find_secrets(
    clients: Collection[StaticClient],
    credentials_directory: str | None,
    read: Callable[[str, str], str | None],
    wrong: Callable[[str], None],
) -> tuple[StaticClient, ...]:
    """
    Read the secrets that stand elsewhere, and see that who needs one has one.

    @param clients: as the file has them.
    @param credentials_directory: of systemd, if there is one.
    @param read: reads the secret from a path; the second argument says what named
        it. It reports by itself when that does not work.
    @param wrong: gets the end of a sentence that begins with the key.
    @return: the clients with their secrets.
    """
    found = []
    for client in clients:
        named = f"of {client.client_id!r}"
        texts = [client.client_secret.reveal()] if client.client_secret else []
        paths = [(client.client_secret_file, f"client_secret_file {named}")]
        if credentials_directory and "/" not in client.client_id:
            credential = Path(credentials_directory, client.credential)
            if credential.exists():
                paths.append((str(credential), f"credential {client.credential}"))
        for path, where in paths:
            if path is not None:
                text = read(path, where)
                # What cannot be read was reported, and is not missing as well.
                texts.append(REDACTED if text is None else text)
        if len(set(texts)) > 1:
            wrong(f"has different secrets {named}; set only one")
        elif client.is_confidential and not texts:
            wrong(
                f"has no secret {named}: set client_secret_file or the credential "
                f"{client.credential}"
            )
        elif not client.is_confidential and texts:
            wrong(f"has a secret {named}, but token_endpoint_auth_method is none")
        elif texts and len(texts[0]) < MINIMUM_SECRET_LENGTH and texts[0] != REDACTED:
            wrong(
                f"has a secret {named} shorter than {MINIMUM_SECRET_LENGTH} characters"
            )
        secret = Secret(texts[0]) if texts else None
        found.append(replace(client, client_secret=secret, client_secret_file=None))
    return tuple(found)


def _client(value: object) -> StaticClient:
    if not isinstance(value, dict):
        raise ValueError("must be tables [[clients.static]]")
    unknown = value.keys() - {*_TEXTS, _LIST}
    if unknown:
        raise ValueError(f"has an unknown key {ascii(min(unknown))[1:-1][:80]}")
    texts = {name: _text(value, name) for name in _TEXTS}
    client_id = texts["client_id"] or ""
    if _CLIENT_ID.fullmatch(client_id) is None:
        raise ValueError("must have a client_id of visible ASCII characters each")
    if client_id.startswith(CLIENT_ID_PREFIX):
        raise ValueError(f"must not have a client_id that begins {CLIENT_ID_PREFIX}")
    uris = value.get(_LIST, [])
    if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
        raise ValueError(f"must have a list of strings as {_LIST}")
    secret = texts["client_secret"]
    return StaticClient(
        client_id=client_id,
        client_name=texts["client_name"] or "",
        redirect_uris=tuple(uris),
        token_endpoint_auth_method=(
            texts["token_endpoint_auth_method"] or str(AuthMethod.NONE)
        ),
        client_secret=None if secret is None else Secret(secret),
        client_secret_file=texts["client_secret_file"],
    )


def _text(table: Mapping[str, object], name: str) -> str | None:
    value = table.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"must have a string as {name}")
    try:
        return plain_text(value)
    except ValueError as error:
        raise ValueError(f"has a {name} that {error}") from None


def _clients(value: object) -> tuple[StaticClient, ...]:
    if not isinstance(value, list):
        raise ValueError("must be tables [[clients.static]]")
    clients = tuple(map(_client, value))
    ids = [client.client_id for client in clients]
    for client_id in ids:
        if ids.count(client_id) > 1:
            raise ValueError(f"has the client_id {client_id!r} twice")
    return clients


def _written(clients: tuple[StaticClient, ...]) -> list[dict[str, object]]:
    return [
        {
            "client_id": client.client_id,
            **({"client_name": client.client_name} if client.client_name else {}),
            "redirect_uris": list(client.redirect_uris),
            "token_endpoint_auth_method": client.token_endpoint_auth_method,
            **({"client_secret": REDACTED} if client.client_secret else {}),
        }
        for client in clients
    ]


STATIC_CLIENTS: Final = Kind("tables", _clients, None, _written)
