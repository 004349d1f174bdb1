"""The suite's scenarios for authorization servers, with a person at the browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from twisted.internet.threads import deferToThread

from tests.conformance.expectations import Verdict
from tests.conformance.subject import LOGIN, Subject
from tests.conformance.suite import Outcome, Suite, read_checks
from tests.real.browser import Browser, sign_in
from tests.real.daemon import Program, free_port, pause

SCENARIOS: Final = (
    "authorization-server-metadata-endpoint",
    "authorization-code-grant",
)
PROMPT_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.05


def _register(url: str, redirect_uri: str) -> str:
    metadata = {
        "client_name": "Conformance suite",
        "redirect_uris": [redirect_uri],
        "token_endpoint_auth_method": "none",
    }
    answer = Browser().request(
        "POST",
        f"{url}/oauth/register",
        json.dumps(metadata).encode(),
        {"Content-Type": "application/json"},
    )
    assert answer.status == 201, (answer.status, answer.text)
    client_id: str = json.loads(answer.text)["client_id"]
    return client_id


def _be_the_person(authorize_url: str, redirect_uri: str, password: str) -> None:
    browser = Browser()
    returned = sign_in(browser, authorize_url, redirect_uri, LOGIN, password)
    browser.visit(returned)


async def _authorize_url(program: Program, issuer: str) -> str:
    pattern = re.compile(re.escape(issuer) + r"/\S+\?\S*response_type=code\S*")
    waited = 0.0
    while program.exit_code is None and waited < PROMPT_SECONDS:
        if found := pattern.search(program.text):
            return found[0]
        await pause(LOOK_SECONDS)
        waited += LOOK_SECONDS
    raise AssertionError(f"no authorization request:\n{program.text}")


async def run_authorization(suite: Suite, subject: Subject) -> list[Verdict]:
    """
    Let the suite be a client that signs a user in.

    @return: a verdict per scenario; all of them have to pass.
    """
    port = free_port()
    redirect_uri = f"http://127.0.0.1:{port}/callback"
    issuer = subject.daemon.url
    client_id = await deferToThread(_register, issuer, redirect_uri)
    output = subject.directory / "authorization"
    program = suite.start(
        "authorization",
        *("--url", issuer, "--client-id", client_id, "--port", str(port)),
        *("--resource", f"{issuer}/mcp", "-o", str(output)),
        environment={},
    )
    try:
        url = await _authorize_url(program, issuer)
        password = subject.forgejo.password(LOGIN)
        await deferToThread(_be_the_person, url, redirect_uri, password)
    finally:
        await program.wait()
    return list(_verdicts(output))


def _verdicts(output: Path) -> Iterator[Verdict]:
    for scenario in SCENARIOS:
        paths = list(output.glob(f"authorization-server-{scenario}-*/checks.json"))
        outcome = Outcome(scenario, ("it left no result",))
        if len(paths) == 1:
            outcome = read_checks(scenario, paths[0])
        kind = "passed" if outcome.passed else "failed"
        yield Verdict(outcome, True, kind, "; ".join(outcome.failures))
