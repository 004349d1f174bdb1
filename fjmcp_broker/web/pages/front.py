"""
The page at C{/}: what this service is, and how to connect each known client.
"""

from twisted.web.iweb import IRequest

from fjmcp_broker.web.pages.connecting import HowTo, Kind, known_clients
from fjmcp_broker.web.pages.html import Content, Html, element
from fjmcp_broker.web.pages.page import answer_page, render

_TITLES = {
    Kind.APPLICATION: "Assistants",
    Kind.EDITOR: "Editors",
    Kind.TERMINAL: "In a terminal",
    Kind.OTHER: "Anything else",
}


class FrontPage:
    """
    C{/}. It is the same for everybody, so it is made once.
    """

    def __init__(self, public_url: str, forgejo_url: str) -> None:
        """
        @param public_url: the issuer, an origin without trailing slash.
        @param forgejo_url: where people use Forgejo.
        """
        self._document = _front_page(public_url, forgejo_url)

    async def show(self, request: IRequest) -> bytes:
        """
        @param request: GET of C{/}.
        @return: the page.
        """
        return answer_page(request, self._document)


def _front_page(public_url: str, forgejo_url: str) -> bytes:
    mcp_url = f"{public_url}/mcp"
    forgejo = element("a", forgejo_url, href=forgejo_url)
    clients: list[Content] = []
    for kind, title in _TITLES.items():
        of_kind = [each for each in known_clients(mcp_url) if each.kind is kind]
        clients += [element("h2", title), *_group(of_kind)]
    return render(
        "Forgejo for AI applications",
        element(
            "p",
            "This service lets AI applications work with ",
            forgejo,
            " through MCP, the Model Context Protocol.",
        ),
        element(
            "ul",
            element(
                "li",
                "You sign in through Forgejo. Your password stays there, and there is "
                "no token to copy.",
            ),
            element(
                "li",
                "An application can do what you can do, and no more. You may allow it "
                "to read only.",
            ),
        ),
        element("h2", "Address of the server"),
        element("pre", mcp_url, class_="address"),
        element(
            "p",
            "Give this address to your application. It finds out the rest by itself "
            "and opens a browser for you to sign in. No client id, secret or key "
            "is needed. One click selects an address or a command here as a whole.",
            class_="soft",
        ),
        *clients,
    )


def _group(clients: list[HowTo]) -> list[Html]:
    last = len(clients) - 1
    shown = []
    for number, client in enumerate(clients):
        classes = [
            *(["first"] if number == 0 else []),
            *(["last"] if number == last else []),
        ]
        content = (element("summary", client.name), *client.steps)
        kept = {"class_": " ".join(classes)} if classes else {}
        shown.append(element("details", *content, **kept))
    return shown
