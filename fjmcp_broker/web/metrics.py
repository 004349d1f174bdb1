"""
C{/metrics}: the daemon's counters for Prometheus.
"""

from collections.abc import Sequence
from typing import Final

from twisted.web.iweb import IRequest

from fjmcp_broker.config.addresses import Network
from fjmcp_broker.metrics import CONTENT_TYPE, Metrics
from fjmcp_broker.web.errors import NotFound, answer_bytes
from fjmcp_broker.web.limiting import ClientAddresses

METRICS_PATH: Final = "/metrics"


class MetricsEndpoint:
    """
    Shows the metrics to those who may see them.
    """

    def __init__(
        self, metrics: Metrics, addresses: ClientAddresses, allowed: Sequence[Network]
    ) -> None:
        """
        @param metrics: what is shown.
        @param addresses: of clients.
        @param allowed: networks that may see them beside everything else.
        """
        self._metrics = metrics
        self._addresses = addresses
        self._allowed = tuple(allowed)

    async def get(self, request: IRequest) -> bytes:
        """
        @param request: from anybody.
        @return: the metrics.
        @raise NotFound: for those who may not see them there is nothing here.
        """
        address = self._addresses.of(request)
        if address is None or not any(address in each for each in self._allowed):
            raise NotFound
        return await self.show(request)

    async def show(self, request: IRequest) -> bytes:
        """
        @param request: from somebody who may see them.
        @return: the metrics.
        """
        headers = {"Cache-Control": "no-store"}
        return answer_bytes(
            request, self._metrics.render(), CONTENT_TYPE, headers=headers
        )
