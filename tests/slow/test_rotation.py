"""The rotation timer of a real daemon, which looks once a minute."""

from __future__ import annotations

from tests.real.test_sessions import SessionCase


class RotationTimerTests(SessionCase):
    """Nobody calls, and yet no token expires."""

    takes_long = True

    async def test_children_are_replaced_in_time(self) -> None:
        """The child has a fresh token before the old one ends."""
        await self.begin()
        self.forgejo.stand_in.controls.set_lifetimes(access_seconds=150)
        client = await self.signed_in()
        (before,) = self.children()
        await self.until(
            lambda: "rotating -> live" in self.daemon.text, "no rotation", 100
        )
        await self.until(lambda: before not in self.children(), "the old child stays")
        self.assertEqual(len(self.children()), 1)
        await self.check(client)
        self.assertNotIn("token_expired", self.daemon.text)
