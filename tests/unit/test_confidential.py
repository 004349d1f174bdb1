"""Records never show a secret, whoever prints them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import msgspec
from msgspec.structs import fields
from twisted.trial.unittest import SynchronousTestCase

import fjmcp_broker
from fjmcp_broker.config.sources import Given
from fjmcp_broker.demo.forgejo.state import Code
from fjmcp_broker.demo.forgejo.world import Issue
from fjmcp_broker.oauth.token_request import CodeRequest
from fjmcp_broker.secret import Confidential
from fjmcp_broker.upstream.answers import Answer
from fjmcp_broker.web.errors import ErrorAnswer
from fjmcp_broker.web.heads import Head
from fjmcp_broker.web.pages.html import element

WORDS = {
    "access_token",
    "carried",
    "client_secret",
    "code",
    "cookie",
    "env",
    "id_token",
    "password",
    "proxy",
    "refresh_token",
    "request_state",
    "secret",
    "session_id",
    "state",
    "token",
    "verifier",
}
"""Names of fields whose text is a secret."""

OTHERWISE = {(ErrorAnswer, "code"), (Issue, "state")}
"""Those that mean something else: the name of an error, open or closed."""


def records() -> Iterator[type[msgspec.Struct]]:
    """
    @return: every record of the package.
    """
    for module in walk_packages(fjmcp_broker.__path__, "fjmcp_broker."):
        if not module.name.endswith("__main__"):
            for value in vars(import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, msgspec.Struct):
                    yield value


def is_text(annotation: Any) -> bool:
    """
    @param annotation: of a field.
    @return: whether it can hold plain text: C{Secret} and other records cannot.
    """
    names = str(getattr(annotation, "__args__", annotation))
    return any(name in names for name in ("str", "bytes", "Raw"))


class ConfidentialTests(SynchronousTestCase):
    """What a record says about itself."""

    def test_every_record_with_a_secret(self) -> None:
        """A record with the text of a secret keeps its values to itself."""
        open_ones = {
            f"{record.__module__}.{record.__name__}.{field.name}"
            for record in records()
            if not issubclass(record, Confidential)
            for field in fields(record)
            if field.name in WORDS
            and is_text(field.type)
            and (record, field.name) not in OTHERWISE
        }
        self.assertEqual(open_ones, set())

    def test_what_holds_a_secret_among_other_text(self) -> None:
        """
        Forgejo's answers, the heads of requests, forms, values on their way from the
        file: their fields have no name that says what is in them.
        """
        line = (b"POST", b"/mcp", b"HTTP/1.1")
        for record in (
            Answer(200, b'{"access_token":"hidden"}'),
            Code("hidden", 1, "https://a.example/cb"),
            Given("the file", {"KEY": "hidden"}),
            Head(line, {b"Authorization": [b"Bearer hidden"]}),
            element("input", name="token", value="hidden"),
        ):
            self.assertNotIn("hidden", repr(record))

    def test_it_shows_nothing(self) -> None:
        """Neither by itself nor within another record; it still compares."""
        request = CodeRequest("hidden-code", "hidden-verifier", "https://a.example/cb")
        self.assertEqual(repr(request), "<CodeRequest>")
        self.assertNotIn("hidden", f"{[request]} {request!s} {request}")
        self.assertEqual(request, CodeRequest(*msgspec.structs.astuple(request)))
