"""Tests of the load itself: it counts right answers, and notices wrong ones."""

import contextlib
import json
import socketserver
import threading
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench import load
from bench.children import ECHO
from bench.processes import Process
from bench.targets import Target
from bench.wire import WireError

_Answer = Callable[[int, dict[str, Any]], bytes]


class _Server(socketserver.ThreadingTCPServer):
    """
    Something to call.

    @ivar answer: the bytes for the call of a number and of a message.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answer: _Answer) -> None:
        self.answer = answer
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    """One connection."""

    server: _Server

    def handle(self) -> None:
        """Answer each call, until the client goes."""
        with contextlib.suppress(ConnectionError):
            self._answer_all()

    def _answer_all(self) -> None:
        number = 0
        while True:
            length = 0
            while (line := self.rfile.readline()) not in {b"\r\n", b""}:
                name, _, value = line.partition(b":")
                if name == b"Content-Length":
                    length = int(value)
            if not line:
                return
            message = json.loads(self.rfile.read(length))
            self.wfile.write(self.server.answer(number, message))
            number += 1


class _Idle(Process):
    """A bridge that is in this process."""

    def __init__(self) -> None:
        """Nothing is started."""

    def cpu_seconds(self) -> float:
        """
        @return: none.
        """
        return 0.0


def _says(id: int, text: str) -> bytes:
    content = [{"type": "text", "text": text}]
    body = json.dumps({"jsonrpc": "2.0", "id": id, "result": {"content": content}})
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body.encode(),
    )


def _right(number: int, message: dict[str, Any]) -> bytes:
    return _says(message["id"], message["params"]["arguments"]["text"])


class RunTests(SynchronousTestCase):
    """Calls whose answers are checked."""

    def run_load(self, answer: _Answer) -> load.Run:
        """
        @param answer: of the server.
        @return: what came of three connections.
        """
        server = _Server(answer)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            target = Target("target", _Idle(), server.server_address[1], ECHO)
            return load.run(target, [target.headers()], 3, 0.05)
        finally:
            server.shutdown()
            thread.join(10)
            server.server_close()

    def test_right(self) -> None:
        """Each call is counted, with its time."""
        ran = self.run_load(_right)
        self.assertEqual(len(ran.latencies), ran.calls)
        self.assertGreater(ran.calls, 0)

    def test_numbers(self) -> None:
        """No two calls are the same, on whichever connection."""
        seen: list[int] = []

        def answer(number: int, message: dict[str, Any]) -> bytes:
            seen.append(message["id"])
            return _right(number, message)

        self.run_load(answer)
        self.assertEqual(len(set(seen)), len(seen))

    def test_wrong(self) -> None:
        """An answer to another call, or with another text, is found later, too."""
        wrong: dict[str, _Answer] = {
            "id": lambda _, m: _says(m["id"] - 1, m["params"]["arguments"]["text"]),
            "text": lambda _, m: _says(m["id"], "else"),
            "status": lambda _, m: _right(0, m).replace(b" 200 ", b" 500 "),
        }
        for what, answer in wrong.items():
            for place in (0, 1, 5):

                def said(
                    number: int,
                    message: dict[str, Any],
                    place: int = place,
                    answer: _Answer = answer,
                ) -> bytes:
                    return (answer if number == place else _right)(number, message)

                with self.assertRaises(WireError, msg=f"{what} {place}"):
                    self.run_load(said)

    def test_other_head(self) -> None:
        """A head that changes is no error."""

        def said(number: int, message: dict[str, Any]) -> bytes:
            head = b"OK\r\nX-Number: %d\r\n" % number
            return _right(number, message).replace(b"OK\r\n", head)

        self.assertGreater(self.run_load(said).calls, 0)

    def test_stale(self) -> None:
        """The whole answer to the call before, once more."""
        last = [b""]

        def said(number: int, message: dict[str, Any]) -> bytes:
            answer, last[0] = last[0], _right(number, message)
            return answer if number == 3 else last[0]

        with self.assertRaises(WireError):
            self.run_load(said)
