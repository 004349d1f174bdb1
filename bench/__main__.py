"""
C{python -m bench}: see docs/performance.md.
"""

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from bench import check, peers, starting, suites
from bench.kinds import kinds
from bench.memory import memory
from bench.report import Effort, say
from bench.scaling import scaling, shared
from bench.signing import COLLECTOR, signing
from bench.stalls import stalls
from bench.targets import Broker, ModernBroker, Target
from fjmcp_broker.version import VERSION

COMPARED: Final = ("throughput", "latency", "sizes")
ALONE: Final = (
    "children",
    "start",
    "memory",
    "sleeping",
    "scaling",
    "shared",
    "signing",
    "stalls",
)
SETTINGS: Final = {"FJMCP_BROKER_METRICS_ALLOW": COLLECTOR}
MEMORY_COUNTS: Final = (50, 200, 1000)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument(
        "suites", nargs="*", help=f"some of {', '.join(COMPARED + ALONE)}; default all"
    )
    parser.add_argument("--peers", action="store_true", help="other bridges, too")
    parser.add_argument(
        "--all-tables",
        action="store_true",
        help="every table of docs/performance.md, in less than a quarter of an hour",
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with limits: PASSED or FAILED"
    )
    parser.add_argument(
        "--peer", action="append", help="only peers with this in a name"
    )
    parser.add_argument(
        "--against", type=Path, help="another source tree of the broker, side by side"
    )
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="end after so long (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    unknown = set(options.suites) - {*COMPARED, *ALONE}
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    if options.all_tables:
        options.peers, options.rounds, options.seconds = True, 5, 1.0
    return options


def _machine() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{model}, {os.cpu_count()} processors, {memory_bytes / 2**30:.0f} GiB,"
        f" Linux {platform.release()}, Python {platform.python_version()},"
        f" {_node()}, fjmcp-broker {VERSION}"
    )


def _node() -> str:
    node = shutil.which("node")
    if node is None:
        return "no node"
    said = subprocess.run(  # noqa: S603 - only asked for its version
        [node, "--version"], capture_output=True, text=True, check=False
    )
    return f"node {said.stdout.strip()}"


def main() -> int:
    """
    Measure, and print tables.

    @return: the exit status.
    """
    options = _options()
    # Both leave through the stacks that end what was started.
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, 60 * options.minutes)
    with tempfile.TemporaryDirectory(prefix="fjmcp-bench-") as name:
        if options.check:
            return check.main(Path(name))
        say(_machine())
        began = time.monotonic()
        with ExitStack() as stack:
            _measure(options, Path(name), stack)
        say(f"\n{time.monotonic() - began:.0f} s in all")
    return 0


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _late(number: int, frame: object) -> None:
    raise SystemExit("the time that --minutes gives is over")


def _measure(options: argparse.Namespace, directory: Path, stack: ExitStack) -> None:
    effort = Effort(options.rounds, options.seconds)
    wanted = options.suites
    compared = [name for name in COMPARED if not wanted or name in wanted]
    alone = [name for name in ALONE if not wanted or name in wanted]
    broker = Broker(directory / "broker", settings=SETTINGS)
    stack.callback(broker.stop)
    if compared:
        with ExitStack() as others:
            targets: list[Target] = [broker]
            if options.against is not None:
                root = options.against.resolve()
                other = Broker(directory / "against", name="against", root=root)
                others.callback(other.stop)
                targets += [other, ModernBroker(broker), ModernBroker(other)]
            else:
                targets.append(ModernBroker(broker))
            if options.peers:
                child = broker.child
                names = options.peer or ()
                running = peers.start_all(directory, child, names=names)
                targets += running
                for peer in running:
                    others.callback(peer.stop)
            suites.side_by_side(targets, effort, compared)
    if options.against is not None or (options.peers and not options.all_tables):
        alone = [name for name in alone if name == "children" and options.peers]
    run: dict[str, Callable[[], None]] = {
        "children": partial(
            kinds, directory, effort, options.peer or (), options.peers
        ),
        "start": partial(starting.start, broker, effort),
        "memory": partial(memory, broker, MEMORY_COUNTS),
        "sleeping": partial(starting.sleeping, broker, effort),
        "scaling": partial(scaling, broker, directory, effort),
        "shared": partial(shared, broker),
        "signing": partial(signing, broker, effort),
        "stalls": partial(stalls, Broker, directory / "stalls", effort),
    }
    for name in alone:
        run[name]()


if __name__ == "__main__":
    sys.exit(main())
