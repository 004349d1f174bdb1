"""
How forgejo-mcp starts and stops, checked on the stand-in and on the real ones.

The same checks run against all three, so that the stand-in cannot drift away from
what it stands for.
"""

from twisted.internet.task import deferLater

from tests.real.standin_driver import DrivenTestCase, held, reactor

ESCAPE = "\x1b["


class StandInLifeTests(DrivenTestCase):
    """The stand-in; subclasses name the real ones."""

    start_requests = ("/api/v1/version", "/api/v1/user")

    # Starting

    async def test_start_order(self) -> None:
        """It asks Forgejo before it reads stdin, with the scheme of API tokens."""
        child = await self.serving()
        paths = [each.path for each in self.controls.requests]
        self.assertEqual(paths, list(self.start_requests))
        self.assertEqual({each.login for each in self.controls.requests}, {"alice"})
        self.assertEqual(child.is_running, True)

    async def refused(self, *arguments: str, **variables: str | None) -> str:
        """
        Assert that a child exits with 1 and says nothing on stdout.

        @return: its stderr.
        """
        child = self.spawn(*arguments, **variables)
        child.send({"id": 1, "method": "initialize", "params": {}})
        end = await child.ended()
        self.assertEqual((end.exit_code, end.signal, end.rest), (1, None, b""))
        self.assertIn(ESCAPE, end.stderr)
        return str(end.stderr)

    async def test_bad_token(self) -> None:
        """A rejected token: exit 1, empty stdout, coloured lines on stderr."""
        stderr = await self.refused(FORGEJO_ACCESS_TOKEN="bad")
        self.assertIn("user does not exist", stderr)
        self.assertLess(3, stderr.count("\n"))

    async def test_prohibited_user(self) -> None:
        """An account that may not sign in: the same."""
        self.controls.disable_user("alice")
        await self.refused()

    async def test_unreachable(self) -> None:
        """Nobody listens: the same."""
        await self.refused(FORGEJO_URL="http://127.0.0.1:1")

    async def test_html_answer(self) -> None:
        """A proxy's error page: the same."""
        self.controls.bad_gateway()
        await self.refused()

    async def test_missing_or_wrong_url(self) -> None:
        """No URL, or one of another scheme: the same."""
        await self.refused(FORGEJO_URL=None)
        await self.refused(FORGEJO_URL="ftp://127.0.0.1/")

    async def test_unknown_flag(self) -> None:
        """Exit 2."""
        end = await self.spawn("--no-such-flag").ended()
        self.assertEqual((end.exit_code, end.rest), (2, b""))
        self.assertIn("flag provided but not defined", end.stderr)

    async def test_version(self) -> None:
        """--version prints one line and asks nobody."""
        end = await self.spawn("--version").ended()
        self.assertEqual((end.exit_code, end.rest.count(b"\n")), (0, 1))
        self.assertEqual(self.controls.count(), 0)

    async def test_private_certificate_authority(self) -> None:
        """An https Forgejo needs a known issuer; SSL_CERT_FILE makes one known."""
        certificate = self.listen_with_tls()
        await self.refused()
        child = await self.serving(SSL_CERT_FILE=certificate)
        self.assertEqual((await child.call("get_my_user_info"))["login"], "alice")

    async def test_early_message_waits(self) -> None:
        """While Forgejo hangs there is no answer and no time limit; then there is."""
        hold = self.controls.hold_request("api", times=1)
        child = self.spawn()
        child.send({"id": 1, "method": "ping"})
        await held(hold)
        hold.release()
        self.assertEqual((await child.message())["id"], 1)

    async def test_term_before_serving(self) -> None:
        """While it asks Forgejo, SIGTERM kills."""
        hold = self.controls.hold_request("api")
        child = self.spawn()
        await held(hold)
        child.signal("TERM")
        self.assertEqual((await child.ended()).signal, 15)

    # Stopping

    async def test_eof(self) -> None:
        """End of stdin: exit 0; an unfinished last line is dropped."""
        child = await self.serving()
        child.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
        child.end_input()
        end = await child.ended()
        self.assertEqual((end.exit_code, end.rest), (0, b""))

    async def test_ping_during_a_call(self) -> None:
        """It is answered at once: whoever does not answer is not well."""
        child, hold = await self.with_a_call_running()
        answer = await child.ask({"id": "ping", "method": "ping"})
        self.assertEqual(answer, {"id": "ping", "result": {}})
        hold.end()
        self.assertEqual((await child.message())["id"], "held")

    async def test_eof_finishes_running_calls(self) -> None:
        """What runs at the end of stdin is answered first."""
        child, hold = await self.with_a_call_running()
        child.end_input()
        await deferLater(reactor, 0.2)
        self.assertEqual(child.is_running, True)
        hold.end()
        self.assertEqual((await child.message())["id"], "held")
        self.assertEqual((await child.ended()).exit_code, 0)

    async def test_term(self) -> None:
        """SIGTERM while idle: exit 0."""
        child = await self.serving()
        child.signal("TERM")
        self.assertEqual((await child.ended()).exit_code, 0)

    async def test_second_term_is_ignored(self) -> None:
        """SIGTERM waits for running calls, and a second one changes nothing."""
        child, hold = await self.with_a_call_running()
        for _ in range(2):
            child.signal("TERM")
            await deferLater(reactor, 0.2)
        self.assertEqual(child.is_running, True)
        hold.end()
        self.assertEqual((await child.message())["id"], "held")
        self.assertEqual((await child.ended()).exit_code, 0)


class Real2180LifeTests(StandInLifeTests):
    """The real forgejo-mcp 2.18.0."""

    real_version = "2.18.0"


class Real2341LifeTests(StandInLifeTests):
    """The real forgejo-mcp 2.34.1."""

    real_version = "2.34.1"
    start_requests = ("/api/v1/version", "/api/v1/version")
