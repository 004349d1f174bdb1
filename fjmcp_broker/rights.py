"""
What a grant may do: the names that signing in and relaying have in common.
"""

from enum import StrEnum, unique


@unique
class Scope(StrEnum):
    """
    What this broker can enforce itself. Forgejo's own scopes come from the
    configuration and are frozen at a user's first consent.
    """

    READ = "read"
    WRITE = "write"


@unique
class Policy(StrEnum):
    """
    What a grant may do. The values are those of the C{grants.policy} column.

    @cvar FULL: whatever the person may.
    @cvar READ_ONLY: the person chose so; writing tools are not even shown.
    @cvar READ_ONLY_REQUESTED: the client asked for no more: writing tools are listed,
        a call of one answers C{insufficient_scope}, so that the client can step up.
    """

    FULL = "full"
    READ_ONLY = "read-only"
    READ_ONLY_REQUESTED = "read-only-requested"


def hides_writing(policy: str) -> bool:
    """
    @param policy: a value of L{Policy}.
    @return: whether lists of tools leave out those that write.
    """
    return policy == Policy.READ_ONLY


def allows_as_much(policy: str, other: str) -> bool:
    """
    @param policy: a value of L{Policy}; any other counts as read-only.
    @param other: likewise, but any other counts as full.
    @return: whether a grant with the first may do all that one with the other may. A
        client that steps up goes on with what it has begun; nothing goes the other way.
    """
    reading = (Policy.READ_ONLY, Policy.READ_ONLY_REQUESTED)
    return policy == Policy.FULL or other in reading
