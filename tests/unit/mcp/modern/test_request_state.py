"""What a client repeats, and what it cannot do with it."""

import base64
import json
import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.envelope import Request
from fjmcp_broker.mcp.modern.errors import ModernError
from fjmcp_broker.mcp.modern.request_state import (
    LIFETIME_SECONDS,
    MAXIMUM_CHARACTERS,
    RequestState,
    digest_of,
    generation_lost,
    opened,
)
from fjmcp_broker.store.sealing import Sealer

from .cases import request

NOW = 1_800_000_000
SEALER = Sealer([bytes(32)])
CALL = request("tools/call", {"name": "t", "arguments": {"b": 1, "a": [2.0, "é"]}})
STATE = RequestState(
    "g_1", "child-1", "call-1", digest_of(CALL), NOW + LIFETIME_SECONDS, "n"
)


class SealedTests(SynchronousTestCase):
    """MCP 2026-07-28, multi round-trip requests, server requirements."""

    def refused(
        self, text: str, *, grant: str = "g_1", asked: Request = CALL, now: int = NOW
    ) -> ModernError:
        """
        @return: the refusal of a text.
        """
        try:
            opened(text, SEALER, grant=grant, request=asked, now=now)
        except ModernError as error:
            self.assertEqual((error.status, error.code), (400, -32602))
            return error
        raise self.failureException(f"{text!r} is accepted")

    def test_round_trip(self) -> None:
        """It comes back as it was, from text that is safe anywhere."""
        text = STATE.sealed(SEALER)
        self.assertRegex(text, r"\A[A-Za-z0-9_-]+\Z")
        self.assertLess(len(text), MAXIMUM_CHARACTERS)
        retry = request(
            "tools/call",
            {
                "_meta": {"x": 1},
                "inputResponses": {"k": {}},
                "requestState": text,
                "arguments": {"a": [2, "\u00e9"], "b": 1},
                "name": "t",
            },
            id="another",
        )
        self.assertEqual(
            opened(text, SEALER, grant="g_1", request=retry, now=NOW), STATE
        )

    def test_nothing_of_it_can_be_read(self) -> None:
        """The text is ciphertext, a new one each time."""
        text = STATE.sealed(SEALER)
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        self.assertNotIn(b"child", raw)
        self.assertNotEqual(text, STATE.sealed(SEALER))

    def test_other_uses_are_refused(self) -> None:
        """Another grant, another call, too late, another key."""
        text = STATE.sealed(SEALER)
        self.refused(text, grant="g_2")
        self.refused(text, asked=request("tools/call", {"name": "u"}))
        self.refused(text, asked=request("prompts/get", json.loads(CALL.params or b"")))
        late = self.refused(text, now=NOW + LIFETIME_SECONDS)
        self.assertIn("expired", late.message)
        self.refused(STATE.sealed(Sealer([bytes(31) + b"x"])))

    def test_other_sealed_values_are_refused(self) -> None:
        """A state that names another grant than it was sealed for, or is none."""
        other = replace(STATE, grant="g_2")
        for plaintext in (b"{}", b"nonsense", b'{"grant":1}'):
            raw = SEALER.seal(plaintext, row="request_states/state/g_1")
            self.refused(base64.urlsafe_b64encode(raw).decode())
        self.refused(other.sealed(SEALER))

    def test_tampering(self) -> None:
        """Any change of any character."""
        text = STATE.sealed(SEALER)
        self.refused(text + "-TAMPERED")
        self.refused("")
        self.refused("é")
        self.refused("A" * (MAXIMUM_CHARACTERS + 1))
        chosen = random.Random(1)  # noqa: S311 - which characters are changed
        for position in chosen.sample(range(len(text) - 1), 40):
            other = "A" if text[position] != "A" else "B"
            self.refused(text[:position] + other + text[position + 1 :])

    def test_another_writing_of_the_same_bytes(self) -> None:
        """Padding, and last bits that Base64 decoders ignore, are changes too."""
        digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        for grant in ("g_1", "g_12", "g_123"):
            text = replace(STATE, grant=grant).sealed(SEALER)
            self.refused(text + "=", grant=grant)
            self.refused(text + "=" * (-len(text) % 4 or 4), grant=grant)
            for digit in digits.replace(text[-1], ""):
                self.refused(text[:-1] + digit, grant=grant)

    @given(st.text(max_size=60))
    def test_any_text_is_refused(self, text: str) -> None:
        """Never another error."""
        self.refused(text)

    def test_a_lost_generation(self) -> None:
        """The reason is there for programs."""
        error = generation_lost(b"5")
        self.assertEqual((error.status, error.id), (400, b"5"))
        self.assertEqual(error.data, {"reason": "generation_lost"})


plain = st.text(
    st.characters(blacklist_categories=["Cs"], min_codepoint=32), max_size=3
)


class DigestTests(SynchronousTestCase):
    """Which requests are the same call."""

    @given(st.dictionaries(plain, st.integers(), max_size=3))
    def test_writing_does_not_matter(self, arguments: dict[str, int]) -> None:
        """Order, white space, escapes and the form of whole numbers."""
        one = request("tools/call", {"arguments": arguments})
        turned = dict(reversed(arguments.items()))
        floats = {
            name: float(value) if abs(value) < 2**50 else value
            for name, value in turned.items()
        }
        other = request("tools/call", {"arguments": floats, "_meta": {"x": 1}})
        self.assertEqual(digest_of(one), digest_of(other))

    def test_values_matter(self) -> None:
        """Every other difference is another call."""
        cases = (
            request("tools/call", {}),
            request("tools/list", {}),
            request("tools/call", {"a": "bc"}),
            request("tools/call", {"a": "b", "c": 1}),
            request("tools/call", {"a": 1}),
            request("tools/call", {"a": True}),
            request("tools/call", {"a": "1"}),
            request("tools/call", {"a": 1.5}),
            request("tools/call", {"a": None}),
            request("tools/call", {"a": 12345678901234567890}),
            request("tools/call", {"a": 12345678901234567891}),
        )
        self.assertEqual(len({digest_of(case) for case in cases}), len(cases))

    def test_hostile_values(self) -> None:
        """What the standard library does not read is compared by its bytes."""
        digits = request("tools/call", {})
        for raw in (b"1" * 5000, b"[" * 900 + b"]" * 900, b"1e999"):
            made = replace(digits, members={"a": raw})
            self.assertEqual(digest_of(made), digest_of(made))
