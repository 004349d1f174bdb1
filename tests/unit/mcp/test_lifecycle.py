"""The session machine: any inputs in any order, and the page that is made from it."""

from pathlib import Path

from automat import NoTransition
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.lifecycle import (
    CHANGES,
    Change,
    Lifecycle,
    LifecycleCore,
    State,
    make_lifecycle,
    page,
)

PAGE = Path(__file__).parents[3] / "docs" / "session-machine.md"
EVENTS = sorted(name for name in vars(Lifecycle) if not name.startswith("_"))
ACTIONS = {name for name in vars(LifecycleCore) if not name.startswith("_")}


class ModelCore:
    """
    A session with children that are nothing but flags.
    """

    def __init__(self) -> None:
        self.state = State.DORMANT
        self.current = self.next = False
        self.old = 0
        self.waiting = 0
        self.answered: list[bool] = []

    def entered(self, change: Change) -> None:
        assert change.source is self.state
        self.state = change.target

    def start_child(self) -> None:
        assert not self.next
        self.next = True

    def abandon_start(self) -> None:
        assert self.next
        self.next = False

    def promote(self) -> None:
        assert self.next
        self.old += self.current
        self.current, self.next = True, False

    def stop_child(self) -> None:
        assert self.current
        self.current = False

    def lose_child(self) -> None:
        assert self.current
        self.current = False

    def release_waiting(self) -> None:
        assert self.current
        self.answered += [True] * self.waiting
        self.waiting = 0

    def fail_waiting(self) -> None:
        self.answered += [False] * self.waiting
        self.waiting = 0


class Model(RuleBasedStateMachine):
    """
    What clients, timers and children do, in any order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.core = ModelCore()
        self.machine = make_lifecycle(self.core)
        self.asked = 0

    @precondition(lambda self: self.core.state is not State.CLOSED)
    @rule()
    def wake(self) -> None:
        if not self.core.current:
            self.core.waiting += 1
            self.asked += 1
        self.machine.wake()

    @rule()
    def rotate(self) -> None:
        self.machine.rotate()

    @rule()
    def sleep(self) -> None:
        self.machine.sleep()

    @rule()
    def close(self) -> None:
        self.machine.close()

    @precondition(lambda self: self.core.next)
    @rule()
    def child_ready(self) -> None:
        self.machine.child_ready()

    @precondition(lambda self: self.core.next)
    @rule()
    def child_failed(self) -> None:
        self.core.next = False
        self.machine.child_failed()

    @precondition(lambda self: self.core.current)
    @rule()
    def child_ended(self) -> None:
        self.machine.child_ended()

    @invariant()
    def children_fit_the_state(self) -> None:
        expected = {
            State.DORMANT: (False, False),
            State.STARTING: (False, True),
            State.LIVE: (True, False),
            State.ROTATING: (True, True),
            State.CLOSED: (False, False),
        }
        assert (self.core.current, self.core.next) == expected[self.core.state]

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        if not self.core.next:
            assert self.core.waiting == 0
        assert len(self.core.answered) + self.core.waiting == self.asked


class LifecycleTests(SynchronousTestCase):
    """The machine."""

    def test_any_order(self) -> None:
        """Whoever waits is told, and no child is left over or started twice."""
        run_state_machine_as_test(Model, settings=settings(max_examples=200))

    @given(st.lists(st.sampled_from(EVENTS), max_size=30))
    def test_only_the_table(self, events: list[str]) -> None:
        """An input that a state does not list is an error and changes nothing."""
        core = ModelCore()
        machine = make_lifecycle(core)
        for event in events:
            state = core.state
            if event == "child_failed":
                core.next = False
            expected = [c for c in CHANGES if (c.source, c.event) == (state, event)]
            if expected:
                getattr(machine, event)()
                self.assertIs(core.state, expected[0].target)
            else:
                self.assertRaises(NoTransition, getattr(machine, event))
                self.assertIs(core.state, state)
                return

    def test_table_is_made_of_known_names(self) -> None:
        """Of inputs and actions."""
        for change in CHANGES:
            self.assertIn(change.event, EVENTS)
            self.assertLessEqual(set(change.actions), ACTIONS)
        self.assertEqual(len({(c.source, c.event) for c in CHANGES}), len(CHANGES))

    def test_an_input_during_another_one_comes_after_it(self) -> None:
        """A child that fails while it is started leaves the session dormant."""
        core = ModelCore()
        machine = make_lifecycle(core)
        start = core.start_child

        def failing() -> None:
            start()
            core.next = False
            machine.child_failed()
            self.assertIs(core.state, State.STARTING)

        self.patch(core, "start_child", failing)
        core.waiting = 1
        machine.wake()
        self.assertIs(core.state, State.DORMANT)
        self.assertEqual(core.answered, [False])

    def test_page_is_current(self) -> None:
        """C{make generate} has been run."""
        self.assertEqual(PAGE.read_text(encoding="utf-8"), page())
