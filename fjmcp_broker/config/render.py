"""The table of keys as documentation, example file, help text and effective values."""

import json
import re
import textwrap
from collections.abc import Mapping
from typing import Final

from fjmcp_broker.secret import REDACTED

from .keys import Key
from .load import LoadedConfig
from .records import KEYS_BY_NAME, SECTIONS

_EXAMPLES: Final[Mapping[str, object]] = {
    "server.public_url": "https://mcp.example.org",
    "server.tls_cert": "/etc/fjmcp-broker/tls.crt",
    "metrics.listen_addr": "127.0.0.1:9464",
    "server.tls_key": "/etc/fjmcp-broker/tls.key",
    "forgejo.url": "https://git.example.org",
    "forgejo.internal_url": "http://127.0.0.1:3000",
    "forgejo.ca_file": "/etc/ssl/private-authority.pem",
    "forgejo.proxy": "http://proxy.example.org:3128",
    "clients.metadata_documents_ca_file": "/etc/ssl/gateway.pem",
    "forgejo.oauth_client_id": "the client ID that Forgejo shows",
    "forgejo.oauth_client_secret": "the client secret that Forgejo shows once",
}
"""For keys without a default."""


_BARE: Final = re.compile("[A-Za-z0-9_-]+")


def toml(value: object) -> str:
    """
    @param value: text, number, boolean, or a list or table of these.
    @return: it in TOML.
    """
    if isinstance(value, dict):
        pairs = ", ".join(
            f"{_name(name)} = {toml(item)}" for name, item in value.items()
        )
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    # Every JSON text of these is TOML too, but for the DEL character, which no
    # configuration value contains.
    return json.dumps(value, ensure_ascii=False)


def _name(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)


def _default_text(key: Key) -> str | None:
    if key.default is None:
        return None
    return toml(key.about.kind.to_toml(key.default))


def option_help(key: Key) -> str:
    """
    @param key: a key that has an option.
    @return: what C{--help} says of it.
    """
    what = f"File that holds: {key.about.help}" if key.about.secret else key.about.help
    default = _default_text(key)
    shown = "Required." if key.required else f"Default: {default or 'none'}."
    return f"{what} {shown}"


def options_help() -> str:
    """
    @return: every key for a terminal: option, meaning, default, key and variables.
    """
    lines = []
    for key in KEYS_BY_NAME.values():
        names = [f"{key.file_key} in the file", *(v.name for v in key.variables)]
        lines.append(f"  --{key.option}=" if key.option else f"  {key.file_key}")
        lines += [f"      {line}" for line in textwrap.wrap(option_help(key), 78)]
        lines += [f"      = {name}" for name in names]
    return "\n".join(lines) + "\n"


def example_file() -> str:
    """
    @return: a TOML file with every key; what must be set is set, the rest stands
        there as a comment with its default.
    """
    lines = [
        "# fjmcp-broker: every key with its default. A line that begins with a single",
        "# number sign and no space after it is a key at its default; keys without one",
        "# have to be set. Made from the table of keys by `make docs`.",
        "#",
        "# Durations: 30s, 15m, 1h30m, 90d or seconds. Sizes: 64KiB, 16MiB or bytes.",
    ]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for key in KEYS_BY_NAME.values():
            if key.section != section:
                continue
            about = key.about.help
            if key.default is None and not key.required:
                about += " No default; for example:"
            lines += ["", *(f"# {line}" for line in textwrap.wrap(about, 78))]
            example = _EXAMPLES.get(key.file_key)
            text = _default_text(key) if example is None else toml(example)
            lines.append(f"{'' if key.required else '#'}{key.name} = {text}")
    return "\n".join(lines) + "\n"


_PAGE_HEAD: Final = """\
# Configuration

<!-- Made by `make docs` from the table of keys in fjmcp_broker/config. -->

A TOML file given with `twistd fjmcp --config FILE`, or none: the environment alone is
enough. `fjmcp-broker check-config [--config FILE]` reads everything as the daemon would
and prints either the effective values or all problems.

- Precedence: `PORT` or `PORT_HTTP`, then the command-line option, the environment, the
  file, the default.
- Every key but a table has the variable `FJMCP_BROKER_<SECTION>_<KEY>`; some have a
  special one as well. Both with different values is an error. An empty variable is as
  good as none. Lists are separated by commas in variables and options.
- A secret can also come from a file named by the variable with `_FILE` at its end, or
  from a systemd credential with the name of the file key
  (`LoadCredential=forgejo.oauth_client_secret:/etc/...`). Its option takes the path of
  such a file: arguments are readable by every user of a machine.
- Unknown keys in the file are errors, unknown `FJMCP_BROKER_*` variables one warning.
  `[mcias]`, `[sso]` and `server.grpc_addr` are accepted with one log line.
- Durations: `30s`, `15m`, `1h30m`, `90d` or seconds. Sizes: `64KiB`, `16MiB`, `1GiB` or
  bytes.
- `FORGEJO_MCP_BINARY` replaces the program of `child.command` and keeps its arguments;
  the option `--child-command` beats it.

A complete file:
[deploy/examples/fjmcp-broker.toml](../deploy/examples/fjmcp-broker.toml).
"""


def documentation_page() -> str:
    """
    @return: the Markdown page with every key.
    """
    lines = [_PAGE_HEAD]
    for section, record in SECTIONS.items():
        what = (record.__doc__ or "").strip().partition(": ")[2]
        lines += [f"## `[{section}]`", "", f"{what[:1].upper()}{what[1:]}", ""]
        for key in KEYS_BY_NAME.values():
            if key.section == section:
                lines += [*_entry(key), ""]
    return "\n".join(lines).rstrip() + "\n"


def _entry(key: Key) -> list[str]:
    default = _default_text(key)
    shown = "**required**" if key.required else f"default `{default or 'none'}`"
    variables = ", ".join(f"`{variable.name}`" for variable in key.variables)
    lines = [f"### `{key.file_key}`", "", f"{key.about.kind.name}; {shown}", ""]
    lines += textwrap.wrap(key.about.help, 88)
    if key.option:
        lines += ["", f"- Variables: {variables}", f"- Option: `--{key.option}`"]
    return lines


def effective_values(loaded: LoadedConfig) -> str:
    """
    @param loaded: a configuration.
    @return: every value as TOML, with its source and without secrets.
    """
    lines = []
    for section in SECTIONS:
        lines.append(f"[{section}]")
        record = getattr(loaded.config, section)
        for key in KEYS_BY_NAME.values():
            if key.section == section:
                source = loaded.sources.get(key.file_key)
                value = _effective(key, getattr(record, key.attribute))
                lines.append(f"{value}  # {source}" if source else value)
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _effective(key: Key, value: object) -> str:
    if value is None and key.default is None:
        return f"# {key.name} is not set"
    shown = key.about.kind.to_toml(value)
    if key.about.sensitive and isinstance(shown, dict):
        shown = dict.fromkeys(shown, REDACTED)
    return f"{key.name} = {toml(shown)}"
