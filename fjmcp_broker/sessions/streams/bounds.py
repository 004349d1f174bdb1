"""How long an answer may take, and how much of it may wait for its reader."""

from typing import Final

JSON_WINDOW_SECONDS: Final = 0.25
#: Behind Caddy 2.6 with C{flush_interval -1}, only the second write to a client that
#: has gone fails with HTTP/2, the fourth with HTTP/1.1: it is noticed within 16 s.
KEEPALIVE_SECONDS: Final = 4.0
#: Others wait for the same child meanwhile, and then for what it still has to say:
#: 5 s in all.
PAUSE_SECONDS: Final = 4.5
STALL_SECONDS: Final = 60.0
"""How long a reader may take nothing at all of the message being written."""

MAXIMUM_BUFFERED_BYTES: Final = 4 * 1024 * 1024

SLICE_BYTES: Final = 256 * 1024
"""What is written at once. More goes out as its client takes it."""
