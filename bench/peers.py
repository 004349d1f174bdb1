"""
Other bridges from stdio to Streamable HTTP, each installed from its registry at a
pinned version into a cache directory, and run without authentication.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from bench.processes import Process, free_port
from bench.targets import ECHO_CHILD, Target

CACHE: Final = (
    Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    / "fjmcp-broker"
    / "bench"
)

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
    @ivar arguments: of that, by port.
    """

    registry: str
    package: str
    version: str
    program: str
    arguments: Callable[[int], Sequence[str]]

    @property
    def name(self) -> str:
        """
        @return: in the tables.
        """
        return f"{self.registry} {self.package} {self.version}"

    @property
    def _directory(self) -> Path:
        return CACHE / f"{self.registry}-{self.package}-{self.version}".lower()

    def install(self) -> None:
        """
        Install it, unless it is there.

        @raise CalledProcessError: the registry's client failed, and has said why.
        """
        if (self._directory / ".installed").exists():
            return
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        wanted = f"{self.package}@{self.version}"
        if self.registry == "npm":
            (self._directory / "package.json").write_text("{}\n")
            commands = [["npm", "install", "--no-audit", "--no-fund", wanted]]
        else:
            wanted = wanted.replace("@", "==")
            python = str(self._directory / "bin" / "python")
            commands = [
                [sys.executable, "-m", "venv", str(self._directory)],
                [python, "-m", "pip", "install", "--quiet", wanted],
            ]
        for command in commands:
            subprocess.run(command, cwd=self._directory, check=True)  # noqa: S603 - fixed
        (self._directory / ".installed").touch()

    def start(self, directory: Path) -> Target:
        """
        @param directory: for its log.
        @return: it, running.
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
        process = Process([*command, *self.arguments(port)], log, directory=directory)
        process.until_listening(port)
        return Target(self.name, process, port)


PEERS: Final = (
    Peer(
        "npm",
        "supergateway",
        "4.0.0",
        "supergateway",
        lambda port: (
            "--stdio",
            " ".join(ECHO_CHILD),
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
        lambda port: (
            "--server",
            "stream",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--",
            *ECHO_CHILD,
        ),
    ),
    Peer(
        "PyPI",
        "mcp-proxy",
        "0.13.0",
        "mcp-proxy",
        lambda port: (
            "--port",
            str(port),
            "--log-level",
            "ERROR",
            "--",
            *ECHO_CHILD,
        ),
    ),
    Peer(
        "PyPI",
        "mcp-streamablehttp-proxy",
        "0.2.0",
        "mcp-streamablehttp-proxy",
        lambda port: ("--port", str(port), "--log-level", "error", *ECHO_CHILD),
    ),
    Peer(
        "PyPI",
        "fastmcp",
        "4.1.0",
        "python",
        lambda port: ("-c", _FASTMCP, str(port), *ECHO_CHILD),
    ),
)
