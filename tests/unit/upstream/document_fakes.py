"""A small real thing in the place of the Internet."""

import json

from twisted.internet.defer import Deferred

from fjmcp_broker.oauth.document_cache import CacheHeaders
from fjmcp_broker.upstream.document_http import Admit, DocumentError, FetchedBody


class SmallFetcher:
    """
    Knows one good document for every URL, and gives it when it is told to.
    """

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.addresses: list[str] = []
        self.waiting: list[Deferred[None]] = []
        self.is_slow = False
        self.error: DocumentError | None = None
        self.headers = CacheHeaders(["max-age=600"])
        self.name: object = "App"
        self.redirect_uris: object = ["https://app.example.com/callback"]
        self.changes: dict[str, object] = {}

    async def fetch(self, url: str, admit: Admit) -> FetchedBody:
        """As the real one."""
        for address in self.addresses:
            admit(address)
        self.fetched.append(url)
        if self.is_slow:
            waiting: Deferred[None] = Deferred()
            self.waiting.append(waiting)
            await waiting
        if self.error is not None:
            raise self.error
        document = {
            "client_id": url,
            "client_name": self.name,
            "redirect_uris": self.redirect_uris,
            **self.changes,
        }
        return FetchedBody(json.dumps(document).encode(), self.headers)

    def answer(self) -> None:
        """Let the slow ones go on."""
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)
