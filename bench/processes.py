"""
Processes under measurement: how much CPU time and memory they take, from /proc.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")


class NotReady(Exception):  # noqa: N818 - it says what happened
    """A program did not do what was waited for."""


def free_port() -> int:
    """
    @return: a loopback TCP port that was free a moment ago.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(is_so: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """
    Wait for a condition.

    @param is_so: the condition.
    @param what: it is, for the error.
    @param seconds: how long it may take.
    @raise NotReady: it took longer.
    """
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise NotReady(what)
        time.sleep(0.01)


def listens(port: int) -> bool:
    """
    @param port: on loopback.
    @return: whether somebody accepts connections there.
    """
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def load_average() -> float:
    """
    @return: how many processes wanted a processor, over the last minute.
    """
    return os.getloadavg()[0]


def child_count(pid: int) -> int:
    """
    @param pid: of a process with one thread that starts others.
    @return: how many children it has.
    """
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(len((thread / "children").read_text().split()) for thread in threads)


def memory_of(pid: int, name: str) -> int:
    """
    @param pid: of a process.
    @param name: a line of C{smaps_rollup}.
    @return: KiB; 0 where the system does not tell.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) if found else 0


class Process:
    """
    A program that runs until L{stop}.

    @ivar log: what it writes, in a file.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """
        @param arguments: the program and its arguments.
        @param log: a file for what it writes.
        @param environment: added to PATH, HOME and LANG; nothing else is inherited.
        @param directory: where it runs.
        """
        self.log = log
        inherited = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "LANG")
            if name in os.environ
        }
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - it is what is measured
                list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**inherited, **(environment or {})},
                cwd=directory,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def is_running(self) -> bool:
        """
        @return: whether it has not ended.
        """
        return self._process.poll() is None

    def cpu_seconds(self) -> float:
        """
        @return: the CPU time that it has used itself, without its children.
        """
        text = Path(f"/proc/{self.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_kib(self, name: str = "VmRSS") -> int:
        """
        @param name: C{VmRSS}, or C{VmHWM}: the most since L{forget_peak}.
        @return: KiB that it has in memory.
        """
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise NotReady(f"no {name} of {self.pid}")

    def forget_peak(self) -> bool:
        """
        Count C{VmHWM} from here on.

        @return: whether the system lets us: only root, for a process that protects its
            memory.
        """
        try:
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        except PermissionError:
            return False
        return True

    def until_listening(self, port: int) -> None:
        """
        @param port: where it is going to listen.
        @raise NotReady: it ended, or took too long.
        """

        def is_there() -> bool:
            if not self.is_running:
                raise NotReady(f"it ended: {self.last_words()}")
            return listens(port)

        until(is_there, "it does not listen")

    def last_words(self) -> str:
        """
        @return: the end of its log.
        """
        return self.log.read_text(errors="replace").strip()[-400:]

    def stop(self) -> None:
        """End it and all that it has started in its session."""
        if self.is_running:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(15)
