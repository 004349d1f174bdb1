"""Collecting everything that is wrong with a configuration, to say it all at once."""

from collections.abc import Sequence

from fjmcp_broker.errors import BrokerError

from .keys import Key

_SHOWN_CHARACTERS = 80


class ConfigError(BrokerError):
    """The configuration cannot be used; the message lists every problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        """
        @param problems: one sentence each.
        """
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"fjmcp-broker: the configuration has {count}:"]
        super().__init__("\n".join(lines + [f"  - {problem}" for problem in problems]))
        self.problems = tuple(problems)


def shown(key: Key, text: object) -> str:
    """
    Repeat a value in a message where that is safe.

    @param key: the key it was given for.
    @param text: what the operator wrote.
    @return: C{, not 'text'}, or nothing for secrets, whatever might hold a
        password, and long texts.
    """
    if key.about.sensitive or not isinstance(text, str | int | float):
        return ""
    quoted = ascii(text)
    if len(quoted) > _SHOWN_CHARACTERS or "@" in quoted:
        return ""
    return f", not {quoted}"


class Problems:
    """What is wrong, in the order in which it was found."""

    def __init__(self) -> None:
        self._sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """
        @param sentence: a problem that belongs to no key.
        """
        self._sentences.append(sentence)

    def of_key(self, key: Key, what: object, where: str | None = None) -> None:
        """
        @param key: the key whose value is wrong or missing.
        @param what: the end of a sentence that begins with the key.
        @param where: the source of the value.
        """
        source = f" (given in {where})" if where else ""
        others = key.names.removeprefix(f"{key.file_key}, ")
        self.add(f"{key.file_key} {what}{source} [{others}]")

    @property
    def count(self) -> int:
        """How many there are so far."""
        return len(self._sentences)

    def check(self) -> None:
        """
        @raise ConfigError: if there was any problem.
        """
        if self._sentences:
            raise ConfigError(self._sentences)
