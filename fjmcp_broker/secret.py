"""Text that must not appear where people or programs can read it by accident."""

from hmac import compare_digest
from typing import Final, NoReturn

REDACTED: Final = "[redacted]"


class Secret:
    """
    A secret text: its C{repr} and C{str} are redacted, comparison takes constant
    time, and it can be neither pickled nor written by a JSON log observer.
    """

    __slots__ = ("__weakref__", "_encoded", "_text")

    def __init__(self, text: str) -> None:
        """
        @param text: the secret, controlled by whoever configured or issued it.
        """
        self._text = text
        self._encoded: bytes | None = None

    def reveal(self) -> str:
        """
        @return: the secret itself; the caller takes care where it goes.
        """
        return self._text

    def reveal_bytes(self) -> bytes:
        """
        @return: the same as L{Secret.reveal} in UTF-8; one object for all who ask.
        """
        if self._encoded is None:
            self._encoded = self._text.encode()
        return self._encoded

    def __repr__(self) -> str:
        return REDACTED

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialisable")


class Confidential:
    """
    For records with secrets among their values: the C{repr} tells none of them.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"
