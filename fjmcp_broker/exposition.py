"""
Numbers in the text format of Prometheus.

Only this module needs the library, and it is loaded when somebody looks for the first
time: most daemons are never asked, and it takes more than 1 MiB.
"""

from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from fjmcp_broker.series import Durations, Numbers


class Exposition:
    """
    Shows the numbers of one daemon, and those that the system has of its process.
    """

    def __init__(self, shown: Iterable[Numbers | Durations]) -> None:
        """
        @param shown: in this order.
        @raise ValueError: a name is there twice.
        """
        self._registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self._registry)
        for each in shown:
            self._registry.register(_Shown(each))

    def render(self) -> bytes:
        """
        @return: all of it, as it is now.
        """
        return generate_latest(self._registry)


class _Shown(Collector):
    """Makes samples when they are asked for."""

    def __init__(self, numbers: Numbers | Durations) -> None:
        self._numbers = numbers

    def collect(self) -> list[Metric]:
        """
        @return: the one family.
        """
        if isinstance(self._numbers, Numbers):
            return [_family(self._numbers)]
        return [_histogram(self._numbers)]


def _family(numbers: Numbers) -> Metric:
    make = CounterMetricFamily if numbers.only_grow else GaugeMetricFamily
    family = make(numbers.name, numbers.help, labels=numbers.labels)
    for values, number in numbers.read().items():
        family.add_metric(values, number)
    return family


def _histogram(durations: Durations) -> Metric:
    family = HistogramMetricFamily(
        durations.name, durations.help, labels=durations.labels
    )
    bounds = [*map(floatToGoString, durations.bounds), "+Inf"]
    for values, some in durations.read().items():
        columns = zip(*(series.by_bucket for series in some), strict=True)
        up_to = map(float, accumulate(map(sum, columns)))
        family.add_metric(
            values,
            buckets=list(zip(bounds, up_to, strict=True)),
            sum_value=sum(series.seconds for series in some),
        )
    return family
