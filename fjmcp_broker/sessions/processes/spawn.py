"""
How a child process is launched: its command line, its environment, its working
directory, and the protection of the daemon's own memory.

The only program in front of the child is C{setpriv}, which replaces itself by it::

    setpriv --pdeathsig KILL PROGRAM ARGUMENTS...

A process has to ask by itself for the signal that it gets when its parent dies. That
survives C{execve}, and reaches a stopped process too.
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from twisted.logger import Logger

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.secret import Confidential, Secret
from fjmcp_broker.sessions.errors import ChildCannotStart
from fjmcp_broker.version import VERSION

log = Logger()

REFUSED_VARIABLES: Final = frozenset({"FORGEJO_MCP_ALLOW_FILE_PATH_UPLOAD"})
"""Would let tools of forgejo-mcp read files of the host."""

_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DIRECTORY_PREFIX: Final = "fjmcp-child-"
_PR_SET_DUMPABLE: Final = 4
_PROBE_TIMEOUT_SECONDS: Final = 5


class ChildSettingsError(BrokerError):
    """
    The configured child cannot be used; the message says which setting and why.
    """


class ChildSettings(Confidential, msgspec.Struct, frozen=True):
    """
    What is the same for every child of this daemon.

    @ivar command: program and arguments; never contains a secret, since every user
        of the host can read it.
    @ivar forgejo_url: the base URL that the child uses for API calls.
    @ivar token_env: name of the variable that carries the user's token.
    @ivar url_env: name of the variable that carries C{forgejo_url}.
    @ivar env: further variables, from the configuration.
    @ivar ca_file: bundle with a private certificate authority, or C{None}.
    @ivar proxy: outgoing HTTP proxy, or C{None}.
    @ivar start_timeout_seconds: until the answer to C{initialize} must be there.
    @ivar stop_grace_seconds: between closing standard input and SIGTERM, and again
        between SIGTERM and SIGKILL.
    @ivar maximum_line_bytes: longest message accepted from the child.
    @ivar maximum_queued_bytes: how much may wait for the child to read its input.
    """

    command: tuple[str, ...]
    forgejo_url: str
    token_env: str = "FORGEJO_ACCESS_TOKEN"  # noqa: S105 - the name of a variable
    url_env: str = "FORGEJO_URL"
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    ca_file: str | None = None
    proxy: str | None = None
    start_timeout_seconds: float = 30.0
    stop_grace_seconds: float = 3.0
    maximum_line_bytes: int = 100 * 1024 * 1024
    maximum_queued_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if not self.command or not self.command[0]:
            raise ChildSettingsError("child.command is empty")
        own = {self.token_env, self.url_env}
        for name in (*self.env, *own):
            if name.upper() in REFUSED_VARIABLES:
                raise ChildSettingsError(
                    f"child.env: {name} is refused, it would let tools read files"
                    " of this host"
                )
            if not name or "=" in name or "\0" in name:
                raise ChildSettingsError(f"child.env: {name!r} is not a variable name")
        for name in own & self.env.keys():
            raise ChildSettingsError(f"child.env: {name} is set by the broker itself")


def child_environment(
    settings: ChildSettings, token: Secret, inherited: Mapping[str, str]
) -> dict[str, str]:
    """
    Build a child's environment from nothing.

    @param settings: the configured child.
    @param token: the user's Forgejo access token.
    @param inherited: the daemon's own environment, of which only C{PATH}, C{LANG}
        and C{TZ} are taken over.
    @return: every variable the child gets.
    """
    environment = {
        "PATH": inherited.get("PATH") or _DEFAULT_PATH,
        "LANG": inherited.get("LANG") or "C.UTF-8",
        "FORGEJO_USER_AGENT": f"fjmcp-broker/{VERSION}",
    }
    if inherited.get("TZ"):
        environment["TZ"] = inherited["TZ"]
    if settings.ca_file is not None:
        environment["SSL_CERT_FILE"] = settings.ca_file
    if settings.proxy is not None:
        environment["HTTP_PROXY"] = environment["HTTPS_PROXY"] = settings.proxy
    environment.update(settings.env)
    environment[settings.url_env] = settings.forgejo_url
    environment[settings.token_env] = token.reveal()
    return environment


def _works(command: Sequence[str]) -> bool:
    """
    @return: whether this prefix runs C{true} here; a missing option (as with the
        small tools of some images) counts like a missing program.
    """
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command line
            [*command, "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class Launcher(msgspec.Struct, frozen=True):
    """
    The helper program found on this host.

    @ivar death_signal: prefix that ties the child's life to the daemon's.
    """

    death_signal: tuple[str, ...]

    @classmethod
    def detect(
        cls, works: Callable[[Sequence[str]], bool] = _works, path: str | None = None
    ) -> "Launcher":
        """
        Find the helper, and warn when it is missing. Runs a short program and waits
        for it: for the start of the daemon only.

        @param works: tells whether a prefix can run a program.
        @param path: where to look, by default the daemon's C{PATH}.
        @return: what to put in front of each child.
        """
        where = shutil.which("setpriv", path=path)
        if where is not None:
            death_signal = (where, "--pdeathsig", "KILL")
            if works(death_signal):
                return cls(death_signal)
        log.warn(
            "children run with less protection, missing on this host: {missing}",
            missing="setpriv --pdeathsig (children outlive a killed daemon)",
        )
        return cls(())

    def command_line(self, command: Sequence[str]) -> list[str]:
        """
        @param command: the child's program and arguments.
        @return: the arguments to execute; the first is an absolute path.
        @raise ChildCannotStart: there is no such program.
        """
        program = shutil.which(command[0])
        if program is None:
            raise ChildCannotStart(f"child program {command[0]} is not installed")
        # The working directory changes, so that the path must not be relative.
        return [*self.death_signal, os.path.abspath(program), *command[1:]]


def make_working_directory() -> str:
    """
    @return: the path of a new, empty directory that only this user may enter.
    """
    return tempfile.mkdtemp(prefix=f"{_DIRECTORY_PREFIX}{os.getpid()}-")


def remove_working_directory(path: str) -> None:
    """
    Remove what L{make_working_directory} made, and anything a child left there.

    @param path: as returned by L{make_working_directory}.
    """
    try:
        os.rmdir(path)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def remove_stale_working_directories() -> None:
    """
    Remove what daemons that were killed left behind: directories of ours whose name
    says that they were made by a process that is no more.
    """
    parent = tempfile.gettempdir()
    for name in os.listdir(parent):
        if not name.startswith(_DIRECTORY_PREFIX):
            continue
        maker = name.removeprefix(_DIRECTORY_PREFIX).partition("-")[0]
        path = os.path.join(parent, name)
        try:
            mine = os.lstat(path).st_uid == os.geteuid()
        except FileNotFoundError:
            continue
        if mine and maker.isdigit() and not os.path.exists(f"/proc/{maker}"):
            remove_working_directory(path)


def send_to_group(
    kill_group: Callable[[int, int], None], group: int, number: int, name: str
) -> None:
    """
    Send a signal to a child's process group. Right after the child was reaped its
    group id cannot have been reused: it is taken as long as a member lives, and
    nothing was started in between. When all are gone, nobody gets it.

    @param kill_group: C{os.killpg}.
    @param group: the child's process id.
    @param number: of the signal.
    @param name: of the child in the log.
    """
    try:
        kill_group(group, number)
    except ProcessLookupError:
        return
    except PermissionError:
        log.warn("child {child} changed its user", child=name)


def protect_memory() -> bool:
    """
    Keep other processes of the same user from reading the daemon's memory and
    environment (C{PR_SET_DUMPABLE}); it also switches core files off, which would
    contain tokens. Children are not affected: C{execve} resets the flag.

    @return: whether the kernel agreed; C{False} on systems without C{prctl}.
    """
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError):
        return False
    return bool(prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
