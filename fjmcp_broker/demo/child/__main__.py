"""C{python -m fjmcp_broker.demo.child}."""

import sys

from fjmcp_broker.demo.child.program import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
