"""
The performance check: ratios of one run, far enough from what is usual not to fail
because of what else the machine does, and a run with a broker that is twice as slow,
which has to fail. CPU time for a call is compared: a busy machine changes it little.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs

from bench.children import NotThere
from bench.load import run
from bench.memory import KIB, peaks
from bench.peers import PEERS
from bench.processes import NotReady
from bench.report import interleaved, middle, say
from bench.targets import Broker, Target, bare_target

ROUNDS: Final = 5
SECONDS: Final = 1.0
CONNECTIONS: Final = 16

USUAL_OVER_BARE: Final = 0.5
OVER_BARE: Final = 0.75
OVER_PEER: Final = 0.25
PEAK: Final = 3.0
EMPTY_MIB: Final = 68.0
SESSION_KIB: Final = 16.0

_BARE: Final = "a bare resource"
_BROKER: Final = "broker"
_SLOW: Final = "broker, twice as slow"
_SIZES: Final = (10 * 1024 * 1024, 50 * 1024 * 1024)
_SESSIONS: Final = 50


@attrs.frozen
class Limit:
    """
    What a figure may be.

    @ivar what: the figure.
    @ivar found: its value.
    @ivar limit: the highest that passes.
    """

    what: str
    found: float
    limit: float

    @property
    def is_kept(self) -> bool:
        """
        @return: whether it passes.
        """
        return self.found <= self.limit

    def line(self) -> str:
        """
        @return: for the summary.
        """
        word = "PASSED" if self.is_kept else "FAILED"
        return f"{word} performance: {self.what}: {self.found:.2f}, limit {self.limit}"


def main(directory: Path) -> int:
    """
    Measure, and print a line for each limit.

    @param directory: empty.
    @return: the exit status.
    """
    with ExitStack() as stack:
        broker = Broker(directory / "broker")
        stack.callback(broker.stop)
        found = [*_memory(broker), *_ratios(directory, broker, stack)]
    for limit in found:
        say(limit.line())
    return 0 if all(limit.is_kept for limit in found) else 1


def _ratios(directory: Path, broker: Broker, stack: ExitStack) -> list[Limit]:
    targets: dict[str, Target] = {_BROKER: broker}
    for make in (_bare, _peer):
        target = make(directory, broker.child)
        if target is not None:
            stack.callback(target.stop)
            targets[target.name] = target
    sessions: dict[str, dict[str, str]] = {}
    usual, bare = (_first(targets[name], sessions) for name in (_BROKER, _BARE))
    # Twice what it takes now; or what it usually takes, if it is faster by now.
    delay = max(usual, 2 * USUAL_OVER_BARE * bare - usual)
    slow = Broker(
        directory / "slow",
        name=_SLOW,
        settings={"BENCH_DELAY": f"{1000 * delay:.0f}"},
        is_wrapped=True,
    )
    stack.callback(slow.stop)
    targets[_SLOW] = slow
    for name, target in targets.items():
        sessions.setdefault(name, target.open_session())
    measured = interleaved(
        list(targets),
        ROUNDS,
        lambda name: run(targets[name], [sessions[name]], CONNECTIONS, SECONDS),
    )
    cpu = {
        name: [each.cpu_per_thousand for each in runs]
        for name, runs in measured.items()
    }
    for name, values in cpu.items():
        say(f"    {name}: CPU s for 1000 calls {', '.join(f'{v:.3f}' for v in values)}")
    return judged(cpu)


def _first(target: Target, sessions: dict[str, dict[str, str]]) -> float:
    sessions[target.name] = target.open_session()
    found = [
        run(target, [sessions[target.name]], CONNECTIONS, SECONDS) for _ in range(2)
    ]
    return min(each.cpu_per_thousand for each in found)


def judged(cpu: Mapping[str, Sequence[float]]) -> list[Limit]:
    """
    @param cpu: CPU seconds for 1000 calls of each target, round by round.
    @return: the limits on them. The last one is how far the slow broker is from the
        limit that it breaks most clearly, the other way round.
    """
    limits = []
    slow = []
    for name in cpu:
        if name in (_BROKER, _SLOW):
            continue
        limit = OVER_BARE if name == _BARE else OVER_PEER
        ours, twice = (_over(cpu[each], cpu[name]) for each in (_BROKER, _SLOW))
        limits.append(Limit(f"CPU time for a call, over that of {name}", ours, limit))
        slow.append(limit / twice)
    what = "a broker that is twice as slow is noticed: limit over what it takes"
    return [*limits, Limit(what, min(slow), 1.0)]


def _over(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return middle([a / b for a, b in zip(ours, theirs, strict=False)])


def _bare(directory: Path, child: Sequence[str]) -> Target:
    return bare_target(directory, _BARE)


def _peer(directory: Path, child: Sequence[str]) -> Target | None:
    """
    The first that can be had; one that is there already before one that would have to
    be fetched.
    """
    reasons = []
    # Of the two of this name, the one that needs no node is asked first.
    candidates = [peer for peer in reversed(PEERS) if peer.package == "mcp-proxy"]
    for peer in sorted(candidates, key=lambda peer: not peer.is_installed):
        try:
            peer.install()
            return peer.start(directory, child)
        except (NotThere, NotReady, OSError) as error:
            reasons.append(f"{peer.name}: {error}")
    say(f"SKIPPED performance: beside another bridge: {'; '.join(reasons)}")
    return None


def _memory(broker: Broker) -> list[Limit]:
    """Of a broker that has just started."""
    broker.restart()
    empty = broker.process.memory_kib()
    broker.close_session(broker.open_session())
    before = broker.process.memory_kib()
    opened = [broker.open_session() for _ in range(_SESSIONS)]
    each = (broker.process.memory_kib() - before) / _SESSIONS
    for headers in opened:
        broker.close_session(headers)
    limits = [
        Limit("resident memory, empty, MiB", empty / KIB, EMPTY_MIB),
        Limit("memory for each live session, KiB", each, SESSION_KIB),
    ]
    try:
        worst = peaks(broker, _SIZES, 2)
    except PermissionError:
        say("SKIPPED performance: peak memory: only root may set the peak back")
        return limits
    return [
        *limits,
        *(
            Limit(f"peak memory over a large answer, {name}", value, PEAK)
            for name, value in worst.items()
        ),
    ]
