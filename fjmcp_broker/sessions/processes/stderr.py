"""What a child says on its standard error: bounded, readable, without its token."""

import re
from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

_ANSI: Final = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])"
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
REDACTED: Final = b"[redacted]"


class StderrLines:
    """
    Splits a child's standard error into clean lines.

    A line longer than the limit is cut there and its rest dropped. Escape sequences
    and control characters are taken out, so that a child can neither colour nor
    rewrite an operator's terminal, and secrets are replaced before anything is cut
    (half a token is still half a secret).
    """

    def __init__(self, secrets: tuple[bytes, ...], maximum_bytes: int = 2048) -> None:
        """
        @param secrets: byte strings that must not appear; empty ones are ignored.
        @param maximum_bytes: longest line that comes out.
        """
        self._secrets = tuple(secret for secret in secrets if secret)
        self._maximum = maximum_bytes
        # A secret that straddles the limit must still be seen as a whole.
        self._longest = max(map(len, self._secrets), default=0)
        self._kept = maximum_bytes + self._longest
        self._partial = b""

    def receive(self, data: bytes) -> list[str]:
        """
        @param data: the next bytes, cut anywhere; the child controls them.
        @return: the lines completed by them, without line ends or empty lines.
        """
        *complete, rest = data.split(b"\n")
        lines = []
        for piece in complete:
            lines.append(self._clean(self._partial + piece[: self._kept]))
            self._partial = b""
        self._partial = (self._partial + rest[: self._kept])[: self._kept]
        return [line for line in lines if line]

    def finish(self) -> list[str]:
        """
        @return: the unfinished last line, if any: the child has ended.
        """
        line, self._partial = self._clean(self._partial), b""
        return [line] if line else []

    def _clean(self, raw: bytes) -> str:
        was_cut = len(raw) >= self._kept
        raw = _ANSI.sub(b"", raw)
        for secret in self._secrets:
            raw = raw.replace(secret, REDACTED)
        if was_cut and self._longest:
            raw = raw[: -self._longest]  # where the first half of one may stand
        text = raw[: self._maximum].decode("utf-8", "replace")
        return _CONTROL.sub(" ", text).strip()


class LineBudget:
    """
    Decides which of a child's lines are logged: bursts pass, floods do not.

    A token bucket; lines beyond it are counted, and the count is given out with the
    next line that passes.
    """

    def __init__(
        self, now: Callable[[], float], burst: int = 50, per_second: float = 5.0
    ) -> None:
        """
        @param now: the current time in seconds.
        @param burst: how many lines may pass at once.
        @param per_second: how many pass in the long run.
        """
        self._now = now
        self._burst = float(burst)
        self._per_second = per_second
        self._left = float(burst)
        self._at = now()
        self._suppressed = 0

    def allow(self) -> bool:
        """
        @return: whether to log one line now.
        """
        now = self._now()
        self._left = min(
            self._burst, self._left + max(0.0, now - self._at) * self._per_second
        )
        self._at = now
        if self._left < 1.0:
            self._suppressed += 1
            return False
        self._left -= 1.0
        return True

    def take_suppressed(self) -> int:
        """
        @return: how many lines were refused since this was asked last.
        """
        count, self._suppressed = self._suppressed, 0
        return count


class StderrLog:
    """
    Puts a child's standard error into the log, and keeps its last line.
    """

    log = Logger()

    def __init__(
        self, name: str, secrets: tuple[bytes, ...], now: Callable[[], float]
    ) -> None:
        """
        @param name: short name of the child for the log.
        @param secrets: byte strings that must not appear.
        @param now: the current time in seconds.
        """
        self._name = name
        self._lines = StderrLines(secrets)
        self._budget = LineBudget(now)
        self.last_line = ""

    def receive(self, data: bytes) -> None:
        """
        @param data: the next bytes.
        """
        self._said(self._lines.receive(data))

    def finish(self) -> None:
        """
        The child has ended.
        """
        self._said(self._lines.finish())
        self._report_suppressed()

    def _said(self, lines: list[str]) -> None:
        for line in lines:
            self.last_line = line
            if self._budget.allow():
                self._report_suppressed()
                self.log.info("child {child}: {line}", child=self._name, line=line)

    def _report_suppressed(self) -> None:
        count = self._budget.take_suppressed()
        if count:
            self.log.info(
                "child {child}: {count} lines left out", child=self._name, count=count
            )
