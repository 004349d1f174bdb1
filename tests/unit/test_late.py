"""Tests of parts that are loaded when they are needed."""

import importlib
import sys
from pathlib import Path
from threading import current_thread, main_thread
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from fjmcp_broker.late import Late, ProgramChanged

SOURCE = """
from threading import current_thread
thread = current_thread()
"""


class LateTests(TestCase):
    """A part in a file of its own."""

    timeout = 30

    def setUp(self) -> None:
        """A directory of modules."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.name = f"late_{directory.parent.name}".replace("-", "_")
        self.file = directory / f"{self.name}.py"
        self.file.write_text(SOURCE)
        self.patch(sys, "path", [str(directory.resolve()), *sys.path])
        importlib.invalidate_caches()
        self.addCleanup(sys.modules.pop, self.name, None)
        self.made: list[Any] = []

    def late(self) -> Late[SimpleNamespace]:
        """The part, not loaded."""

        def make(module: Any) -> SimpleNamespace:
            self.made.append(module)
            return SimpleNamespace(thread=module.thread, made_in=current_thread())

        return Late(reactor, self.name, make)

    async def test_loaded_beside_the_event_loop(self) -> None:
        """When it is needed, in a thread; it is made in the loop's."""
        late = self.late()
        self.assertNotIn(self.name, sys.modules)
        part = await late.get()
        self.assertIsNot(part.thread, main_thread())
        self.assertIs(part.made_in, current_thread())

    async def test_made_once(self) -> None:
        """However many ask, and at whatever time."""
        late = self.late()
        parts = await gatherResults(
            [Deferred.fromCoroutine(late.get()) for _ in range(5)]
        )
        parts.append(await late.get())
        self.assertEqual(len(self.made), 1)
        self.assertEqual({id(part) for part in parts}, {id(parts[0])})

    async def test_at_once(self) -> None:
        """What has to be found out at the start is loaded then."""
        late = self.late()
        self.assertIsNone(late.made)
        part = late.now()
        self.assertIs(part.thread, current_thread())
        self.assertEqual([late.now(), await late.get(), late.made], [part] * 3)

    async def test_one_goes_away(self) -> None:
        """The others are served."""
        late = self.late()
        first = Deferred.fromCoroutine(late.get())
        second = Deferred.fromCoroutine(late.get())
        first.addErrback(lambda failure: None)
        first.cancel()
        self.assertIs(await second, await late.get())

    def test_absent(self) -> None:
        """That is found when the daemon starts."""
        self.file.unlink()
        importlib.invalidate_caches()
        self.assertRaises(ModuleNotFoundError, self.late)

    async def test_another_version(self) -> None:
        """Is not mixed with what runs."""
        late = self.late()
        self.file.write_text(SOURCE + "\n# of another version\n")
        with self.assertRaises(ProgramChanged):
            await late.get()
        self.assertNotIn(self.name, sys.modules)

    async def test_uninstalled(self) -> None:
        """Says so as well."""
        late = self.late()
        self.file.unlink()
        importlib.invalidate_caches()
        with self.assertRaises(ProgramChanged):
            await late.get()
