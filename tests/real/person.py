"""
Somebody at a browser, as a program: opens the address it is given, signs in with
C{DEMO_LOGIN} and C{DEMO_PASSWORD}, and goes back to where the client waits.
"""

from __future__ import annotations

import os
import sys
from urllib.parse import parse_qs, urlsplit

from tests.real.browser import Browser, sign_in


def main() -> None:
    """
    Follow the address on the command line.
    """
    url = sys.argv[1]
    back = parse_qs(urlsplit(url).query)["redirect_uri"][0]
    browser = Browser()
    login, password = os.environ["DEMO_LOGIN"], os.environ["DEMO_PASSWORD"]
    returned = sign_in(browser, url, back, login, password)
    browser.request("GET", returned)


if __name__ == "__main__":
    main()
