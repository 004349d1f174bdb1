"""
Redirect URIs: which ones a client may register, and which one a request may name.

The rules are those of OAuth 2.1 section 2.3 and RFC 8252 section 7: C{https};
C{http} on loopback only, where the port may vary between registration and request;
private-use schemes in reverse-DNS form; and a list of application schemes that well
known MCP clients use although they have no dot. Everything a browser could execute
or read locally is refused, whatever the list says.
"""

import re
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

#: Schemes of well known MCP clients that are not in reverse-DNS form.
DEFAULT_APPLICATION_SCHEMES: Final = (
    "claude",
    "code-oss",
    "cursor",
    "goose",
    "jetbrains",
    "kiro",
    "lmstudio",
    "raycast",
    "trae",
    "vscode",
    "vscode-insiders",
    "vscodium",
    "warp",
    "windsurf",
    "windsurf-next",
    "zed",
)

#: Never a redirect target, even when configured: the browser would run the text,
#: open a local file or hand the code to something that is not an application.
FORBIDDEN_SCHEMES: Final = frozenset(
    {
        "about",
        "blob",
        "chrome",
        "content",
        "data",
        "feed",
        "file",
        "filesystem",
        "ftp",
        "intent",
        "jar",
        "javascript",
        "livescript",
        "mailto",
        "mhtml",
        "mocha",
        "resource",
        "sms",
        "tel",
        "vbscript",
        "view-source",
        "ws",
        "wss",
    }
)

MAXIMUM_REDIRECT_URI_LENGTH: Final = 2048

#: Parameters of our answer; a registered query must not carry its own.
ANSWER_PARAMETERS: Final = frozenset(
    {"code", "state", "iss", "error", "error_description", "error_uri"}
)

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CHARACTERS: Final = re.compile(
    r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})*"
)
_AUTHORITY: Final = re.compile(r"[^/?]*")
_HOST_AND_PORT: Final = re.compile(
    r"(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)
_NUMERIC_HOST: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_REVERSE_DNS: Final = re.compile(r"[a-z][a-z0-9-]*(?:\.[a-z0-9-]+)+")
_LOOPBACK: Final = re.compile(
    r"http://(?P<host>127\.0\.0\.1|\[::1\]|localhost)(?::[0-9]{1,5})?(?P<rest>(?:[/?].*)?)",
    re.IGNORECASE,
)

LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "[::1]", "localhost"})


def redirect_uri_problem(uri: str, application_schemes: Collection[str]) -> str | None:
    """
    Say what is wrong with a redirect URI that a client wants to register.

    @param uri: as sent, controlled by the client.
    @param application_schemes: schemes without a dot that are allowed, lower case.
    @return: one clause that completes "the redirect URI …", or C{None}: allowed.
    """
    if not uri or len(uri) > MAXIMUM_REDIRECT_URI_LENGTH:
        return f"must have 1 to {MAXIMUM_REDIRECT_URI_LENGTH} characters"
    if "#" in uri:
        return "must not have a fragment"
    if _CHARACTERS.fullmatch(uri) is None:
        return "has characters that a URI cannot have"
    match = _SCHEME.match(uri)
    if match is None:
        return "must be absolute"
    scheme, rest = match.group(1).lower(), uri[match.end() :]
    if scheme in FORBIDDEN_SCHEMES:
        return "has a scheme that is not allowed"
    if scheme in ("http", "https"):
        problem = _web_problem(scheme, rest)
    else:
        problem = _private_problem(scheme, rest, application_schemes)
    if problem is not None:
        return problem
    names = {name for name, _ in parse_qsl(uri.partition("?")[2], True)}
    if names & ANSWER_PARAMETERS:
        return "must not have parameters of the authorization response in its query"
    return None


def _web_problem(scheme: str, rest: str) -> str | None:
    authority = _authority(rest)
    if authority is None:
        return "must name a host"
    if "@" in authority:
        return "must not have user information"
    match = _HOST_AND_PORT.fullmatch(authority.lower())
    if match is None or not (_is_host(match["host"]) and _is_port(match["port"])):
        return "must name a host, with a port from 1 to 65535 if any"
    if scheme == "http" and match["host"] not in LOOPBACK_HOSTS:
        return "must be https, or http on 127.0.0.1, [::1] or localhost"
    return None


