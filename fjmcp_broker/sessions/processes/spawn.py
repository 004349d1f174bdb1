"""
How a child process is launched: its command line, its environment, its working
directory, and the protection of the daemon's own memory.

Twisted's C{spawnProcess} sets no process group, and a C{path} argument makes it fork
the whole daemon instead of using C{posix_spawn}. Both are done by small programs in
front of the child instead, each of which replaces itself by the next one::

    setpriv --pdeathsig KILL setsid env -C DIRECTORY PROGRAM ARGUMENTS...

The death signal survives C{execve}, and reaches a stopped process too.
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs
from twisted.logger import Logger

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.secret import Secret
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


@attrs.frozen
class ChildSettings:
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
    env: Mapping[str, str] = attrs.field(factory=dict)
    ca_file: str | None = None
    proxy: str | None = None
    start_timeout_seconds: float = 30.0
    stop_grace_seconds: float = 3.0
    maximum_line_bytes: int = 100 * 1024 * 1024
    maximum_queued_bytes: int = 64 * 1024 * 1024

    def __attrs_post_init__(self) -> None:
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
    @return: whether this helper command line runs C{true} here; a missing option
        (as with the small tools of some images) counts like a missing program.
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


@attrs.frozen
class Launcher:
    """
    The helper programs found on this host.

    @ivar death_signal: prefix that ties the child's life to the daemon's.
    @ivar own_group: prefix that gives the child a session and process group.
    @ivar change_directory: prefix that takes the directory as its next argument.
    """

    death_signal: tuple[str, ...]
    own_group: tuple[str, ...]
    change_directory: tuple[str, ...]

    @classmethod
    def detect(
        cls, works: Callable[[Sequence[str]], bool] = _works, path: str | None = None
    ) -> "Launcher":
        """
        Find the helpers, and warn once when one is missing. Runs three short
        programs and waits for them: for the start of the daemon only.

        @param works: tells whether a prefix can run a program.
        @param path: where to look, by default the daemon's C{PATH}.
        @return: what to put in front of each child.
        """

        def found(program: str, *arguments: str) -> tuple[str, ...]:
            where = shutil.which(program, path=path)
            if where is None:
                return ()
            return (where, *arguments)

        death_signal = found("setpriv", "--pdeathsig", "KILL")
        own_group = found("setsid")
        change_directory = found("env", "-C")
        missing = []
        if not death_signal or not works(death_signal):
            death_signal = ()
            missing.append("setpriv --pdeathsig (children outlive a killed daemon)")
        if not own_group or not works(own_group):
            own_group = ()
            missing.append("setsid (processes started by a child may outlive it)")
        if not change_directory or not works((*change_directory, "/")):
            # $0 is the directory; exec keeps the process id.
            change_directory = ("/bin/sh", "-c", 'cd -- "$0" && exec "$@"')
        if missing:
            log.warn(
                "children run with less protection, missing on this host: {missing}",
                missing="; ".join(missing),
            )
        return cls(death_signal, own_group, change_directory)

    def command_line(self, directory: str, command: Sequence[str]) -> list[str]:
        """
        @param directory: where the child is to run.
        @param command: the child's program and arguments.
        @return: the arguments to execute; the first is an absolute path.
        @raise ChildCannotStart: there is no such program.
        """
        program = shutil.which(command[0])
        if program is None:
            raise ChildCannotStart(f"child program {command[0]} is not installed")
        return [
            *self.death_signal,
            *self.own_group,
            *self.change_directory,
            directory,
            # The working directory changes, so that the path must not be relative.
            os.path.abspath(program),
            *command[1:],
        ]


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
    kill_group: Callable[[int, int], None], group: int | None, number: int, name: str
) -> bool:
    """
    Send a signal to a child's process group. Right after the child was reaped its
    group id cannot have been reused: it is taken as long as a member lives, and
    nothing was started in between.

    @param kill_group: C{os.killpg}.
    @param group: the child's process id, C{None} where it has no group of its own.
    @param number: of the signal.
    @param name: of the child in the log.
    @return: whether somebody got it. Nobody does when all are gone, or when the child
        has had no time yet to make its group.
    """
    if group is None:
        return False
    try:
        kill_group(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        log.warn("child {child} changed its user", child=name)
        return False
    return True


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
