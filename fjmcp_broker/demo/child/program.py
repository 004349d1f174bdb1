"""
A stand-in for C{forgejo-mcp --transport stdio}, for the demo and the tests.

Started as C{python -m fjmcp_broker.demo.child --transport stdio} it does what
forgejo-mcp does: it asks the Forgejo at C{FORGEJO_URL} who the owner of
C{FORGEJO_ACCESS_TOKEN} is before it reads stdin, and exits with 1 and an empty
stdout when that fails. It negotiates the protocol revisions 2024-11-05 to
2025-11-25, runs calls in five threads so that answers come out of order, reports
a failed tool as JSON-RPC error -32603, writes coloured records of several lines
to stderr, and after the end of stdin finishes what runs and exits with 0. It
takes member names in any case, as Go's JSON decoder does.

Only the standard library is imported, and as little of it as possible: tests
start it a thousand times.

With C{STANDIN_CHILD_ERA} C{dual} it speaks 2026-07-28 too, with C{modern} nothing else.

It misbehaves on request. The variables, each with the prefix C{STANDIN_CHILD_}:

  - C{NO_API}: do not ask Forgejo at start.
  - C{START_DELAY_SECONDS}: wait before anything else.
  - C{HANG}: comma-separated: C{start} (for ever, before Forgejo is asked),
    C{initialize} (read it, never answer), or names of tools that never answer.
  - C{PANIC_NULL}: names of tools that answer with an error whose id is null.
  - C{PANIC_EXIT}: names of tools that end the process with a stack trace.
  - C{ECHO_TOKEN}: names of tools that fail with the token in the text, on
    stdout and on stderr.
  - C{CRASH}: C{before-initialize} or C{after-initialize}.
  - C{EXIT_CODE}: of those crashes; 2 by default.
  - C{IGNORE}: C{eof}, C{term} or both: do not stop then.
  - C{FLOOD_STDERR_BYTES}: written to stderr before stdin is read.
  - C{JUNK}: a line that is no message, written to stdout at start.
  - C{READ_BYTES_PER_SECOND}: read stdin that slowly.
  - C{WRITE_PIECE_BYTES}: write stdout in pieces of that size.
  - C{WRITTEN_FILE}: path of a file that always holds the number of bytes written
    to stdout, in 20 digits.
  - C{TOOLS_BYTES}: make the answer of C{tools/list} at least that long.
  - C{NEW_TOOL}: name of one more tool, announced by C{list_changed} after
    C{notifications/initialized}.
  - C{HONOUR_CANCEL}: a cancelled C{slow} ends at once, as in forgejo-mcp 2.34.
  - C{LEDGER}: path of a file; one line of JSON for every C{tools/call}, with
    C{name}, C{id}, C{key} (the argument of that name) and C{pid}.
  - C{STEPS}: path of a directory; see L{fjmcp_broker.demo.child.steps}.
"""

import os
import signal
import threading
import time

from fjmcp_broker.demo.child.api import ForgejoApi, ForgejoError
from fjmcp_broker.demo.child.options import Options
from fjmcp_broker.demo.child.server import Server
from fjmcp_broker.demo.child.wire import log, write_stderr

USAGE = (
    "Usage of fjmcp-standin-child:\n"
    '  -transport string\n    \tTransport type (default "stdio")\n'
    "  -url string\n    \tForgejo instance URL\n"
)


def main(arguments: list[str]) -> int:
    """
    @param arguments: of the command line, without the program.
    @return: the exit code.
    """
    descriptors = open_descriptors()
    if arguments[:1] in (["--version"], ["version"]):
        # Imported here because it needs more than the standard library.
        from fjmcp_broker.version import VERSION

        os.write(1, f"fjmcp-standin-child {VERSION}\n".encode())
        return 0
    if "--help" in arguments or "-h" in arguments:
        write_stderr(USAGE.encode())
        return 0
    for word in arguments[::2]:
        if word not in ("--transport", "-t", "--url"):
            write_stderr(f"flag provided but not defined: {word}\n{USAGE}".encode())
            return 2
    # As a Go program: a closed stdout or stderr kills it.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    options = Options(os.environ)
    time.sleep(float(options.text("START_DELAY_SECONDS") or 0))
    url = given.get("--url") or os.environ.get("FORGEJO_URL", "")
    if not url.startswith(("http://", "https://")):
        log("FATAL", f'Invalid URL configuration\t{{"url": "{url}"}}')
        return 1
    log("INFO", "Starting Forgejo MCP Server (stand-in)")
    if "start" in options.words("HANG"):
        threading.Event().wait()
    token = os.environ.get("FORGEJO_ACCESS_TOKEN", "")
    agent = os.environ.get("FORGEJO_USER_AGENT") or "forgejo-mcp/stand-in"
    api = ForgejoApi(url, token, agent)
    if not options.text("NO_API"):
        try:
            api.call("GET", "/version")
            api.call("GET", "/user")
        except ForgejoError as error:
            log("ERROR", f'Connection verification failed\t{{"error": "{error}"}}')
            log("FATAL", f"connection test failed: {error}")
            return 1
    log("INFO", "MCP server ready for stdio communication")
    Server(options, api, token, descriptors).run()
    return 0


def open_descriptors() -> list[int]:
    """
    @return: the open file descriptors, without the one that reading them needs.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue
        found.append(int(name))
    return sorted(found)
