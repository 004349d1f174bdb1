"""
One daemon per store.
"""

import os

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.store.errors import StoreRefused
from fjmcp_broker.store.lock import StoreLock


class LockTests(SynchronousTestCase):
    def setUp(self) -> None:
        os.mkdir(folder := self.mktemp())
        self.path = os.path.join(folder, "store.db")
        self.clock = Clock()

    def lock(self) -> StoreLock:
        lock = StoreLock(self.path)
        self.addCleanup(lock.release)
        return lock

    def acquire(self, lock: StoreLock, wait_seconds: float = 30) -> "Deferred[None]":
        return Deferred.fromCoroutine(lock.acquire(self.clock, wait_seconds))

    def test_free_lock_is_taken_at_once(self) -> None:
        """
        The first daemon does not wait, and writes down who it is.
        """
        lock = self.lock()
        self.successResultOf(self.acquire(lock))
        self.assertTrue(lock.is_held)
        with open(lock.path) as file:
            self.assertEqual(file.read(), f"{os.getpid()} {os.uname().nodename}\n")
        self.assertTrue(lock.try_acquire())

    def test_second_waits_until_the_first_releases(self) -> None:
        """
        A daemon that starts while the one before still stops takes over from it.
        """
        first, second = self.lock(), self.lock()
        first.try_acquire()
        waiting = self.acquire(second)
        self.clock.pump([0.25] * 40)
        self.assertNoResult(waiting)
        first.release()
        self.clock.advance(0.25)
        self.successResultOf(waiting)
        self.assertTrue(second.is_held)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_second_gives_up_and_names_the_holder(self) -> None:
        """
        After half a minute the second daemon says who uses the store.
        """
        self.lock().try_acquire()
        second = self.lock()
        waiting = self.acquire(second)
        self.clock.pump([0.25] * 120)
        failure = self.failureResultOf(waiting, StoreRefused)
        self.assertEqual(
            str(failure.value),
            f"the store {self.path} is in use by process {os.getpid()} on"
            f" {os.uname().nodename}; only one daemon can use a store (waited 30 s for"
            f" {second.path})",
        )
        self.assertFalse(second.is_held)

    def test_holder_that_wrote_nothing_is_another_process(self) -> None:
        """
        A lock file without a name in it is no obstacle to the message.
        """
        first = self.lock()
        first.try_acquire()
        os.truncate(first.path, 0)
        failure = self.failureResultOf(self.acquire(self.lock(), 0), StoreRefused)
        self.assertIn("is in use by another process;", str(failure.value))

    def test_cancelled_wait_leaves_nothing(self) -> None:
        """
        A stop during the wait ends it.
        """
        self.lock().try_acquire()
        second = self.lock()
        waiting = self.acquire(second)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(second.is_held)

    def test_blocking_wait_gives_up_too(self) -> None:
        """
        Where no reactor runs the wait is the same.
        """
        first, second = self.lock(), self.lock()
        first.try_acquire()
        self.assertRaises(
            StoreRefused,
            second.acquire_blocking,
            30,
            sleep=self.clock.advance,
            monotonic=self.clock.seconds,
        )
        self.assertEqual(self.clock.seconds(), 30)

        def sleep(seconds: float) -> None:
            first.release()

        second.acquire_blocking(30, sleep=sleep, monotonic=self.clock.seconds)
        self.assertTrue(second.is_held)

    def test_every_name_of_a_store_has_the_same_lock(self) -> None:
        """
        A symbolic link is no way around the lock.
        """
        self.lock().try_acquire()
        link = self.mktemp()
        os.symlink(os.path.abspath(self.path), link)
        self.assertFalse(StoreLock(link).try_acquire())

    def test_unwritable_lock_file_is_refused(self) -> None:
        """
        The reason is named in one line.
        """
        self.path = "/proc/store.db"
        error = self.assertRaises(StoreRefused, self.lock().try_acquire)
        self.assertEqual(
            str(error),
            "the store /proc/store.db cannot be used: cannot write /proc/store.db.lock:"
            " No such file or directory",
        )

    def test_releasing_twice_does_nothing(self) -> None:
        """
        A lock that is not held can be given up.
        """
        lock = self.lock()
        lock.try_acquire()
        lock.release()
        lock.release()
        self.assertFalse(lock.is_held)
        self.assertTrue(os.path.exists(lock.path))
