"""
How the stand-in child is told to misbehave. See L{fjmcp_broker.demo.child.program}.
"""

from collections.abc import Mapping

PREFIX = "STANDIN_CHILD_"


class Options:
    """
    The C{STANDIN_CHILD_} variables of one child.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """
        @param environment: the process's environment, controlled by the test.
        """
        self._environment = environment

    def text(self, name: str) -> str:
        """
        @param name: without the prefix.
        @return: the value, empty when unset.
        """
        return self._environment.get(PREFIX + name, "")

    def number(self, name: str, default: int = 0) -> int:
        """
        @return: a whole number, the default when unset.
        """
        return int(self.text(name) or default)

    def words(self, name: str) -> frozenset[str]:
        """
        @return: the comma-separated words of the value.
        """
        return frozenset(filter(None, self.text(name).split(",")))
