"""
Whether the service works, for monitors and load balancers.
"""

import sqlite3
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreError
from fjmcp_broker.web.errors import NO_STORE, answer_json

#: A store that does not answer a trivial query for this long is no store.
STORE_TIMEOUT_SECONDS: Final = 5.0

#: Between the two events of the stream that tells whether streams come through.
STREAM_SECONDS: Final = 1.0


def _touch(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT count(*) FROM instance").fetchone()


class Health:
    """
    C{/healthz}: does everything work; C{/readyz}: may requests be sent here.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        clock: IReactorTime,
        *,
        version: str,
        revision: str,
        build_date: str,
        instance: str = "",
        client_source: Callable[[IRequest], str] | None = None,
        is_ready: Callable[[], bool],
    ) -> None:
        """
        @param database: the store.
        @param clock: bounds the wait for it.
        @param version: of this software.
        @param revision: that it was built from.
        @param build_date: when, RFC 3339.
        @param instance: tells this process from every other; nothing else.
        @param client_source: where what is known about the client's address comes
            from, so that the operator can see whether proxies are set up well.
        @param is_ready: true from when migrations ran and the listener accepts
            until the service begins to stop.
        """
        self._database = database
        self._clock = clock
        self._build = {
            "version": version,
            "revision": revision,
            "build_date": build_date,
            "instance": instance,
        }
        self._client_source = client_source
        self._is_ready = is_ready

    async def healthz(self, request: IRequest) -> bytes:
        """
        @param request: whose content does not matter.
        @return: JSON: C{status} and C{store} (C{ok} or C{failed}), C{version},
            C{revision}, C{build_date}, C{instance}, C{client}; status 503 when the
            store fails.
        """
        works = await self._store_works()
        word = "ok" if works else "failed"
        client = {}
        if self._client_source is not None:
            client["client"] = self._client_source(request)
        return answer_json(
            request,
            {"status": word, "store": word, **self._build, **client},
            200 if works else 503,
            NO_STORE,
        )

    async def stream(self, request: IRequest) -> bytes:
        """
        Two events, the second one later: whoever gets both at once has something
        between that holds streams back.

        @param request: whose content does not matter.
        @return: the second one.
        """
        request.setHeader(b"Content-Type", b"text/event-stream")
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"X-Accel-Buffering", b"no")
        request.write(b": first\n\n")
        await deferLater(self._clock, STREAM_SECONDS)
        return b": second\n\n"

    async def readyz(self, request: IRequest) -> bytes:
        """
        @param request: whose content does not matter.
        @return: JSON: C{status}; 200 C{ready} or 503 C{not ready}.
        """
        ready = self._is_ready()
        return answer_json(
            request,
            {"status": "ready" if ready else "not ready"},
            200 if ready else 503,
            NO_STORE,
        )

    async def _store_works(self) -> bool:
        try:
            await Deferred.fromCoroutine(self._database.read(_touch)).addTimeout(
                STORE_TIMEOUT_SECONDS, self._clock
            )
        except (StoreError, TimeoutError, sqlite3.Error) as error:
            self._log.error("the store does not work: {error}", error=str(error))
            return False
        return True
