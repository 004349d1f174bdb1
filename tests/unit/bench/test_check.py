"""Tests of the performance check, and of what the bench measures with."""

import json
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from bench.check import OVER_BARE, OVER_PEER, judged
from bench.children import ECHO, EVERYTHING_ECHO, VERSION, echo_child
from bench.stalls import percentile
from bench.wrapped import WatchedPoller

USUAL = {
    "broker": [0.1, 0.2, 0.1],
    "a bare resource": [0.2, 0.4, 0.2],
    "peer": [1.0, 2.0, 1.0],
    "broker, twice as slow": [0.2, 0.4, 0.2],
}


class CheckTests(SynchronousTestCase):
    """What passes."""

    def test_usual(self) -> None:
        """Ratios of each round count, so that a busy one changes nothing."""
        bare, peer, slow = judged(USUAL)
        self.assertAlmostEqual(bare.found, 0.5)
        self.assertAlmostEqual(peer.found, 0.1)
        self.assertAlmostEqual(slow.found, OVER_BARE)
        for limit in (bare, peer, slow):
            self.assertTrue(limit.line().startswith("PASSED performance: "))

    def test_slower(self) -> None:
        """A broker that takes twice as long fails."""
        values = {**USUAL, "broker": USUAL["broker, twice as slow"]}
        bare, peer, _slow = judged(values)
        self.assertFalse(bare.is_kept)
        self.assertTrue(bare.line().startswith("FAILED performance: "))
        self.assertLess(peer.found, OVER_PEER)

    def test_a_limit_that_notices_nothing(self) -> None:
        """When the delay breaks no limit, that is a failure as well."""
        *_, slow = judged({**USUAL, "broker, twice as slow": USUAL["broker"]})
        self.assertFalse(slow.is_kept)

    def test_without_a_peer(self) -> None:
        """The bare resource is enough."""
        values = {name: each for name, each in USUAL.items() if name != "peer"}
        self.assertEqual(len(judged(values)), 2)


class ChildTests(SynchronousTestCase):
    """The echo child that is in use, in C where there is a compiler."""

    def ask(self, *lines: bytes) -> list[bytes]:
        """
        @return: what it says to these lines.
        """
        done = subprocess.run(  # noqa: S603 - our own program
            echo_child(),
            input=b"\n".join(lines) + b"\n",
            capture_output=True,
            check=True,
        )
        return done.stdout.splitlines()

    def test_calls(self) -> None:
        """Ids and texts come back as they were, whatever the order of members."""
        head = b'"jsonrpc":"2.0","method":"tools/call","params":{"name":'
        said = self.ask(
            b'{"id":7,%b"echo","arguments":{"text":"a, b"}}}' % head,
            b'{%b"echo", "arguments": {"text": "id"}}, "id": "x"}' % head,
            b'{"id":8,%b"payload","arguments":{"bytes":5}}}' % head,
            b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
            b'{"id":9,"method":"what"}',
        )
        texts = [
            (each["id"], each["result"]["content"][0]["text"])
            for each in map(json.loads, said[:3])
        ]
        self.assertEqual(texts, [(7, "a, b"), ("x", "id"), (8, "xxxxx")])
        self.assertEqual(json.loads(said[3])["error"]["code"], -32601)
        self.assertEqual(len(said), 4)

    def test_handshake(self) -> None:
        """It speaks the revision that it is asked for."""
        params = b'{"protocolVersion":"2025-06-18","capabilities":{}}'
        (said,) = self.ask(b'{"id":0,"method":"initialize","params":%b}' % params)
        result = json.loads(said)["result"]
        self.assertEqual(result["protocolVersion"], "2025-06-18")
        self.assertIn("tools", result["capabilities"])

    def test_tools(self) -> None:
        """What a call needs."""
        self.assertEqual(ECHO.arguments("t"), {"text": "t"})
        self.assertEqual(EVERYTHING_ECHO.arguments("t"), {"message": "t"})
        self.assertEqual(VERSION.arguments("t"), {})


class StallTests(SynchronousTestCase):
    """How long the event loop is away."""

    def test_turns(self) -> None:
        """What happens between two polls is a turn, the waiting is none."""

        class Poller:
            """As much of one as is asked for."""

            def poll(self, timeout: float, most: int) -> list[object]:
                """
                @return: nothing is ready.
                """
                return [timeout, most]

            def fileno(self) -> int:
                """
                @return: a number.
                """
                return 3

        watched = WatchedPoller(Poller())
        for number in range(4):
            self.assertEqual(watched.poll(0.5, number), [0.5, number])
        self.assertEqual(len(watched.turns), 3)
        self.assertEqual(watched.fileno(), 3)
        self.assertTrue(all(min(turn) >= 0 for turn in watched.turns))

    def test_percentile(self) -> None:
        """Of the values, never beyond them."""
        values = [float(number) for number in range(1000)]
        self.assertEqual(percentile(values, 0.5), 500)
        self.assertEqual(percentile(values, 0.999), 999)
        self.assertEqual(percentile([1.0], 0.999), 1.0)
