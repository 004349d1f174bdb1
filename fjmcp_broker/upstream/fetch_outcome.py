"""
What may come of fetching a client's metadata document. Metrics name it before any is
fetched.
"""

from enum import StrEnum, unique


@unique
class FetchOutcome(StrEnum):
    """
    What came of a fetch.

    @cvar OK: a document.
    @cvar UNREACHABLE: nothing; it may be otherwise in a moment.
    @cvar UNUSABLE: nothing that can be used, or from nowhere that may be asked.
    @cvar LIMITED: nobody was asked, because of our own limits.
    """

    OK = "ok"
    UNREACHABLE = "unreachable"
    UNUSABLE = "unusable"
    LIMITED = "limited"
