"""Where values come from: the file, the environment, credentials, options."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from fjmcp_broker.secret import Confidential

from .keys import PREFIX, Key
from .problems import Problems, shown
from .records import KEYS_BY_NAME, SECTIONS

CREDENTIALS_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
PORT_VARIABLES: Final = ("PORT", "PORT_HTTP")
METRICS_PORT_VARIABLE: Final = "PORT_METRICS"
PROGRAM_VARIABLE: Final = "FORGEJO_MCP_BINARY"

_FOREIGN_TABLES: Final = ("mcias", "sso")
_FOREIGN_KEYS: Final = ("server.grpc_addr",)
_SHOWN_CHARACTERS: Final = 80
_MOST_SECRET_BYTES: Final = 64 * 1024


class Given(Confidential, msgspec.Struct, frozen=True):
    """A value and the source it came from."""

    where: str
    """For messages: a variable, an option, the file."""

    value: object
    """The typed value."""


Tables = Mapping[str, Mapping[str, object]]


def read_file(path: str, problems: Problems, notes: list[str]) -> Tables:
    """
    Read the TOML file and refuse what nobody knows.

    @param path: the file.
    @param problems: gets what is wrong with it.
    @param notes: gets one line about tables that belong to other programs.
    @return: the tables, only with keys that exist.
    """
    try:
        document = tomllib.loads(Path(path).read_bytes().decode())
    except OSError as error:
        problems.add(f"{path}: cannot be read: {error.strerror}")
        return {}
    except UnicodeDecodeError:
        problems.add(f"{path}: is not UTF-8 text")
        return {}
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        problems.add(f"{path}: is not TOML: {error}")
        return {}
    tables: dict[str, dict[str, object]] = {}
    foreign = []
    for section, table in document.items():
        if section in _FOREIGN_TABLES:
            foreign.append(f"[{section}]")
        elif not isinstance(table, dict) or section not in SECTIONS:
            problems.add(f"{path}: {_unknown(section, isinstance(table, dict))}")
        else:
            tables[section] = known = {}
            for name, value in table.items():
                file_key = f"{section}.{name}"
                if file_key in KEYS_BY_NAME:
                    known[name] = value
                elif file_key in _FOREIGN_KEYS:
                    foreign.append(file_key)
                else:
                    problems.add(f"{path}: {_unknown(file_key, False)}")
    if foreign:
        notes.append(f"{path}: {', '.join(foreign)} not used by this program")
    return tables


def _unknown(name: str, is_table: bool) -> str:
    # Only here: a daemon that runs has no use for it.
    from difflib import get_close_matches

    if is_table:
        near = get_close_matches(name, SECTIONS, 1)
        hint = f"; did you mean [{near[0]}]?" if near else ""
        return f"unknown table [{_printable(name)}]{hint}"
    last = name.rpartition(".")[2]
    elsewhere = [key.file_key for key in KEYS_BY_NAME.values() if key.name == last]
    near = elsewhere or get_close_matches(name, KEYS_BY_NAME, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown key {_printable(name)}{hint}"


def _printable(name: str) -> str:
    # A quoted key may hold anything, line ends and terminal controls too.
    return ascii(name)[1:-1][:_SHOWN_CHARACTERS]


def from_file(key: Key, tables: Tables, path: str, problems: Problems) -> Given | None:
    """
    @param key: the key.
    @param tables: what L{read_file} gave.
    @param path: of the file, for messages.
    @param problems: gets what is wrong with the value.
    @return: its value in the file, if there is one and it is right.
    """
    raw = tables.get(key.section, {}).get(key.name)
    if raw is None:
        return None
    try:
        return Given(path, key.about.kind.from_toml(raw))
    except ValueError as error:
        problems.of_key(key, f"{error}{shown(key, raw)}", path)
        return None


def from_environment(
    key: Key, environment: Mapping[str, str], problems: Problems
) -> Given | None:
    """
    @param key: the key.
    @param environment: the variables; an empty one is as good as none.
    @param problems: gets what is wrong with the value, and contradictions.
    @return: its value in the environment or the credentials, if there is one.
    """
    found = []
    for where, text in _texts(key, environment, problems):
        value = _parsed(key, where, text, problems)
        if value is not None:
            found.append(value)
    for other in found[1:]:
        if other.value != found[0].value:
            both = f"{found[0].where} and {other.where}"
            problems.of_key(key, f"has different values in {both}; set only one")
    return found[0] if found else None


def _texts(
    key: Key, environment: Mapping[str, str], problems: Problems
) -> Iterable[tuple[str, str]]:
    for variable in key.variables:
        if text := environment.get(variable.name, "").strip():
            try:
                meaning = variable.interpret(text)
            except ValueError as error:
                problems.of_key(key, f"{error}{shown(key, text)}", variable.name)
                continue
            if meaning is not None:
                yield variable.name, meaning
        if key.about.secret:
            name = f"{variable.name}_FILE"
            if path := environment.get(name, "").strip():
                secret = read_secret(key, path, name, problems)
                if secret is not None:
                    yield name, secret
    directory = environment.get(CREDENTIALS_DIRECTORY)
    if key.about.secret and directory:
        credential = Path(directory, key.file_key)
        if credential.exists():
            where = f"credential {key.file_key}"
            secret = read_secret(key, str(credential), where, problems)
            if secret is not None:
                yield where, secret


def read_secret(key: Key, path: str, where: str, problems: Problems) -> str | None:
    """
    @param key: the secret key.
    @param path: the file that holds its text.
    @param where: what named the file.
    @param problems: gets why it cannot be read.
    @return: the text without surrounding space.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_SECRET_BYTES + 1)
        if len(content) > _MOST_SECRET_BYTES:
            raise ValueError("is too long for a secret")
        return content.decode().strip()
    except OSError as error:
        problems.of_key(key, f"cannot be read from {path}: {error.strerror}", where)
    except UnicodeDecodeError:
        problems.of_key(key, f"is not UTF-8 text in {path}", where)
    except ValueError as error:
        problems.of_key(key, f"{error} in {path}", where)
    return None


def from_options(
    key: Key, options: Mapping[str, str | None], problems: Problems
) -> Given | None:
    """
    @param key: the key.
    @param options: the texts of the options by name.
    @param problems: gets what is wrong with the value.
    @return: its value on the command line, if there is one.
    """
    text = options.get(key.option or "")
    if text is None:
        return None
    where = f"--{key.option}"
    if key.about.secret:
        secret = read_secret(key, text, where, problems)
        return None if secret is None else _parsed(key, where, secret, problems)
    return _parsed(key, where, text, problems)


def _parsed(key: Key, where: str, text: str, problems: Problems) -> Given | None:
    parse = key.about.kind.from_text
    if parse is None:
        return None
    try:
        return Given(where, parse(text))
    except ValueError as error:
        problems.of_key(key, f"{error}{shown(key, text)}", where)
        return None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """
    @param environment: the variables.
    @return: the names that look like ours and are not, sorted.
    """
    ours = set()
    for key in KEYS_BY_NAME.values():
        for variable in key.variables:
            ours.add(variable.name)
            if key.about.secret:
                ours.add(f"{variable.name}_FILE")
    return sorted(
        name for name in environment if name.startswith(PREFIX) and name not in ours
    )
