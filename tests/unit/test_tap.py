"""Tests of what only the daemon does to its process."""

import gc

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.tap import OLDER, YOUNG_OBJECTS, settle


class CollectionTests(SynchronousTestCase):
    """The garbage collector of a daemon."""

    def test_what_was_there_first(self) -> None:
        """It passes over what the daemon began with; new rings are still found."""
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        settle()
        self.assertGreater(gc.get_freeze_count(), 10_000)
        self.assertEqual(gc.get_threshold(), (YOUNG_OBJECTS, OLDER, OLDER))
        ring: list[object] = []
        ring.append(ring)
        del ring
        self.assertGreaterEqual(gc.collect(), 1)
