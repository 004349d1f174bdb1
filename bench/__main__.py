"""
C{python -m bench}: see docs/performance.md.
"""

import argparse
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import starting, suites
from bench.peers import PEERS
from bench.report import say
from bench.suites import Effort
from bench.targets import Broker, ModernBroker, Target
from fjmcp_broker.version import VERSION

ALONE = ("start", "memory", "sleeping")
COMPARED = ("throughput", "latency", "sizes")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument(
        "suites", nargs="*", help=f"some of {', '.join(COMPARED + ALONE)}; default all"
    )
    parser.add_argument("--peers", action="store_true", help="other bridges, too")
    parser.add_argument(
        "--peer", action="append", help="only peers with this in a name"
    )
    parser.add_argument(
        "--against", type=Path, help="another source tree of the broker, side by side"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    unknown = set(options.suites) - {*COMPARED, *ALONE}
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    return options


def _machine() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return (
        f"{model}, {os.cpu_count()} processors, Linux {platform.release()},"
        f" Python {platform.python_version()}, fjmcp-broker {VERSION}"
    )


def main() -> int:
    """
    Measure, and print tables.

    @return: the exit status.
    """
    options = _options()
    effort = Effort(options.rounds, options.seconds)
    say(_machine())
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="fjmcp-bench-"))
        )
        broker = Broker(directory / "broker")
        stack.callback(broker.stop)
        targets: list[Target] = [broker]
        if options.against is not None:
            other = Broker(
                directory / "against", name="against", root=options.against.resolve()
            )
            stack.callback(other.stop)
            targets.append(other)
            targets += [ModernBroker(broker), ModernBroker(other)]
        elif not options.peers:
            targets.append(ModernBroker(broker))
        else:
            for peer in PEERS:
                if options.peer and not any(p in peer.name for p in options.peer):
                    continue
                peer.install()
                target = peer.start(directory)
                stack.callback(target.stop)
                targets.append(target)
        wanted = options.suites
        if not wanted or set(wanted) & set(COMPARED):
            compared = [name for name in wanted if name in COMPARED]
            suites.side_by_side(targets, effort, compared)
        if not options.peers and options.against is None:
            alone = wanted or ALONE
            if "start" in alone:
                starting.start(broker, effort)
            if "memory" in alone:
                suites.memory(broker, (50, 200))
            if "sleeping" in alone:
                starting.sleeping(broker, effort)
    return 0


if __name__ == "__main__":
    sys.exit(main())
