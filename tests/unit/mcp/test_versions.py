"""Protocol revisions and eras."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.versions import (
    LATEST_LEGACY,
    LEGACY,
    Era,
    VersionError,
    allows_batches,
    answered_version,
    check_header,
    era,
    is_modern,
    primes_streams,
    revision_of_session,
)


def era_of(
    method: str | None = "tools/call",
    *,
    session: bool = False,
    meta: bool = False,
    version: str | None = None,
    mcp_method: bool = False,
) -> Era:
    """The era of a POST, with the usual values left out."""
    return era(
        method,
        has_session_id=session,
        has_meta_version=meta,
        version_header=version,
        has_method_header=mcp_method,
    )


class EraTests(SynchronousTestCase):
    """Modern or legacy."""

    def test_meta_version_wins_over_a_session_id(self) -> None:
        """What the message says of itself is decisive."""
        self.assertIs(era_of(meta=True, session=True), Era.MODERN)
        self.assertIs(era_of("initialize", meta=True), Era.MODERN)

    def test_session_id_and_initialize_mean_legacy(self) -> None:
        """Whatever the headers say besides."""
        modern = {"version": "2026-07-28", "mcp_method": True}
        for method in ("tools/call", "server/discover", None):
            self.assertIs(era_of(method, session=True, **modern), Era.LEGACY)  # type: ignore[arg-type]
        self.assertIs(era_of("initialize", mcp_method=True), Era.LEGACY)

    def test_modern_without_meta(self) -> None:
        """So that a missing _meta is refused as the modern revision asks."""
        self.assertIs(era_of(version="2026-07-28"), Era.MODERN)
        self.assertIs(era_of(version="2027-01-01"), Era.MODERN)
        self.assertIs(era_of(mcp_method=True), Era.MODERN)
        self.assertIs(era_of("server/discover"), Era.MODERN)
        self.assertIs(era_of("subscriptions/listen"), Era.MODERN)

    def test_nothing_special_means_legacy(self) -> None:
        """An old client that lost its session id gets the legacy answer."""
        for version in (None, "2025-06-18", "2026-07-27", "x", "9999", "3000-1-001x"):
            self.assertIs(era_of(version=version), Era.LEGACY)

    @given(st.text(max_size=12))
    def test_only_dates_are_modern(self, text: str) -> None:
        """A junk header makes nobody modern."""
        if is_modern(text):
            year, month, day = text.split("-")
            self.assertGreaterEqual((int(year), int(month), int(day)), (2026, 7, 28))


class RevisionTests(SynchronousTestCase):
    """What a session's revision asks for."""

    def test_oldest_counts_as_its_successor(self) -> None:
        """2024-11-05 has another transport, which is not offered."""
        self.assertEqual(revision_of_session("2024-11-05"), "2025-03-26")
        for version in LEGACY[:-1]:
            self.assertEqual(revision_of_session(version), version)

    def test_unknown_answer_counts_as_the_latest(self) -> None:
        """The child decides; the transport follows the newest rules known."""
        for version in (None, "2026-07-28", "1999-01-01", ""):
            self.assertEqual(revision_of_session(version), LATEST_LEGACY)

    def test_batches_in_one_revision_only(self) -> None:
        """2025-03-26 MUST accept them, 2025-06-18 removed them."""
        allowed = [version for version in LEGACY if allows_batches(version)]
        self.assertEqual(allowed, ["2025-03-26"])

    def test_priming_since_the_latest(self) -> None:
        """Older clients would parse the empty data."""
        primed = [version for version in LEGACY if primes_streams(version)]
        self.assertEqual(primed, ["2025-11-25"])

    def test_version_header(self) -> None:
        """Absent is fine; an unsupported one MUST be refused with 400."""
        for version in (None, *LEGACY):
            check_header(version)
        for bad in ("", "2026-07-28", "2025-11-25 ", "latest", "2025-11-25,2025-06-18"):
            self.assertRaises(VersionError, check_header, bad)

    def test_version_of_the_answer(self) -> None:
        """Read from the result of initialize, or unknown."""
        result = b'{"capabilities":{},"protocolVersion":"2025-06-18","x":1e400}'
        self.assertEqual(answered_version(result), "2025-06-18")
        for odd in (b"{}", b"[]", b'{"protocolVersion":1}', b"", b"[" * 20_000):
            self.assertIsNone(answered_version(odd))
