"""
The sign-in side of the service in memory: its site, a browser, a small Forgejo.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import unescape
from html.parser import HTMLParser
from sqlite3 import Connection
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import attrs
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from fjmcp_broker.oauth.tokens import code_challenge
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.upstream.documents import MetadataDocuments
from fjmcp_broker.upstream.interfaces import IUpstreamTokens
from fjmcp_broker.web.app import Route, build_web_resource
from fjmcp_broker.web.oauth.authorize import AuthorizeEndpoint
from fjmcp_broker.web.oauth.callback import CallbackEndpoint
from fjmcp_broker.web.oauth.carried import CarriedRequests
from fjmcp_broker.web.oauth.clients import ClientDirectory
from fjmcp_broker.web.oauth.consent import ConsentEndpoint
from fjmcp_broker.web.oauth.cookies import BrowserCookies
from fjmcp_broker.web.oauth.departure import Departure
from fjmcp_broker.web.oauth.outcomes import Outcomes
from fjmcp_broker.web.oauth.register import RegisterEndpoint
from fjmcp_broker.web.origins import OriginPolicy
from fjmcp_broker.web.pages.consent import ConsentPage
from fjmcp_broker.web.pages.front import FrontPage
from fjmcp_broker.web.routes import sign_in_routes
from tests.unit.store.memory import NOW, memory_database
from tests.unit.upstream.document_fakes import SmallFetcher
from tests.unit.web.sign_in_fakes import (
    FORGEJO_URL,
    CountingBytes,
    SmallUpstream,
    forgejo_authorize_url,
)

T = TypeVar("T")

PUBLIC_URL = "https://mcp.example.org"
WEB_REDIRECT = "https://claude.ai/api/mcp/auth_callback"
VERIFIER = "client-verifier-" + "v" * 40
CHALLENGE = code_challenge(VERIFIER)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.buttons: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = values["action"]
        elif tag == "input":
            self.fields[values["name"]] = values["value"]
        elif tag == "button":
            self.buttons.append(values["value"])


@attrs.frozen
class Answer:
    """
    An HTTP answer, and what a test wants to know of it.
    """

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        """
        @return: the one value of a header, or nothing.
        """
        values = self.headers.getRawHeaders(name) or [""]
        assert len(values) == 1, values
        return values[0]

    @property
    def text(self) -> str:
        """
        @return: the body.
        """
        return self.body.decode("utf-8")

    @property
    def target_host(self) -> str:
        """
        @return: where the access goes, as the consent page has it in large type.
        """
        (large,) = re.findall('<p class="host">(.*?)</p>', self.text)
        return unescape(re.sub("<[^>]*>", "", large))

    @property
    def location(self) -> str:
        """
        @return: where it redirects to.
        """
        return self.header("Location")

    @property
    def query(self) -> dict[str, str]:
        """
        @return: parameters of the redirect.
        """
        pairs = parse_qsl(urlsplit(self.location).query, True, True)
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    @property
    def cookies(self) -> list[str]:
        """
        @return: the C{Set-Cookie} headers.
        """
        return list(self.headers.getRawHeaders("Set-Cookie") or [])

    @property
    def form(self) -> _Forms:
        """
        @return: the form on the page.
        """
        parser = _Forms()
        parser.feed(self.text)
        return parser


class Site:
    """
    Everything of the sign-in side, wired as the composition root does.
    """

    def __init__(
        self,
        test: SynchronousTestCase,
        *,
        public_url: str = PUBLIC_URL,
        has_documents: bool = True,
        wrap: Callable[[Database], Database] = lambda database: database,
        guard: Callable[[tuple[Route, ...]], tuple[Route, ...]] = lambda routes: routes,
        before: "Site | None" = None,
        keys: Sequence[bytes] = (b"k" * 32,),
        make_upstream: Callable[["Site"], IUpstreamTokens] | None = None,
    ) -> None:
        """
        @param before: the process whose store this one goes on with.
        @param keys: of the store, the one that seals first.
        @param make_upstream: makes another one than the small one.
        """
        self._test = test
        self.public_url = public_url
        if before is None:
            self.clock = Clock()
            self.clock.advance(NOW)
            self.real_database = memory_database(test)
            self.random_bytes = CountingBytes()
        else:
            self.clock = before.clock
            self.real_database = before.real_database
            self.random_bytes = before.random_bytes
        random_bytes = self.random_bytes
        self.database = database = wrap(self.real_database)
        self.upstream = SmallUpstream(self.real_database)
        self.sealer = Sealer(keys, random_bytes)
        cookies = BrowserCookies(public_url, random_bytes)
        departure = Departure(cookies, forgejo_authorize_url, self.sealer)
        carried = CarriedRequests(self.sealer)
        self.outcomes = outcomes = Outcomes(self.clock)
        register = RegisterEndpoint(
            database, clock=self.clock, random_bytes=random_bytes
        )
        self.fetcher = SmallFetcher()
        documents = MetadataDocuments(self.fetcher, self.clock)
        directory = ClientDirectory(
            database, self.clock, documents if has_documents else None
        )
        authorize = AuthorizeEndpoint(
            directory,
            cookies,
            ConsentPage(public_url, FORGEJO_URL),
            carried,
            clock=self.clock,
            random_bytes=random_bytes,
            public_url=public_url,
        )
        consent = ConsentEndpoint(
            database,
            cookies,
            departure,
            carried,
            outcomes,
            clock=self.clock,
            random_bytes=random_bytes,
            public_url=public_url,
            may_redirect=directory.may_redirect,
        )
        callback = CallbackEndpoint(
            database,
            cookies,
            departure,
            outcomes,
            self.upstream if make_upstream is None else make_upstream(self),
            clock=self.clock,
            random_bytes=random_bytes,
            public_url=public_url,
            forgejo_url=FORGEJO_URL,
            may_redirect=directory.may_redirect,
        )
        front = FrontPage(public_url, FORGEJO_URL)
        self.resource = build_web_resource(
            guard(sign_in_routes(front, register, authorize, consent, callback)),
            OriginPolicy(public_url),
        )

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """
        One request without a browser around it.
        """
        stub = self.stub()
        response = self._test.successResultOf(
            stub.request(
                method,
                self.public_url + target,
                headers=Headers(
                    {name: [value] for name, value in (headers or {}).items()}
                ),
                data=body,
                allow_redirects=False,
            )
        )
        content = self._test.successResultOf(response.content())
        return Answer(response.code, response.headers, content)

    def stub(self) -> Any:
        """
        @return: a client of the site. A new one each time, so that treq keeps no
            cookies; it makes its methods at run time.
        """
        return StubTreq(self.resource)

    def register(self, **metadata: object) -> str:
        """
        @return: the id of a new public client.
        """
        document = {
            "redirect_uris": [WEB_REDIRECT],
            "token_endpoint_auth_method": "none",
            "client_name": "Claude",
            **metadata,
        }
        answer = self.request(
            "POST",
            "/oauth/register",
            headers={"Content-Type": "application/json"},
            body=json.dumps(document).encode(),
        )
        assert answer.status == 201, answer.text
        client_id = json.loads(answer.body)["client_id"]
        assert isinstance(client_id, str)
        return client_id

    def read(self, query: Callable[[Connection], T]) -> T:
        """
        Look into the store.
        """
        return self._test.successResultOf(
            Deferred.fromCoroutine(self.real_database.read(query))
        )

    def write(self, transaction: Callable[[Connection], T]) -> T:
        """
        Change the store behind the service's back.
        """
        return self._test.successResultOf(
            Deferred.fromCoroutine(self.real_database.write(transaction))
        )

    def dump(self) -> list[str]:
        """
        @return: every row of every table.
        """
        return self.read(lambda connection: list(connection.iterdump()))

    def count_under_way(self) -> int:
        """
        @return: the sign-ins from which something may still come.
        """
        rows = self.read(
            lambda c: c.execute(
                "SELECT count(*) FROM pending_authorizations"
                " WHERE returned_at IS NULL OR state_digest IS NOT NULL"
            ).fetchone()
        )
        count = rows[0]
        assert isinstance(count, int)
        return count

    def count(self, table: str) -> int:
        """
        @return: the number of rows.
        """
        rows = self.read(
            lambda c: c.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        )
        count = rows[0]
        assert isinstance(count, int)
        return count


class Browser:
    """
    Keeps cookies, sends forms as browsers do, follows nothing by itself.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self.cookies: dict[str, str] = {}

    def get(self, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        """
        Navigate.
        """
        return self._keep(
            self._site.request(
                "GET", target, headers={**self._cookie_header(), **(headers or {})}
            )
        )

    def submit(
        self,
        page: Answer,
        decision: str,
        headers: Mapping[str, str] | None = None,
        **changes: str,
    ) -> Answer:
        """
        Press a button of the form on a page.
        """
        form = page.form
        fields = {**form.fields, "decision": decision, **changes}
        return self.post(form.action, fields, headers)

    def post(
        self,
        target: str,
        fields: Mapping[str, str] | Iterable[tuple[str, str]],
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """
        Send a form.
        """
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        sent = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Origin": self._site.public_url,
            "Sec-Fetch-Site": "same-origin",
            **self._cookie_header(),
            **(headers or {}),
        }
        body = urlencode(list(pairs)).encode()
        kept = {name: value for name, value in sent.items() if value}
        return self._keep(self._site.request("POST", target, headers=kept, body=body))

    def _cookie_header(self) -> dict[str, str]:
        if not self.cookies:
            return {}
        return {
            "Cookie": "; ".join(
                f"{name}={value}" for name, value in self.cookies.items()
            )
        }

    def _keep(self, answer: Answer) -> Answer:
        for cookie in answer.cookies:
            pair, *attributes = cookie.split("; ")
            name, _, value = pair.partition("=")
            if "Max-Age=0" in attributes:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return answer


def authorize_target(client_id: str, **changes: str | None) -> str:
    """
    @return: the address that a client sends the browser to; C{None} leaves out.
    """
    parameters: dict[str, str | None] = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": WEB_REDIRECT,
        "state": "client-state",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "resource": f"{PUBLIC_URL}/mcp",
        **changes,
    }
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"/oauth/authorize?{urlencode(given)}"


def callback_target(leaving: Answer, **answer: str) -> str:
    """
    @param leaving: the redirect to Forgejo.
    @return: the address to which Forgejo sends the browser back.
    """
    state = leaving.query["state"]
    return f"/oauth/callback?{urlencode({'state': state, **answer})}"
