"""
URLs as client ids: which ones name a client metadata document that may be fetched.

The rules are those of draft-ietf-oauth-client-id-metadata-document-02 section 3, and
stricter ones where a fetch would reach what a stranger must not choose: a DNS name
only, port 443 only.
"""

import re
from typing import Final

#: The draft recommends short ones; this one is a key in the store.
MAXIMUM_DOCUMENT_URL_LENGTH: Final = 1024

_PREFIX: Final = "https://"
_CHARACTERS: Final = re.compile(
    r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})*"
)
_AUTHORITY: Final = re.compile(r"[^/?]*")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(
    rf"(?:{_LABEL}\.)+(?P<last>[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9]))"
)
_MAXIMUM_NAME_LENGTH: Final = 253

#: Names that no public resolver knows (RFC 6761, 6762, 7686, 8375, 9476).
_LOCAL_NAMES: Final = frozenset({"localhost", "local", "internal", "onion", "alt"})
_HOME: Final = ".home.arpa"


def is_document_url(client_id: str) -> bool:
    """
    @param client_id: from a request, controlled by the client.
    @return: whether it claims to be the URL of a metadata document. Ids that we make
        never look like one (draft section 7.1).
    """
    return client_id.startswith(_PREFIX)


def document_url_problem(url: str) -> str | None:
    """
    Say why a URL cannot be a client id. It is compared and fetched exactly as it
    stands, so nothing is normalised here.

    @param url: from a request, controlled by the client; see L{is_document_url}.
    @return: one clause that completes "the client_id …", or C{None}: it may be
        fetched, if its host has a public address.
    """
    if len(url) > MAXIMUM_DOCUMENT_URL_LENGTH:
        return f"must have at most {MAXIMUM_DOCUMENT_URL_LENGTH} characters"
    if not is_document_url(url):
        return "must begin with https://"
    if "#" in url:
        return "must not have a fragment"
    if _CHARACTERS.fullmatch(url) is None:
        return "has characters that a URI cannot have"
    authority, path = _split(url)
    if "@" in authority:
        return "must not have user information"
    host, colon, port = authority.partition(":")
    if colon and port != "443":
        return "must not have another port than 443"
    if not is_public_name(host):
        return "must name its host by a public DNS name"
    if not path.startswith("/"):
        return "must have a path"
    # Browsers and some servers take the encoded dot for the dot.
    segments = path.partition("?")[0].lower().replace("%2e", ".").split("/")
    if "." in segments or ".." in segments:
        return "must not have dot segments in its path"
    return None


def is_public_name(host: str) -> bool:
    """
    @param host: controlled by the client.
    @return: whether it is a DNS name with two labels or more that could be public:
        no address in any spelling, no name of the local network.
    """
    name = host.lower()
    match = _NAME.fullmatch(name)
    return (
        match is not None
        and len(name) <= _MAXIMUM_NAME_LENGTH
        and match["last"] not in _LOCAL_NAMES
        and not f".{name}".endswith(_HOME)
    )


def document_host(url: str) -> str:
    """
    @param url: a client id that may be fetched.
    @return: its host in lower case, without the port; punycode stays as it is, so
        that nobody takes it for another name.
    """
    return _split(url)[0].partition(":")[0].lower()


def _split(url: str) -> tuple[str, str]:
    """
    @return: the authority, and what follows it.
    """
    rest = url.removeprefix(_PREFIX)
    match = _AUTHORITY.match(rest)
    authority = match.group() if match else ""
    return authority, rest[len(authority) :]
