"""
Everything that a child reads and writes, kept for a check after the run. Standard
library only: the children of the conformance runs import it.

One file per process, one JSON object per line: C{way} is C{read} or C{written}, from
the child's point of view, C{line} is the message's text as it was on the pipe.
"""

from __future__ import annotations

import json
import os
import threading
from typing import Final

READ: Final = "read"
WRITTEN: Final = "written"


class Recorder:
    """The record of one process."""

    def __init__(self, directory: str, name: str) -> None:
        """
        @param directory: where the file is made; it exists.
        @param name: of the kind of child, the start of the file's name.
        """
        path = f"{directory}/{name}-{os.getpid()}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._descriptor = os.open(path, flags, 0o600)
        self._lock = threading.Lock()

    def note(self, way: str, line: str) -> None:
        """
        Keep a line, before anything is done with it: what kills the process is in
        its record.

        @param way: C{READ} or C{WRITTEN}.
        """
        data = json.dumps({"way": way, "line": line}).encode() + b"\n"
        with self._lock:
            os.write(self._descriptor, data)
