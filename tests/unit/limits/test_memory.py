"""Memory that many share."""

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.limits.memory import Held, Memory, MemoryBounds

BOUNDS = MemoryBounds(100, 50, small_bytes=5, kept_for_small_bytes=20)
HOLDERS = st.sampled_from([None, "a", "b", "c"])


class Shared(RuleBasedStateMachine):
    """Things that grow and end, beside a list of what they hold."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(BOUNDS)
        self.things: list[Held] = []
        self.model: list[tuple[str | None, int]] = []

    def room(self, holder: str | None, more: int, size: int) -> bool:
        """What the bounds say."""
        total = sum(each for _, each in self.model) + more
        own = sum(each for one, each in self.model if one == holder) + more
        return total <= (80 if size > 5 else 100) and (holder is None or own <= 50)

    @rule()
    def begin(self) -> None:
        """Nobody's yet."""
        self.things.append(Held(self.memory))
        self.model.append((None, 0))

    @rule(number=st.integers(0, 20), more=st.integers(0, 60))
    def grow(self, number: int, more: int) -> None:
        """As far as there is room."""
        if number < len(self.things):
            holder, size = self.model[number]
            expected = self.room(holder, more, size + more)
            assert self.things[number].grow(more) == expected
            if expected:
                self.model[number] = (holder, size + more)

    @rule(number=st.integers(0, 20), holder=HOLDERS, size=st.integers(0, 90))
    def assign(self, number: int, holder: str | None, size: int) -> None:
        """It becomes somebody's, or ends."""
        if number < len(self.things):
            already = self.model[number][1]
            self.model[number] = (holder, 0)
            whole = max(already, size)
            expected = self.room(holder, whole, whole)
            assert self.things[number].belongs_to(holder, size) == expected
            if expected:
                self.model[number] = (holder, already)

    @rule(holder=HOLDERS, size=st.integers(0, 90))
    def hold(self, holder: str | None, size: int) -> None:
        """Something that is there as a whole."""
        thing = Held(self.memory)
        expected = self.room(holder, size, size)
        assert thing.hold(holder, size) == expected
        self.things.append(thing)
        self.model.append((holder, size if expected else 0))

    @rule(number=st.integers(0, 20))
    def release(self, number: int) -> None:
        """Any number of times."""
        if number < len(self.things):
            self.things[number].release()
            self.model[number] = (self.model[number][0], 0)

    @invariant()
    def adds_up(self) -> None:
        """Never more than there is, nothing lost."""
        assert self.memory.held_bytes == sum(each for _, each in self.model) <= 100


class MemoryTests(SynchronousTestCase):
    """The model and the bounds."""

    def test_machine(self) -> None:
        """Whatever happens in whichever order."""
        run_state_machine_as_test(Shared)

    def test_holders_are_forgotten(self) -> None:
        """Those who hold nothing cost nothing."""
        memory = Memory(BOUNDS)
        for number in range(1000):
            self.assertTrue(memory.take(str(number), 50, 50))
            memory.give_back(str(number), 50)
        self.assertEqual(len(memory._by_holder), 0)
