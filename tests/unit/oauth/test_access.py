"""Who may sign in."""

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.access import AccessRules


class AccessRulesTests(SynchronousTestCase):
    """The list of users and organizations."""

    def test_without_a_list_everybody(self) -> None:
        """Whoever has an account."""
        rules = AccessRules.of()
        self.assertTrue(rules.let_everybody_in)
        self.assertTrue(rules.allow("alice", ()))

    def test_users(self) -> None:
        """By login, in any case: Forgejo does not tell them apart."""
        rules = AccessRules.of(["Alice"])
        self.assertFalse(rules.let_everybody_in)
        self.assertTrue(rules.allow("aLICE", ()))
        self.assertFalse(rules.allow("bob", ["alice"]))

    def test_organizations(self) -> None:
        """Members of one of them; a team alone when it is named so."""
        rules = AccessRules.of(groups=["Friends", "club:Board"])
        self.assertTrue(rules.allow("x", ["other", "friends"]))
        self.assertTrue(rules.allow("x", ["Club", "Club:board"]))
        self.assertFalse(rules.allow("x", ["club", "club:guests"]))
        self.assertFalse(rules.allow("friends", []))

    def test_one_of_the_two_is_enough(self) -> None:
        """A user of the list needs no organization."""
        rules = AccessRules.of(["alice"], ["friends"])
        self.assertTrue(rules.allow("alice", []))
        self.assertTrue(rules.allow("bob", ["friends"]))
        self.assertFalse(rules.allow("bob", []))
