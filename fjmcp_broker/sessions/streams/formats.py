"""What answers come in."""

from enum import Enum


class Formats(Enum):
    """
    What the client accepts as an answer.
    """

    JSON = "application/json"
    EVENTS = "text/event-stream"
    BOTH = "*/*"
