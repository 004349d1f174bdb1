"""
The stand-in child halts where a test wants it to.
"""

from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from tests.real.standin_driver import ChildProcess, DrivenTestCase, reactor

CALL: dict[str, Any] = {
    "id": 3,
    "method": "tools/call",
    "params": {"name": "who_am_i", "arguments": {}},
}


class StepsTests(DrivenTestCase):
    """Each step, one after the other."""

    def setUp(self) -> None:
        """A directory where steps are asked for."""
        super().setUp()
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    async def taken(self, step: str) -> Path:
        """
        @return: the file of the child that stands there.
        """
        for _ in range(1000):
            for file in self.directory.glob(f"{step}@*.*"):
                if file.suffix[1:].isdigit():
                    return file
            await deferLater(reactor, 0.01)
        raise AssertionError(f"nobody came to {step}")

    async def silence(self, child: ChildProcess) -> None:
        """Assert that it says nothing for a while."""
        await deferLater(reactor, 0.2)
        self.assertTrue(child.has_said_nothing)

    async def test_every_step(self) -> None:
        """It stands until the file goes, and has done what it says and no more."""
        steps = ("initialize", "initialized", "tools-list")
        for step in (*steps, "who_am_i.before", "who_am_i.after@tester", "shutdown"):
            (self.directory / step).touch()
        child = self.spawn(STANDIN_CHILD_STEPS=str(self.directory))
        client = {"clientInfo": {"name": "tester", "version": "1"}}
        child.send({"id": 1, "method": "initialize", "params": client})
        child.send({"id": 2, "method": "tools/list"})
        file = await self.taken("initialize")
        self.assertEqual(file.name, f"initialize@tester.{child.pid}")
        await self.silence(child)
        file.unlink()
        self.assertEqual((await child.message())["id"], 1)
        (await self.taken("initialized")).unlink()
        file = await self.taken("tools-list")
        await self.silence(child)
        file.unlink()
        self.assertEqual((await child.message())["id"], 2)
        before = self.controls.count("api")
        child.send(CALL)
        file = await self.taken("who_am_i.before")
        self.assertEqual(self.controls.count("api"), before)
        file.unlink()
        file = await self.taken("who_am_i.after")
        self.assertEqual(self.controls.count("api"), before + 1)
        await self.silence(child)
        file.unlink()
        self.assertEqual((await child.message())["id"], 3)
        child.end_input()
        file = await self.taken("shutdown")
        self.assertTrue(child.is_running)
        file.unlink()
        self.assertEqual((await child.ended()).exit_code, 0)
        self.assertEqual(list(self.directory.iterdir()), [])

    async def test_others_go_on(self) -> None:
        """A step that is asked of another client's child halts nobody."""
        (self.directory / "initialize@somebody").touch()
        child = self.spawn(STANDIN_CHILD_STEPS=str(self.directory))
        child.send({"id": 1, "method": "initialize", "params": {}})
        self.assertEqual((await child.message())["id"], 1)
