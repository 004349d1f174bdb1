"""
What a configuration key is, beyond the field of a record that holds its value.

The records in L{fjmcp_broker.config.outward}, L{fjmcp_broker.config.inward} and
L{fjmcp_broker.config.bounds} are the table of keys: each field says in its metadata
what its key is, and everything else (file, variables, options, help, documentation,
example) is derived from that.
"""

from collections.abc import Callable
from typing import Any, Final

import attrs
import msgspec

from .kinds import Kind

PREFIX: Final = "FJMCP_BROKER_"
_METADATA: Final = "fjmcp_broker.config"
_UNITS: Final = "_seconds"


class Variable(msgspec.Struct, frozen=True):
    """A special environment variable of a key, beside the generic one."""

    name: str
    """The variable."""

    interpret: Callable[[str], str | None] = lambda text: text
    """Its text to the text of the key; C{None}: as if it were not set."""


class _About(msgspec.Struct, frozen=True):
    kind: Kind[Any]  # the kinds of all keys stand in one table
    help: str
    variables: tuple[Variable, ...]
    secret: bool
    sensitive: bool


def about(
    kind: Kind[Any],
    help: str,
    *variables: Variable | str,
    secret: bool = False,
    sensitive: bool = False,
    planned: bool = False,
) -> dict[str, object]:
    """
    Describe a key; goes into the metadata of its field.

    @param kind: how its value is read and written.
    @param help: one or two sentences for the operator.
    @param variables: special environment variables, by name or with a reading.
    @param secret: the value is a L{Secret}; it can come from a file named by a
        variable and from systemd credentials, and is no option of its own.
    @param sensitive: the value is never repeated in messages, though it is no
        L{Secret}.
    @param planned: nothing reads the value yet; files may have it already.
    @return: the metadata.
    """
    special = tuple(Variable(v) if isinstance(v, str) else v for v in variables)
    if planned:
        help += " Accepted, but without effect in this version."
    return {_METADATA: _About(kind, help, special, secret, secret or sensitive)}


class Key(msgspec.Struct, frozen=True):
    """One configuration key with all of its names."""

    section: str
    """The table of the TOML file."""

    attribute: str
    """The field of the record."""

    about: _About
    """What L{about} said."""

    required: bool
    """There is no default."""

    default: object
    """The typed default; C{None}: nothing."""

    @property
    def name(self) -> str:
        """The name in its table: the field without the unit that the text carries."""
        return self.attribute.removesuffix(_UNITS)

    @property
    def file_key(self) -> str:
        """The name in the TOML file, with its table."""
        return f"{self.section}.{self.name}"

    @property
    def generic_variable(self) -> str:
        """The environment variable that every key has."""
        return f"{PREFIX}{self.section}_{self.name}".upper()

    @property
    def variables(self) -> tuple[Variable, ...]:
        """All environment variables, the special ones first; none for a table."""
        if self.about.kind.from_text is None:
            return ()
        generic = Variable(self.generic_variable)
        special = self.about.variables
        return special if generic in special else (*special, generic)

    @property
    def option(self) -> str | None:
        """The command-line option without dashes; C{None} for a table."""
        if self.about.kind.from_text is None:
            return None
        plain = f"{self.section}-{self.name}".replace("_", "-")
        # An argument vector is readable by every user of a machine.
        return f"{plain}-file" if self.about.secret else plain

    @property
    def names(self) -> str:
        """All names, for a message."""
        names = [self.file_key]
        names += [variable.name for variable in self.variables[:1]]
        if self.generic_variable not in names and self.variables:
            names.append(self.generic_variable)
        names += [f"--{self.option}"] if self.option else []
        return ", ".join(names)


def keys_of(section: str, record: type[attrs.AttrsInstance]) -> tuple[Key, ...]:
    """
    @param section: the table of the TOML file.
    @param record: the record that holds its values.
    @return: its keys, in the order of the fields.
    """
    return tuple(
        Key(
            section,
            field.name,
            field.metadata[_METADATA],
            field.default is attrs.NOTHING,
            _default(field.default),
        )
        for field in attrs.fields(record)
    )


def _default(default: Any) -> object:  # what attrs keeps is of any type
    if default is attrs.NOTHING:
        return None
    factory = getattr(default, "factory", None)
    return default if factory is None else factory()
