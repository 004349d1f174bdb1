"""
The stand-in child's client of the Forgejo API: small, blocking, no time limit.
"""

import json
import socket
from typing import Any

SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class ForgejoError(Exception):
    """
    An answer that is no success, or none at all; the text is Forgejo's own.
    """


def escape(text: object) -> str:
    """
    @return: one path segment or query value, percent-encoded.
    """
    return "".join(
        chr(byte) if byte in SAFE else f"%{byte:02X}" for byte in str(text).encode()
    )


class ForgejoApi:
    """
    Calls one Forgejo with one token.
    """

    def __init__(self, url: str, token: str, user_agent: str) -> None:
        """
        @param url: the base URL, may have a path.
        @param token: empty for none.
        @param user_agent: how to introduce itself.
        """
        scheme, _, rest = url.partition("://")
        authority, slash, path = rest.partition("/")
        self._is_tls = scheme == "https"
        host, colon, port = authority.rpartition(":")
        if not colon or not port.isdecimal():
            host, port = authority, "443" if self._is_tls else "80"
        self._host, self._port = host.strip("[]"), int(port)
        self._authority = authority
        self._path = (slash + path).rstrip("/") + "/api/v1"
        self._token = token
        self._user_agent = user_agent

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """
        @param path: below C{/api/v1}, with its query.
        @param body: sent as JSON; None for none.
        @return: the JSON value of the answer, the text when it is no JSON.
        @raise ForgejoError: for anything but a 2xx answer.
        """
        content = b"" if body is None else json.dumps(body).encode()
        # HTTP/1.0: the answer is neither chunked nor kept alive.
        lines = [
            f"{method} {self._path}{path} HTTP/1.0",
            f"Host: {self._authority}",
            f"User-Agent: {self._user_agent}",
            "Accept: application/json",
        ]
        if self._token:
            lines.append(f"Authorization: token {self._token}")
        if content:
            lines.append("Content-Type: application/json")
        lines += [f"Content-Length: {len(content)}", "Connection: close", "", ""]
        try:
            answer = self._exchange("\r\n".join(lines).encode() + content)
        except OSError as error:
            raise ForgejoError(f"dial {self._authority}: {error}") from error
        head, _, payload = answer.partition(b"\r\n\r\n")
        words = head.split(None, 2)
        if len(words) < 2 or not words[1].isdigit():
            raise ForgejoError("unexpected EOF")
        return self._judge(int(words[1]), payload)

    def _exchange(self, request: bytes) -> bytes:
        with socket.create_connection((self._host, self._port)) as plain:
            connection: socket.socket = plain
            if self._is_tls:
                # Imported here because it takes longer than everything else.
                import ssl

                context = ssl.create_default_context()
                connection = context.wrap_socket(plain, server_hostname=self._host)
            with connection:
                connection.sendall(request)
                pieces = []
                while piece := connection.recv(65536):
                    pieces.append(piece)
        return b"".join(pieces)

    def _judge(self, status: int, payload: bytes) -> Any:
        text = payload.decode("utf-8", "replace")
        try:
            value = json.loads(text) if text else None
        except ValueError:
            value = text
        if 200 <= status < 300:
            return value
        if isinstance(value, dict) and "message" in value:
            raise ForgejoError(str(value["message"]))
        raise ForgejoError(f"{status}: {text}" if text else str(status))