def _private_problem(
    scheme: str, rest: str, application_schemes: Collection[str]
) -> str | None:
    if _REVERSE_DNS.fullmatch(scheme) is None and scheme not in application_schemes:
        return (
            "has a scheme that is neither https nor in reverse-DNS form, "
            "such as com.example.app, nor a known application's"
        )
    authority = _authority(rest)
    if "@" in (authority or ""):
        return "must not have user information"
    return None


def _authority(rest: str) -> str | None:
    if not rest.startswith("//"):
        return None
    match = _AUTHORITY.match(rest, 2)
    return match.group() if match else None


def _is_host(host: str) -> bool:
    """
    Whether the host is what it looks like: a browser takes every name whose last part
    is a number for an IPv4 address in some old spelling (WHATWG URL, host parsing).
    """
    try:
        if host.startswith("["):
            IPv6Address(host[1:-1])
        elif _NUMERIC_HOST.fullmatch(host) is not None:
            IPv4Address(host)
    except ValueError:
        return False
    return True


def _is_port(port: str | None) -> bool:
    return port is None or 1 <= int(port) <= 65535


def is_loopback(uri: str) -> bool:
    """
    @param uri: an allowed redirect URI.
    @return: whether it leads to a program on the user's own computer.
    """
    return _LOOPBACK.fullmatch(uri) is not None


def is_private_scheme(uri: str) -> bool:
    """
    @param uri: an allowed redirect URI.
    @return: whether its scheme belongs to an installed application.
    """
    return not uri.lower().startswith(("https:", "http:"))


def is_website(uri: str) -> bool:
    """
    @param uri: an allowed redirect URI.
    @return: whether it leads away from the user's own device, to a server that
        anybody may run.
    """
    return not is_loopback(uri) and not is_private_scheme(uri)


def redirect_uri_matches(registered: str, presented: str) -> bool:
    """
    Compare by characters (RFC 9700 section 2.1), except that the port of a loopback
    URI may differ (RFC 8252 section 7.3): native applications take any free one.

    @param registered: an allowed redirect URI.
    @param presented: from the authorization request, controlled by the client.
    @return: whether the presented one is the registered one.
    """
    if registered == presented:
        return True
    ours, theirs = _LOOPBACK.fullmatch(registered), _LOOPBACK.fullmatch(presented)
    return (
        ours is not None
        and theirs is not None
        and ours["host"].lower() == theirs["host"].lower()
        and ours["rest"] == theirs["rest"]
        and redirect_uri_problem(presented, ()) is None
    )


def find_registered(registered: Iterable[str], presented: str) -> str | None:
    """
    @param registered: the client's redirect URIs.
    @param presented: from the authorization request, controlled by the client.
    @return: the presented one when one of the registered ones matches, or C{None}.
    """
    for candidate in registered:
        if redirect_uri_matches(candidate, presented):
            return presented
    return None


def display_host(uri: str) -> str:
    """
    The part of a redirect URI by which a person can tell where the access goes.

    @param uri: an allowed redirect URI.
    @return: the host with its port for the web, C{scheme:} for an application.
    """
    scheme, _, rest = uri.partition(":")
    if is_private_scheme(uri):
        return f"{scheme.lower()}:"
    return (_authority(rest) or "").lower()


def csp_source(uri: str) -> str:
    """
    @param uri: an allowed redirect URI or another absolute URL of ours.
    @return: the CSP scheme source that lets a form's redirects end there. Not the
        host: CSP has no syntax for an IPv6 address.
    """
    return f"{uri.partition(':')[0].lower()}:"


def with_parameters(uri: str, parameters: Iterable[tuple[str, str]]) -> str:
    """
    Add parameters to a redirect URI and keep what it had (RFC 6749 section 3.1.2).

    @param uri: an allowed redirect URI.
    @param parameters: name and value; values may be controlled by the client.
    @return: the URI to send the browser to; pure ASCII.
    """
    if "?" not in uri:
        separator = "?"
    else:
        separator = "" if uri.endswith(("?", "&")) else "&"
    return f"{uri}{separator}{urlencode(list(parameters), quote_via=quote, safe='')}"
