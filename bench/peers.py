"""
Other bridges from stdio to Streamable HTTP, each installed from its registry at a
pinned version into a cache directory, and run without authentication.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import attrs

from bench.children import CACHE, ECHO, NotThere, Tool, install, npm_install
from bench.processes import NotReady, Process, free_port
from bench.report import say
from bench.targets import Target

_NODE_VERSION: Final = 20
_PYTHON: Final = sha256(sys.version.encode()).hexdigest()[:8]
"""The interpreter, as it was built: the broker and its peers run in the same one."""

_Child = Sequence[str]

_FASTMCP: Final = (
    "import sys; from fastmcp.client.transports import StdioTransport;"
    " from fastmcp.server import create_proxy;"
    " create_proxy(StdioTransport(command=sys.argv[2], args=sys.argv[3:]))"
    ".run(transport='http', host='127.0.0.1', port=int(sys.argv[1]), path='/mcp',"
    " show_banner=False, log_level='error')"
)


@attrs.frozen
class Peer:
    """
    One of them.

    @ivar registry: C{npm} or C{PyPI}.
    @ivar package: its name there.
    @ivar version: the only one that is measured.
    @ivar program: what runs, in the C{bin} directory of the package.
    @ivar arguments: of that, by port and command of the child.
    """

    registry: str
    package: str
    version: str
    program: str
    arguments: Callable[[int, _Child], Sequence[str]]

    @property
    def name(self) -> str:
        """
        @return: in the tables.
        """
        return f"{self.registry} {self.package} {self.version}"

    @property
    def _directory(self) -> Path:
        name = f"{self.registry}-{self.package}-{self.version}".lower()
        return CACHE / (name if self.registry == "npm" else f"{name}-{_PYTHON}")

    @property
    def is_installed(self) -> bool:
        """
        @return: whether it is in the cache.
        """
        return (self._directory / ".installed").exists()

    def install(self) -> None:
        """
        Install it, unless it is there.

        @raise NotThere: it could not be had.
        """
        if self.registry == "npm":
            _check_node()
            npm_install(self._directory, f"{self.package}@{self.version}")
            return
        wanted = f"{self.package}=={self.version}"
        python = str(self._directory / "bin" / "python")
        commands = [
            [sys.executable, "-m", "venv", str(self._directory)],
            [python, "-m", "pip", "install", "--quiet", wanted],
        ]
        install(self._directory, commands, wanted)

    def start(self, directory: Path, child: Sequence[str], tool: Tool = ECHO) -> Target:
        """
        @param directory: for its log.
        @param child: the command of its child.
        @param tool: of that child.
        @return: it, running.
        @raise NotReady: it does not run.
        """
        port = free_port()
        scripts = self._directory / (
            "node_modules/.bin" if self.registry == "npm" else "bin"
        )
        program = str((scripts / self.program).resolve())
        # Without its shell wrapper, so that the process is the bridge itself.
        command = ["node", program] if self.registry == "npm" else [program]
        if self.program == "python":
            command = [str(scripts / "python")]
        log = directory / f"{self._directory.name}.log"
        arguments = [*command, *self.arguments(port, child)]
        process = Process(arguments, log, directory=directory)
        try:
            process.until_listening(port)
        except NotReady:
            process.stop()
            raise
        return Target(self.name, process, port, tool)


def start_all(
    directory: Path,
    child: Sequence[str],
    tool: Tool = ECHO,
    names: Sequence[str] = (),
) -> list[Target]:
    """
    Those that can be had; a line says why each of the others is skipped.

    @param directory: for their logs.
    @param child: the command of their children.
    @param tool: of that child.
    @param names: only those with one of these in their names, if there are any.
    @return: they run.
    """
    targets = []
    for peer in PEERS:
        if names and not any(name in peer.name for name in names):
            continue
        try:
            peer.install()
            targets.append(peer.start(directory, child, tool))
        except (NotThere, NotReady, OSError) as error:
            say(f"SKIPPED {peer.name}: {error}")
    return targets


def _check_node() -> None:
    node = shutil.which("node")
    if node is None:
        raise NotThere("node is not on PATH")
    said = subprocess.run(  # noqa: S603 - only asked for its version
        [node, "--version"], capture_output=True, text=True, check=False
    ).stdout.strip()
    major = said.removeprefix("v").partition(".")[0]
    if not major.isdigit() or int(major) < _NODE_VERSION:
        raise NotThere(f"node {said or '?'} is older than {_NODE_VERSION}")


PEERS: Final = (
    Peer(
        "npm",
        "supergateway",
        "4.0.0",
        "supergateway",
        lambda port, child: (
            "--stdio",
            " ".join(child),
            "--outputTransport",
            "streamableHttp",
            "--stateful",
            "--logLevel",
            "none",
            "--port",
            str(port),
        ),
    ),
    Peer(
        "npm",
        "mcp-proxy",
        "6.7.19",
        "mcp-proxy",
        lambda port, child: (
            "--server",
            "stream",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--",
            *child,
        ),
    ),
    Peer(
        "PyPI",
        "mcp-proxy",
        "0.13.0",
        "mcp-proxy",
        lambda port, child: (
            "--port",
            str(port),
            "--log-level",
            "ERROR",
            "--",
            *child,
        ),
    ),
    Peer(
        "PyPI",
        "mcp-streamablehttp-proxy",
        "0.2.0",
        "mcp-streamablehttp-proxy",
        lambda port, child: ("--port", str(port), "--log-level", "error", *child),
    ),
    Peer(
        "PyPI",
        "fastmcp",
        "4.1.0",
        "python",
        lambda port, child: ("-c", _FASTMCP, str(port), *child),
    ),
)
