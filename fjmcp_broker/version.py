"""The version of this software: the one place that names it."""

from typing import Final

VERSION: Final = "0.1.0"
