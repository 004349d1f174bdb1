"""
A parent that starts children as the daemon does, and is killed by a test.

Usage: C{python broker_like.py KIND...}; prints one process id per child.
"""

import os
import sys

from twisted.internet import reactor

from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.processes.ending import ChildEnd
from fjmcp_broker.sessions.processes.spawn import ChildSettings, Launcher
from fjmcp_broker.sessions.processes.transport import Spawner


class Quiet:
    """Starts the next child, or reports, when one has spoken."""

    def child_line(self, line: bytes) -> None:
        """Nothing to do."""

    def child_ended(self, end: ChildEnd) -> None:
        """Nothing to do."""


def main() -> None:
    """Start one child per argument and wait to be killed."""
    script = os.path.join(os.path.dirname(__file__), "bad_child.py")
    launcher = Launcher.detect()
    for kind in sys.argv[1:]:
        child = Child(
            spawner=Spawner(reactor),
            clock=reactor,
            launcher=launcher,
            settings=ChildSettings(
                command=(sys.executable, script, kind),
                forgejo_url="http://127.0.0.1",
            ),
            token=Secret("token"),
            observer=Quiet(),
            name=kind,
        )
        child.start()
        print(child.pid, flush=True)  # noqa: T201 - its only output
    reactor.run()


if __name__ == "__main__":
    main()
