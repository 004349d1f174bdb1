"""
All of it, in the order in which one thing depends on another.
"""

from collections.abc import Iterator, Mapping

from fjmcp_broker.config.load import load
from fjmcp_broker.config.problems import ConfigError

from .broker import BrokerChecks
from .findings import Finding, failed, ok, warning
from .forgejo import ForgejoChecks
from .machine import MachineChecks


def examine(
    path: str | None, environment: Mapping[str, str], timeout_seconds: float
) -> Iterator[Finding]:
    """
    Look at everything. Blocks, and changes nothing.

    @param path: of the configuration file, or C{None}.
    @param environment: the variables that the daemon has.
    @param timeout_seconds: for each step of each request.
    @return: what there is to say, as it is found.
    """
    try:
        loaded = load(path, environment)
    except ConfigError as error:
        for problem in error.problems:
            yield failed("configuration", problem, "See docs/configuration.md.")
        return
    if not loaded.warnings:
        yield ok("configuration", "it can be used")
    for sentence in loaded.warnings:
        yield warning("configuration", sentence, "See docs/configuration.md.")
    yield from MachineChecks(loaded.config, timeout_seconds).run()
    yield from ForgejoChecks(loaded.config, timeout_seconds).run()
    yield from BrokerChecks(loaded.config.server, timeout_seconds).run()
