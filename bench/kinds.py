"""
Real children behind the same bridges.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench import peers
from bench.children import (
    EVERYTHING_ECHO,
    VERSION,
    NotThere,
    Tool,
    everything,
    forgejo_mcp,
    with_environment,
)
from bench.report import Effort, say, title
from bench.suites import compare
from bench.targets import Broker, Target

KINDS: Final[Mapping[str, tuple[Callable[[], tuple[str, ...]], Tool]]] = {
    "forgejo-mcp 2.18.0": (forgejo_mcp, VERSION),
    "server-everything": (everything, EVERYTHING_ECHO),
}


def kinds(
    directory: Path, effort: Effort, names: Sequence[str], with_peers: bool
) -> None:
    """
    16 connections on one session, with each kind of child.

    @param directory: for files of all targets.
    @param effort: how long.
    @param names: of peers, parts; all if there are none.
    @param with_peers: whether other bridges are measured, too.
    """
    for name, (command, tool) in KINDS.items():
        title(f"child: {name}, 16 connections on one session")
        try:
            child = command()
        except NotThere as reason:
            say(f"SKIPPED {name}: {reason}")
            continue
        place = directory / name.replace(" ", "-")
        with ExitStack() as stack:
            broker = Broker(place, child=child, tool=tool)
            stack.callback(broker.stop)
            targets: list[Target] = [broker]
            if with_peers:
                other = with_environment(child, broker.forgejo_environment)
                running = peers.start_all(place, other, tool, names)
                targets += running
                for peer in running:
                    stack.callback(peer.stop)
            compare(targets, effort, sessions=1, connections=16)
