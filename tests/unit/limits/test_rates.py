"""Token buckets against the textbook, and how many of them are remembered."""

from fractions import Fraction

import attrs
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.limits.rates import Bucket, Buckets, Rate

NOW = 1_800_000_000
RATES = st.builds(Rate, st.integers(1, 50), st.integers(1, 4000))


@attrs.define
class Textbook:
    """A bucket that says how many tokens are in it."""

    rate: Rate
    tokens: Fraction
    filled_at: int = NOW

    def fill(self, now: int) -> None:
        """Tokens come evenly."""
        gained = Fraction(self.rate.count * (now - self.filled_at))
        self.tokens += gained / self.rate.period_seconds
        self.tokens = min(self.tokens, Fraction(self.rate.count))
        self.filled_at = now

    def take(self, now: int) -> bool:
        """Take one, if there is one."""
        self.fill(now)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def give_back(self, now: int) -> None:
        """One more."""
        self.fill(now)
        self.tokens = min(self.tokens + 1, Fraction(self.rate.count))


def take(bucket: Bucket, rate: Rate, now: int) -> bool:
    """Take a token, if there is one."""
    if bucket.wait_seconds(rate, now):
        return False
    bucket.take(rate, now)
    return True


class BucketTests(SynchronousTestCase):
    """One bucket."""

    @given(
        RATES,
        st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 60), st.booleans())),
    )
    def test_as_the_textbook_has_it(
        self, rate: Rate, steps: list[tuple[int, int, bool]]
    ) -> None:
        """Whatever comes when: the same requests are let through."""
        bucket, model, now = Bucket(), Textbook(rate, Fraction(rate.count)), NOW
        for later, times, back in steps:
            now += later
            if back:
                bucket.give_back(rate, now)
                model.give_back(now)
            for _ in range(times):
                self.assertEqual(take(bucket, rate, now), model.take(now))
            model.fill(now)
            self.assertEqual(bucket.is_full(rate, now), model.tokens == rate.count)

    @given(RATES, st.integers(0, 5000))
    def test_wait_is_exact(self, rate: Rate, later: int) -> None:
        """After that many seconds there is a token, and not one second earlier."""
        bucket, now = Bucket(), NOW
        while take(bucket, rate, now):
            pass
        now += min(later, rate.period_seconds // rate.count)
        while wait := bucket.wait_seconds(rate, now):
            self.assertGreater(bucket.wait_seconds(rate, now + wait - 1), 0)
            self.assertEqual(bucket.wait_seconds(rate, now + wait), 0)
            now += wait

    def test_window(self) -> None:
        """All at once, then one at a time, then all again."""
        rate, bucket = Rate(60, 3600), Bucket()
        self.assertEqual([take(bucket, rate, NOW) for _ in range(61)].count(True), 60)
        self.assertEqual(bucket.wait_seconds(rate, NOW), 60)
        self.assertFalse(take(bucket, rate, NOW + 59))
        self.assertTrue(take(bucket, rate, NOW + 60))
        self.assertFalse(take(bucket, rate, NOW + 60))
        later = NOW + 60 + 3600
        self.assertTrue(bucket.is_full(rate, later))
        self.assertEqual([take(bucket, rate, later) for _ in range(61)].count(True), 60)

    @given(RATES, st.integers(1, NOW))
    def test_clock_set_back(self, rate: Rate, back: int) -> None:
        """It costs one period at most."""
        bucket = Bucket()
        while take(bucket, rate, NOW):
            pass
        now = NOW - back
        self.assertLessEqual(bucket.wait_seconds(rate, now), rate.period_seconds)
        bucket.give_back(rate, now)
        self.assertTrue(take(bucket, rate, now + rate.period_seconds))


class Crowd(RuleBasedStateMachine):
    """Many keys, few of them remembered, beside a model that forgets none."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.models: dict[str, Textbook] = {}
        self.maximum = 0

    @initialize(rate=RATES, maximum=st.integers(1, 4))
    def begin(self, rate: Rate, maximum: int) -> None:
        """Everything is full."""
        self.rate, self.maximum = rate, maximum
        self.few = Buckets(rate, maximum)
        self.many = Buckets(rate, 1000)

    @rule(seconds=st.integers(0, 3000))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds

    @rule(key=st.sampled_from("abcdefgh"), times=st.integers(1, 30))
    def ask(self, key: str, times: int) -> None:
        """What is forgotten is only ever forgiven."""
        model = self.models.setdefault(
            key, Textbook(self.rate, Fraction(self.rate.count), self.now)
        )
        for _ in range(times):
            allowed = model.take(self.now)
            for buckets in (self.few, self.many):
                wait = buckets.wait_seconds(key, self.now)
                if buckets is self.many:
                    assert (wait == 0) == allowed
                elif allowed:
                    assert wait == 0
                if wait == 0:
                    buckets.take(key, self.now)

    @rule(key=st.sampled_from("abcdefgh"))
    def undo(self, key: str) -> None:
        """Nothing is gained beyond a full bucket."""
        for buckets in (self.few, self.many):
            buckets.give_back(key, self.now)
        if key in self.models:
            self.models[key].give_back(self.now)

    @invariant()
    def bounded(self) -> None:
        """Whatever happens."""
        if self.maximum:
            assert len(self.few) <= self.maximum


class BucketsTests(SynchronousTestCase):
    """A bucket for each key."""

    def test_machine(self) -> None:
        """The model and the bounds."""
        run_state_machine_as_test(Crowd)

    def test_full_ones_are_forgotten(self) -> None:
        """Memory follows those who ask now, not those who ever did."""
        buckets = Buckets(Rate(10, 10), 10_000)
        for number in range(5000):
            buckets.take(f"k{number}", NOW + number)
        self.assertLess(len(buckets), 5)

    def test_many_keys_at_once(self) -> None:
        """A hundred thousand networks leave no more than the limit behind."""
        buckets = Buckets(Rate(1, 3600), 1000)
        for number in range(100_000):
            key = f"2001:db8:0:{number:x}::/64"
            self.assertEqual(buckets.wait_seconds(key, NOW), 0)
            buckets.take(key, NOW)
        self.assertEqual(len(buckets), 1000)
        # The last ones are remembered.
        self.assertGreater(buckets.wait_seconds("2001:db8:0:1869f::/64", NOW), 0)
