"""Which scopes may be asked of Forgejo, and when a grant has those."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.forgejo_scopes import (
    DEFAULT_SCOPES,
    GRANULAR,
    KNOWN,
    READ_ONLY_SCOPES,
    WIDE,
    InvalidScopes,
    granted_equivalent,
    validate_scopes,
)

safe_scopes = st.lists(st.sampled_from(sorted(KNOWN - WIDE)), max_size=8)


class ValidationTests(SynchronousTestCase):
    """What the operator may configure."""

    def problems(self, text: str) -> tuple[str, ...]:
        """What is wrong with a scope list."""
        error: InvalidScopes = self.assertRaises(InvalidScopes, validate_scopes, text)
        return error.problems

    def test_profiles_are_valid(self) -> None:
        """Both documented profiles are accepted as they are."""
        for profile in (DEFAULT_SCOPES, READ_ONLY_SCOPES):
            self.assertEqual(" ".join(validate_scopes(profile)), profile)

    def test_read_only_profile_writes_nothing(self) -> None:
        """The read-only profile asks for no writing scope."""
        self.assertNotIn("write:", READ_ONLY_SCOPES)

    def test_empty_is_refused(self) -> None:
        """No granular scope at all would mean full access to Forgejo."""
        for text in ("", "  ", "openid profile email groups"):
            self.assertIn("no granular scope", " ".join(self.problems(text)))

    def test_unknown_is_refused_with_suggestion(self) -> None:
        """A mistyped scope is dropped by Forgejo silently, so it is an error here."""
        (problem,) = self.problems("read:user write:repositry")
        self.assertIn("'write:repository'", problem)
        (problem,) = self.problems("read:user Read:Issue")
        self.assertIn("'read:issue'", problem)

    def test_commas_are_refused(self) -> None:
        """Forgejo takes a comma-separated list for one unknown scope."""
        (problem,) = self.problems("openid,read:user")
        self.assertIn("spaces", problem)

    def test_wide_scopes_need_permission(self) -> None:
        """All and the admin scopes need an explicit word of the operator."""
        for scope in sorted(WIDE):
            (problem,) = self.problems(scope)
            self.assertIn("allowed explicitly", problem)
            self.assertIn(scope, validate_scopes(scope, allow_wide=True))

    def test_public_only_alone_is_refused(self) -> None:
        """A token that may do nothing is of no use."""
        (problem,) = self.problems("openid public-only")
        self.assertIn("permits nothing", problem)

    def test_every_problem_is_listed(self) -> None:
        """The operator sees all problems at once."""
        self.assertEqual(len(self.problems("openid,all wurst write:admin")), 4)

    def test_openid_is_added(self) -> None:
        """The id_token says whose tokens came, so it is always asked for."""
        self.assertEqual(validate_scopes("read:user"), ("openid", "read:user"))

    def test_error_is_a_value_error(self) -> None:
        """A caller that knows nothing of this module can catch it."""
        with self.assertRaises(ValueError):
            validate_scopes("nonsense")

    @given(safe_scopes)
    def test_validated_scopes_stay_valid(self, scopes: list[str]) -> None:
        """Validating twice changes nothing, and repetitions are gone."""
        try:
            once = validate_scopes(" ".join(scopes))
        except InvalidScopes:
            return
        self.assertEqual(validate_scopes(" ".join(once)), once)
        self.assertEqual(len(set(once)), len(once))
        self.assertEqual(set(once), {*scopes, "openid"})

    @given(st.text())
    def test_any_text_is_valid_or_refused(self, text: str) -> None:
        """No text breaks the check, and what passes is known to Forgejo."""
        try:
            scopes = validate_scopes(text)
        except InvalidScopes as error:
            self.assertTrue(error.problems)
        else:
            self.assertTrue(set(scopes) <= KNOWN - WIDE)
            self.assertTrue(set(scopes) & GRANULAR)


class EquivalenceTests(SynchronousTestCase):
    """Whether Forgejo granted what was asked for."""

    def test_order_and_identity_do_not_matter(self) -> None:
        """Only power over the API counts."""
        self.assertTrue(
            granted_equivalent(
                "openid profile read:user write:issue", "write:issue read:user"
            )
        )

    def test_write_implies_read(self) -> None:
        """Forgejo lets a writing token read."""
        self.assertTrue(granted_equivalent("write:issue", "write:issue read:issue"))
        self.assertFalse(granted_equivalent("write:issue", "read:issue"))
        self.assertFalse(granted_equivalent("read:issue", "write:issue"))

    def test_nothing_recognised_means_everything(self) -> None:
        """As in Forgejo, a grant without a recognised scope may do everything."""
        for granted in ("", "openid profile", "read:user,write:issue", "wurst"):
            self.assertFalse(granted_equivalent(DEFAULT_SCOPES, granted))
            self.assertTrue(granted_equivalent("openid all", granted))

    def test_public_only_is_a_difference(self) -> None:
        """A grant for public things alone is narrower."""
        self.assertFalse(granted_equivalent("read:user", "public-only read:user"))

    @given(safe_scopes, safe_scopes)
    def test_symmetric_and_reflexive(self, one: list[str], other: list[str]) -> None:
        """It is a relation between powers, whichever side is which."""
        first, second = " ".join(one), " ".join(other)
        self.assertTrue(granted_equivalent(first, first))
        self.assertEqual(
            granted_equivalent(first, second), granted_equivalent(second, first)
        )
