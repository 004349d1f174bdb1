"""
Where a test may halt the stand-in child: the steps of the protocol, one by one.

The directory C{STANDIN_CHILD_STEPS} holds a file for each step that somebody waits
for: C{STEP}, or C{STEP@NAME} for the child of the client that calls itself so. A child
that reaches the step takes the file: it becomes C{STEP@NAME.PID}, and the child goes no
further until that file is gone. Only one child takes a file.

  - C{initialize}: read, not answered.
  - C{initialized}: C{initialize} is answered, C{notifications/initialized} not read.
  - C{tools/list}: read, not answered; its slash is a hyphen.
  - C{TOOL.before} and C{TOOL.after}: a call that is read and in the ledger, and the
    same when Forgejo has answered.
  - C{shutdown}: standard input has ended or a signal has come.
"""

import os
import time
from contextlib import suppress
from typing import Final

from fjmcp_broker.demo.child.options import Options

LOOK_SECONDS: Final = 0.01


class Steps:
    """
    The steps of one child.

    @ivar client: what its client calls itself, empty before C{initialize}.
    """

    def __init__(self, options: Options) -> None:
        """
        @param options: name the directory, if any.
        """
        self._directory = options.text("STEPS")
        self.client = ""

    def reach(self, step: str) -> None:
        """
        Go on, or halt for as long as a test wants.

        @param step: one of those above.
        """
        if not self._directory:
            return
        step = step.replace("/", "-")
        for asked in (step, f"{step}@{self.client}"):
            taken = f"{self._directory}/{step}@{self.client}.{os.getpid()}"
            with suppress(FileNotFoundError):
                os.rename(f"{self._directory}/{asked}", taken)
                while os.path.exists(taken):
                    time.sleep(LOOK_SECONDS)
