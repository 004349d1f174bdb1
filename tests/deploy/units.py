"""
What the tests of units and containers have in common: programs, waiting, what systemd
says. It needs no more than what comes with Python and Debian's own attrs.

As an unprivileged user everything is asked of that user's own systemd.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tests.real.browser import Browser
from tests.real.client import McpClient

SERVICE: Final = "fjmcp-broker.service"
URL: Final = "http://127.0.0.1:8080"
FORGEJO_ADDRESS: Final = "192.0.2.10"
"""On the loopback interface outside of a container, no loopback address inside."""

TOOL: Final = "get_my_user_info"
SECONDS: Final = 60.0
MANAGER: Final = ("--user",) if os.getuid() else ()
"""Which systemd: the argument of its programs."""


def run(*command: str, errors: bool = True) -> str:
    """
    @param command: a program and its arguments.
    @param errors: whether to return what it says on standard error, too.
    @return: what it printed.
    @raise AssertionError: it failed.
    """
    done = subprocess.run(  # noqa: S603 - commands of these tests
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if errors else subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        said = done.stdout + (done.stderr or "")
        raise AssertionError(f"{command}: {done.returncode}\n{said}")
    return done.stdout


def systemctl(*arguments: str) -> str:
    """
    @return: what it printed.
    @raise AssertionError: it failed.
    """
    return run("systemctl", *MANAGER, *arguments)


def shown(what: str, unit: str = SERVICE) -> str:
    """
    @return: a property of a unit.
    """
    return systemctl("show", "--value", f"--property={what}", unit).strip()


def journal(unit: str = SERVICE) -> str:
    """
    @return: what the service has logged.
    """
    which = ("--boot", "--unit", unit)
    return run("journalctl", *MANAGER, *which, "--no-pager", "--output=cat")


def until(
    condition: Callable[[], object],
    what: str,
    seconds: float = SECONDS,
    log: Callable[[], str] = journal,
) -> None:
    """
    Wait for something.

    @param what: to say when it does not come true.
    @param log: what to show then.
    @raise AssertionError: it did not come true.
    """
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"{what}\n{log()[-4000:]}")
        time.sleep(0.05)


def answers(url: str = URL) -> bool:
    """
    @return: whether a broker is ready.
    """
    try:
        browser = Browser(timeout_seconds=2)
        return browser.request("GET", f"{url}/readyz").status == 200
    except OSError:
        return False


def instance() -> str:
    """
    @return: which process answers; nothing when none does.
    """
    try:
        browser = Browser(timeout_seconds=2)
        text = browser.request("GET", f"{URL}/healthz").text
    except OSError:
        return ""
    return str(json.loads(text)["instance"])


def works(client: McpClient, login: str = "alice") -> None:
    """
    Assert that a client's tokens and session answer, with its own user's name.
    """
    client.browser = Browser(timeout_seconds=SECONDS)
    said = json.dumps(client.call(TOOL))
    assert login in said, said


def ended_by_terminal(*command: str, **environment: str) -> str:
    """
    Run a broker in the foreground until it is ready, and end it as Ctrl-C does.

    @param command: a program and its arguments.
    @param environment: further variables.
    @return: what it printed.
    @raise AssertionError: it did not get ready.
    """
    with tempfile.TemporaryFile("w+") as output:
        running = subprocess.Popen(  # noqa: S603 - commands of these tests
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

        def said() -> str:
            output.seek(0)
            return output.read()

        try:
            until(lambda: answers() or running.poll() is not None, "", log=said)
            assert running.poll() is None, said()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGINT)
            running.wait(60)
        return said()
