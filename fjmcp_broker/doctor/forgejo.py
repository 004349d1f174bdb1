"""
Forgejo, as the daemon will use it.
"""

import base64
import json
import re
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

from fjmcp_broker.config import Config
from fjmcp_broker.oauth.forgejo_scopes import GRANULAR, WIDE
from fjmcp_broker.oauth.vocabulary import CALLBACK_PATH

from .fetch import Answer, Fetcher, FetchError
from .findings import Finding, Status, failed, ok, skipped, warning

MOST_SKEW_SECONDS: Final = 60
_SAFE_FROM: Final = {11: (11, 0, 14), 15: (15, 0, 2)}
"""Per major version the first release without the faults that matter here; see
section 9 of the design."""


def is_safe(version: tuple[int, int, int]) -> bool:
    """
    Before 11.0.14 and 15.0.2 an S256 challenge could be lost, and two refreshes at once
    could both succeed with only one of the tokens working.

    @param version: of Forgejo.
    @return: whether it is safe to sign in through.
    """
    first = _SAFE_FROM.get(version[0])
    return version[0] > max(_SAFE_FROM) or (first is not None and version >= first)


class ForgejoChecks:
    """
    Looks at Forgejo.
    """

    def __init__(self, config: Config, timeout_seconds: float) -> None:
        """
        @param config: checked.
        @param timeout_seconds: for each step of a request.
        """
        forgejo = config.forgejo
        self._config = config
        self._base = forgejo.internal_url or forgejo.url
        trust = None
        if forgejo.ca_file is not None:
            trust = ssl.create_default_context(cafile=forgejo.ca_file)
        self._fetcher = Fetcher(
            trust=trust,
            proxy=forgejo.proxy,
            is_direct=True,
            timeout_seconds=timeout_seconds,
        )

    def run(self) -> Iterator[Finding]:
        """
        @return: what there is to say; what depends on a failed check is left out.
        """
        yield self.scopes()
        try:
            answer = self._fetcher.fetch(f"{self._base}/api/v1/version")
        except FetchError as error:
            yield failed(
                "forgejo",
                f"{self._base}: {error}",
                "Start Forgejo, or correct forgejo.url, forgejo.internal_url, "
                "forgejo.ca_file and forgejo.proxy.",
            )
            for name in ("forgejo_oauth", "client"):
                yield skipped(name, "Forgejo cannot be reached")
        else:
            yield self.version(answer)
            yield self.clock(answer)
            yield self.provider()
            yield self.client()
        yield self.redirect_uri()

    def version(self, answer: Answer) -> Finding:
        """
        @param answer: of C{/api/v1/version}.
        @return: whether it is a Forgejo, and one that is safe.
        """
        name = "forgejo"
        if answer.status in (401, 403):
            return warning(
                name,
                f"{self._base} tells its version only to users who are signed in",
                "See for yourself that it is 11.0.14 or later in 11, or 15.0.2 or "
                "later.",
            )
        text = str(_json(answer).get("version", ""))
        match = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
        if answer.status != 200 or not match:
            return failed(
                name,
                f"what answers at {self._base} is no Forgejo (status {answer.status})",
                "Correct forgejo.url, with the path that Forgejo has if it has one, or "
                "forgejo.internal_url.",
            )
        version = (int(match[1]), int(match[2]), int(match[3]))
        if "gitea" not in text:
            return warning(
                name,
                f"version {text} does not look like Forgejo's",
                "This software is made for Forgejo; Gitea differs in its OAuth.",
            )
        if not is_safe(version):
            return failed(
                name,
                f"Forgejo {text} has faults in its OAuth that let sign-ins be stolen "
                "or users be signed out",
                "Update it to 11.0.14 or later in 11, or to 15.0.2 or later.",
            )
        return ok(name, f"Forgejo {text} answers at {self._base}")

    def clock(self, answer: Answer) -> Finding:
        """
        @param answer: any answer of Forgejo's.
        @return: whether both machines agree on the time.
        """
        try:
            theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return skipped("clock", "Forgejo does not say what time it is")
        skew = round(theirs - time.time())
        if abs(skew) > MOST_SKEW_SECONDS:
            return warning(
                "clock",
                f"Forgejo's clock is {abs(skew)} s {'ahead' if skew > 0 else 'behind'}",
                "Synchronise the clocks of both machines; tokens expire by them.",
            )
        return ok("clock", "both machines agree on the time")

    def provider(self) -> Finding:
        """
        @return: whether Forgejo's OAuth is on, and under the configured URL.
        """
        name = "forgejo_oauth"
        url = f"{self._base}/.well-known/openid-configuration"
        try:
            answer = self._fetcher.fetch(url)
        except FetchError as error:
            return failed(name, f"{url}: {error}", "Look at Forgejo's log.")
        if answer.status != 200:
            return failed(
                name,
                f"Forgejo's OAuth2 provider does not answer (status {answer.status})",
                "Set ENABLED = true in [oauth2] of Forgejo's app.ini.",
            )
        endpoint = str(_json(answer).get("authorization_endpoint", ""))
        wanted = f"{self._config.forgejo.url}/login/oauth/authorize"
        if endpoint != wanted:
            return warning(
                name,
                f"Forgejo says that people sign in at {endpoint}, the configuration "
                f"leads to {wanted}",
                "Make forgejo.url and ROOT_URL in Forgejo's app.ini the same.",
            )
        return ok(name, "Forgejo's OAuth2 provider is on")

    def client(self) -> Finding:
        """
        @return: whether Forgejo knows our application and its secret.
        """
        name = "client"
        forgejo = self._config.forgejo
        pair = ":".join(
            quote_plus(text)
            for text in (
                forgejo.oauth_client_id,
                forgejo.oauth_client_secret.reveal(),
            )
        )
        try:
            answer = self._fetcher.fetch(
                f"{self._base}/login/oauth/introspect",
                body=urlencode({"token": "doctor"}).encode(),
                headers={
                    "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"
                },
            )
        except FetchError as error:
            return failed(name, f"introspection: {error}", "Look at Forgejo's log.")
        if answer.status == 401:
            return failed(
                name,
                "Forgejo does not know forgejo.oauth_client_id with this "
                "forgejo.oauth_client_secret",
                "Copy both again from the application in Forgejo; a lost secret can be "
                "made anew there.",
            )
        if answer.status != 200 or "active" not in _json(answer):
            return failed(
                name,
                f"Forgejo's introspection answers with status {answer.status}",
                "See that nothing between here and Forgejo changes its answers.",
            )
        return ok(name, "Forgejo knows the application and its secret")

    def scopes(self) -> Finding:
        """
        @return: what users will be asked for.
        """
        scopes = self._config.forgejo.oauth_scopes.split()
        wide = sorted(WIDE & set(scopes))
        if wide:
            return warning(
                "scopes",
                f"forgejo.oauth_scopes asks for {', '.join(wide)}: more than any tool "
                "needs",
                "Leave them out unless you know what for.",
            )
        asked = " ".join(scope for scope in scopes if scope in GRANULAR)
        return ok("scopes", f"users are asked for {asked}")

    def redirect_uri(self) -> Finding:
        """
        @return: a link to try: only a browser with a session can see whether Forgejo
            has the redirect URI.
        """
        forgejo = self._config.forgejo
        callback = f"{self._config.server.public_url}{CALLBACK_PATH}"
        query = urlencode(
            {
                "client_id": forgejo.oauth_client_id,
                "redirect_uri": callback,
                "response_type": "code",
                "scope": forgejo.oauth_scopes,
                "state": "doctor",
            }
        )
        return Finding(
            "redirect_uri",
            Status.INFO,
            f"whether the application in Forgejo has the redirect URI {callback} can "
            "only be seen in a browser where you are signed in to Forgejo",
            f"Open {forgejo.url}/login/oauth/authorize?{query} - a page of Forgejo's "
            "that names the redirect URI as wrong means: correct it there. Its "
            "question, or a page of this service about an expired sign-in, means: it "
            "is right.",
        )


def _json(answer: Answer) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
