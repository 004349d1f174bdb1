"""
Writes what is made from the table of keys.

C{python -m fjmcp_broker.config PAGE EXAMPLE}
"""

import sys
from pathlib import Path

from .render import documentation_page, example_file

if __name__ == "__main__":
    page, example = sys.argv[1:]
    Path(page).write_text(documentation_page(), encoding="utf-8")
    Path(example).write_text(example_file(), encoding="utf-8")
