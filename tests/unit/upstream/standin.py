"""
The stand-in Forgejo in memory, as the upstream tests use it.
"""

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import cast

from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet.task import Clock

from fjmcp_broker.demo.forgejo.stand_in import StandInForgejo
from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES
from fjmcp_broker.secret import Secret
from fjmcp_broker.upstream.forgejo import Forgejo, ForgejoSettings

NOW = 1_800_000_000
PUBLIC_URL = "https://broker.test"
REDIRECT_URI = f"{PUBLIC_URL}/oauth/callback"
VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).decode().rstrip("=")


class InMemoryForgejo:
    """
    A stand-in with one application, and our client of it, without sockets.

    @ivar forgejo: what is under test.
    @ivar controls: of the stand-in.
    """

    def __init__(self, clock: Clock, base_url: str = "http://forgejo.test") -> None:
        """
        @param clock: advanced by the test.
        @param base_url: of the stand-in; may have a path.
        """
        self.clock = clock
        self.stand_in = StandInForgejo(clock, base_url)
        self.controls = self.stand_in.controls
        self.application = self.stand_in.add_application(REDIRECT_URI)
        # StubTreq has the methods of HTTPClient without being one.
        self._stub = StubTreq(self.stand_in.resource)
        self.settings = ForgejoSettings(
            url=base_url,
            client_id=self.application.client_id,
            client_secret=Secret(self.application.client_secret),
            scopes=tuple(DEFAULT_SCOPES.split()),
            public_url=PUBLIC_URL,
        )
        self.forgejo = self.client(self.settings)

    def client(self, settings: ForgejoSettings) -> Forgejo:
        """
        @param settings: other ones than C{self.settings}.
        @return: a client that speaks to the same stand-in.
        """
        return Forgejo(settings, cast(HTTPClient, self._stub), self.clock)

    def code(self, login: str = "alice", *, scope: str = DEFAULT_SCOPES) -> str:
        """
        @param login: who signs in.
        @param scope: of a new grant.
        @return: what the browser would bring back.
        """
        return self.controls.issue_code(
            login, REDIRECT_URI, code_challenge=CHALLENGE, scope=scope
        )

    def flush(self) -> None:
        """
        Let answers travel that were not given at once.
        """
        self._stub.flush()

    def advance(self, seconds: float) -> None:
        """
        @param seconds: time that passes, with everything that it moves.
        """
        self.clock.advance(seconds)
        self.flush()
