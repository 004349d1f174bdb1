"""What an operator is told of an attempt."""

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.trace.attempts import Attempt, Sighting, Step, StepName
from fjmcp_broker.trace.verdict import PENDING_SECONDS, Status, Verdict, judge

NOW = 1_800_000_000
ORDER = list(StepName)


def attempt(*outcomes: tuple[StepName, str]) -> Attempt:
    """
    @return: an attempt with these steps.
    """
    made = Attempt(trace_id="t", network="n", began_at=NOW, updated_at=NOW)
    for name, outcome in outcomes:
        made = made.with_step(Step(NOW, name, outcome, "why so"))
    return made


def reached(name: StepName, *more: tuple[StepName, str]) -> Attempt:
    """
    @return: an attempt whose steps were all well up to that one.
    """
    well = [(each, "ok") for each in ORDER[: ORDER.index(name) + 1]]
    return attempt(*well, *more)


class VerdictTests(SynchronousTestCase):
    """Each way in which it can end."""

    def judged(self, made: Attempt, later: int = PENDING_SECONDS + 1) -> Verdict:
        """
        @return: what is said after a while.
        """
        return judge(made, NOW + later)

    def test_nothing_came_next(self) -> None:
        """Each step waits for another one, for ten minutes."""
        for name, words in (
            (StepName.REGISTER, "no browser came"),
            (StepName.AUTHORIZE, "did not answer"),
            (StepName.CONSENT, "did not come back"),
            (StepName.CALLBACK, "never exchanged it"),
            (StepName.TOKEN, "Token issued, the client never used it"),
        ):
            soon = self.judged(reached(name), 1)
            self.assertEqual(soon.status, Status.GOING_ON)
            self.assertIn(words, soon.sentence)
            late = self.judged(reached(name))
            self.assertEqual(late.status, Status.STUCK)
            self.assertNotEqual(late.advice, "")
        self.assertEqual(self.judged(attempt()).status, Status.GOING_ON)

    def test_complete(self) -> None:
        """Whatever the first request was answered with."""
        done = reached(StepName.TOKEN, (StepName.REQUEST, "200"))
        self.assertEqual(self.judged(done).status, Status.COMPLETE)
        sick = reached(StepName.TOKEN, (StepName.REQUEST, "502"))
        self.assertEqual(self.judged(sick).status, Status.FAILED)
        self.assertIn("502", self.judged(sick).sentence)

    def test_every_refusal_has_a_sentence(self) -> None:
        """With its reason, also one that nobody thought of."""
        for name in ORDER[:-1]:
            for outcome in (
                "unknown_client",
                "no_document",
                "not_our_page",
                "old_page",
                "wrong_browser",
                "other_scopes",
                "not_allowed",
                "expired",
                "client_left",
                "fault",
                "store_unavailable",
                "invalid_grant",
            ):
                found = self.judged(attempt((name, outcome)))
                self.assertEqual(found.status, Status.FAILED)
                self.assertTrue(found.sentence.endswith("."), found)
        refused = self.judged(attempt((StepName.TOKEN, "invalid_grant")))
        self.assertIn("invalid_grant: why so", refused.sentence)
        document = self.judged(attempt((StepName.AUTHORIZE, "no_document")))
        self.assertIn("why so", document.sentence)

    def test_the_user_did_not_want_it(self) -> None:
        """That is no fault, also after a first click on another button."""
        cancelled = reached(StepName.CONSENT, (StepName.CONSENT, "cancelled"))
        self.assertEqual(self.judged(cancelled).status, Status.ENDED)

    def test_repetitions_of_what_is_done_once(self) -> None:
        """A browser that goes back changes nothing."""
        again = reached(StepName.CALLBACK, (StepName.CALLBACK, "wrong_browser"))
        self.assertIn("never exchanged", self.judged(again).sentence)
        replay = reached(
            StepName.TOKEN, (StepName.REQUEST, "200"), (StepName.TOKEN, "invalid_grant")
        )
        self.assertEqual(self.judged(replay).status, Status.COMPLETE)
        twice = reached(StepName.TOKEN, (StepName.TOKEN, "invalid_grant"))
        self.assertIn("Token issued", self.judged(twice).sentence)

    def test_a_second_try_counts(self) -> None:
        """What failed first is over when it went well after that."""
        mended = attempt(
            (StepName.AUTHORIZE, "ok"),
            (StepName.CONSENT, "not_our_page"),
            (StepName.CONSENT, "ok"),
        )
        self.assertIn("went to Forgejo", self.judged(mended).sentence)

    def test_requests_without_a_token(self) -> None:
        """They say more than that nothing came."""
        made = reached(StepName.TOKEN).with_related([Sighting(NOW, "/mcp: 401")])
        self.assertIn("Authorization header", self.judged(made).advice)
