"""Kinds of configuration values that are secret."""

from typing import Final

from fjmcp_broker.key_text import decode_key
from fjmcp_broker.secret import REDACTED, Secret

from .kinds import Kind, listing, plain_text, scalar


def _secret(text: str) -> Secret:
    return Secret(plain_text(text))


SECRET: Final = scalar("secret", _secret, lambda secret: REDACTED)


def _key(text: str) -> Secret:
    decode_key(text)
    return Secret(text.strip())


def _keys() -> Kind[tuple[Secret, ...]]:
    commas = listing("list of secrets", _key, lambda secret: REDACTED)

    def from_text(text: str) -> tuple[Secret, ...]:
        # A key file has one key a line.
        assert commas.from_text is not None  # noqa: S101 - listing() always sets it
        return commas.from_text(",".join(text.split()))

    return Kind(commas.name, commas.from_toml, from_text, commas.to_toml)


KEYS: Final = _keys()
