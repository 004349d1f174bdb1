"""
What is known of the tools that a child offers: the file C{tools.toml} beside this
module, as values.
"""

import tomllib
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Final

import msgspec
from msgspec.structs import replace

from fjmcp_broker.errors import BrokerError


class CatalogueError(BrokerError):
    """
    The data file is not what it should be: our own fault, found at start.
    """


class Tool(msgspec.Struct, frozen=True):
    """
    One classified tool.

    @ivar name: as the child calls it.
    @ivar title: for people.
    @ivar writes: whether it changes anything in Forgejo.
    @ivar destructive: whether it overwrites or removes something.
    @ivar idempotent: whether a second equal call changes nothing more.
    @ivar open_world: whether it meets unforeseeable parties; None leaves that as the
        child says.
    """

    name: str
    title: str
    writes: bool
    destructive: bool
    idempotent: bool
    open_world: bool | None = None


class ToolCatalogue(msgspec.Struct, frozen=True):
    """
    The classified tools of one kind of child.

    @ivar tools: by name.
    @ivar denied: the tools that nobody may call, with the reason for people.
    @ivar servers: how children of this kind call themselves.
    @ivar read_methods: methods beside C{tools/call} that only read.
    """

    tools: Mapping[str, Tool]
    denied: Mapping[str, str] = msgspec.field(default_factory=dict)
    servers: frozenset[str] = frozenset()
    read_methods: frozenset[str] = frozenset()

    @classmethod
    def from_toml(cls, text: str) -> "ToolCatalogue":
        """
        @param text: the content of the data file.
        @return: the catalogue.
        @raise CatalogueError: when the text is not TOML, a member is missing, unknown
            or of the wrong type, or a tool stands there twice.
        """
        try:
            data = msgspec.convert(tomllib.loads(text), _File)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise CatalogueError(
                f"the tool catalogue cannot be read: {error}"
            ) from error
        tools: dict[str, Tool] = {}
        for group in data.groups:
            if group.class_ not in ("read", "write"):
                raise CatalogueError("a class of tools is read or write")
            for name, title in group.tools.items():
                if name in tools:
                    raise CatalogueError(f"the tool {name} is classified twice")
                tools[name] = Tool(
                    name,
                    title,
                    group.class_ == "write",
                    group.destructive,
                    group.idempotent,
                    group.open_world,
                )
        return cls(tools, data.denied, frozenset(data.servers), frozenset(data.methods))

    @classmethod
    def packaged(cls) -> "ToolCatalogue":
        """
        Read the data file of this package, as an import would: once, at start.

        @return: the catalogue of forgejo-mcp that comes with this software.
        """
        file = resources.files("fjmcp_broker.mcp").joinpath("tools.toml")
        return cls.from_toml(file.read_text("utf-8"))

    def for_server(self, initialize_result: bytes) -> "ToolCatalogue":
        """
        What holds for a child. A tool of another child may have the name of one that
        is known here and do something else.

        @param initialize_result: raw result of C{initialize}, as the child wrote it.
        @return: this catalogue for a child of its kind, else one that classifies
            nothing and denies the same.
        """
        try:
            name = _INITIALIZE.decode(initialize_result).server_info.name
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            name = ""
        return self if name in self.servers else ToolCatalogue({}, self.denied)

    def allowing(self, names: Collection[str]) -> "ToolCatalogue":
        """
        @param names: tools that the operator wants to be callable after all.
        @return: a catalogue that does not deny them.
        """
        denied = {key: why for key, why in self.denied.items() if key not in names}
        return replace(self, denied=denied)

    def reads(self, name: str) -> bool:
        """
        @param name: the name of a tool, any text.
        @return: whether it is known to change nothing.
        """
        tool = self.tools.get(name)
        return tool is not None and not tool.writes


class _Group(msgspec.Struct, forbid_unknown_fields=True):
    """Tools that share their hints."""

    destructive: bool
    idempotent: bool
    tools: dict[str, str]
    class_: str = msgspec.field(name="class")
    open_world: bool | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """The data file."""

    servers: list[str]
    methods: list[str]
    denied: dict[str, str]
    groups: list[_Group]


class _ServerInfo(msgspec.Struct):
    """Who the child says it is."""

    name: str


class _InitializeResult(msgspec.Struct, rename="camel"):
    """The one member of the answer that matters here."""

    server_info: _ServerInfo


_INITIALIZE: Final = msgspec.json.Decoder(_InitializeResult)
