"""Tests of the records that share what attrs would write for each."""

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker import attrs as ours

VALUES = st.none() | st.integers(0, 3) | st.sampled_from(["", "a", "b"])


@ours.frozen
class Ours:
    """Of this package."""

    _hidden: object
    shown: object = ours.field(default=None)
    unseen: object = ours.field(default=None, repr=False, eq=False)
    masked: object = ours.field(default=None, repr=lambda value: "***")


@attrs.frozen
class Theirs:
    """The same, all of it made by attrs."""

    _hidden: object
    shown: object = attrs.field(default=None)
    unseen: object = attrs.field(default=None, repr=False, eq=False)
    masked: object = attrs.field(default=None, repr=lambda value: "***")


@ours.frozen
class One:
    """With one field."""

    value: object


@ours.frozen
class Another:
    """With the same field."""

    value: object


@ours.frozen
class Empty:
    """Without any."""


@ours.frozen(eq=False)
class Single:
    """Equal to itself alone."""

    value: int


@ours.define
class Changing:
    """Not for ever."""

    value: object


@ours.frozen
class Written:
    """Says itself what it is."""

    value: int

    def __repr__(self) -> str:
        return "written"

    def __eq__(self, other: object) -> bool:
        return other == self.value

    def __hash__(self) -> int:
        return self.value


class RecordTests(SynchronousTestCase):
    """Records are those of attrs."""

    @given(st.tuples(*[VALUES] * 4), st.tuples(*[VALUES] * 4))
    def test_as_attrs_makes_them(
        self, one: tuple[object, ...], other: tuple[object, ...]
    ) -> None:
        """Compared, counted in sets and shown alike."""
        self.assertEqual(Ours(*one) == Ours(*other), Theirs(*one) == Theirs(*other))
        self.assertEqual(Ours(*one) != Ours(*other), Theirs(*one) != Theirs(*other))
        self.assertEqual(
            len({Ours(*one), Ours(*other)}), len({Theirs(*one), Theirs(*other)})
        )
        self.assertEqual(repr(Ours(*one)), repr(Theirs(*one)).replace("Theirs", "Ours"))

    def test_of_another_class(self) -> None:
        """Never equal, whatever the fields are."""
        self.assertNotEqual(One(1), Another(1))
        self.assertNotEqual(One(1), 1)

    def test_one_field_and_none(self) -> None:
        """Fields are compared and not their number."""
        self.assertEqual(One((1, 2)), One((1, 2)))
        self.assertNotEqual(One(1), One(2))
        self.assertEqual({Empty(), Empty()}, {Empty()})
        self.assertEqual((repr(Empty()), repr(One(1))), ("Empty()", "One(value=1)"))

    def test_without_comparison(self) -> None:
        """Each is equal to itself alone."""
        single = Single(1)
        self.assertNotEqual(single, Single(1))
        self.assertEqual({single, single}, {single})
        self.assertEqual(repr(single), "Single(value=1)")

    def test_what_changes(self) -> None:
        """Is compared, and belongs into no set."""
        self.assertEqual(Changing(1), Changing(1))
        self.assertRaises(TypeError, hash, Changing(1))

    def test_inside_itself(self) -> None:
        """Showing it ends."""
        changing = Changing(None)
        changing.value = changing
        self.assertEqual(repr(changing), "Changing(value=...)")

    def test_what_a_class_says_itself(self) -> None:
        """Is kept."""
        self.assertEqual((repr(Written(2)), hash(Written(2))), ("written", 2))
        self.assertTrue(Written(2) == 2)

    def test_attrs_knows_them(self) -> None:
        """They can be changed and taken apart."""
        changed = attrs.evolve(Ours(1), shown=2)
        self.assertEqual(attrs.asdict(changed)["shown"], 2)
        self.assertEqual(attrs.fields(Ours).unseen.default, None)
        self.assertFalse(hasattr(attrs.fields(Ours), "absent"))
        self.assertTrue(attrs.has(Ours))
        self.assertRaises(
            attrs.exceptions.FrozenInstanceError, setattr, changed, "shown", 3
        )
