"""Prometheus: a collector that reads what pools, entrypoints, worker groups and event loops count.

    from threadlets.adapters.prometheus import PoolCollector

    PoolCollector().register()          # from now on, /metrics has it

Nothing is counted for this: the figures are there anyway, and are read when Prometheus scrapes, on whatever thread it
does so. What there is, and of whom, is in ``measures.py``: of pools with a name, and of decorated entrypoints.

A ``Pool(name="crawler")`` is told as ``threadlets_pool_queued{pool="crawler"}``, and so on. Quantiles are those since
the beginning; for an average over some time, use ``rate(..._sum) / rate(..._count)``.

Rejected: metric objects of prometheus_client that are updated as things happen, for that costs 1 us each time;
histograms, for which the core would have to keep buckets that are the same everywhere.

Assumes: one process. The multiprocess mode of prometheus_client knows no collectors: scrape each process.
Tested with prometheus_client 0.20 and 0.26.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from threadlets import Entrypoint, Percentiles, Pool

from .installations import Changes, Installation, check_version
from .measures import MEASURES, Figures, Measure, Reader

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError("metrics for Prometheus need prometheus_client: pip install 'threadlets[metrics]'") from error

__all__ = ["TESTED", "Installation", "PoolCollector"]

TESTED = ("0",)  # versions of prometheus_client: 0.20 and 0.26

_FAMILIES: dict[str, type[CounterMetricFamily | GaugeMetricFamily | SummaryMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "summary": SummaryMetricFamily,
}
_QUANTILES = {"0.5": "p50", "0.9": "p90", "0.99": "p99", "1": "most"}


class PoolCollector(Collector):
    """What threadlets count, for a registry of prometheus_client. Thread: any, for every method.

    Args:
        registry: Where ``register()`` puts it.
        pools: Which pools; None: all that have a name. A function that returns some is asked at each scrape. They are
            not kept alive by this.
        entrypoints: Which entrypoints; None: all that were decorated, and called.
        prefix: What the names of all metrics begin with.

    Raises:
        TypeError: For something that is no pool, or no entrypoint.
        ValueError: If a name of Prometheus cannot begin with the prefix.
    """

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        pools: Iterable[Pool] | Callable[[], Iterable[Pool]] | None = None,
        entrypoints: Iterable[Entrypoint[..., Any]] | Callable[[], Iterable[Entrypoint[..., Any]]] | None = None,
        prefix: str = "threadlets",
    ) -> None:
        if not re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", prefix):
            raise ValueError(f"prefix={prefix!r}: expected letters, digits and underscores, no digit first")
        self.registry = registry
        self.prefix = prefix
        self._reader = Reader(pools, entrypoints)
        self._changes: Changes[None] = Changes(self._change)

    def register(self) -> Installation[None]:
        """Have the registry ask this at each scrape. It may be called several times, and lasts until each was undone.

        Returns:
            What undoes it; also a context manager.

        Raises:
            ValueError: If the registry has metrics of these names: another collector with this prefix.

        Warns:
            RuntimeWarning: If it was not tested with this version of prometheus_client.
        """
        return self._changes.install(None)

    def unregister(self) -> None:
        """Undo the last ``register()`` that was not undone; nothing, if there is none."""
        self._changes.uninstall()

    def _change(self, changes: Changes[None]) -> None:
        _check()
        self.registry.register(self)
        changes.undo_by(lambda: self.registry.unregister(self))

    def describe(self) -> Iterator[Metric]:
        """Say which metrics there may be, so that a registry knows who has which names."""
        return (self._family(measure) for measure in MEASURES)

    def collect(self) -> Iterator[Metric]:
        """Read all figures."""
        return self._families(self._reader.read())

    def _families(self, figures: Figures) -> Iterator[Metric]:
        for measure in MEASURES:
            family = self._family(measure)
            for labels, value in sorted(figures.get(measure, {}).items()):
                if isinstance(value, Percentiles):
                    family.add_metric(labels, count_value=value.count, sum_value=value.total)
                    named = dict(zip(measure.labels, labels, strict=True))
                    for quantile, attribute in _QUANTILES.items() if value.count else ():
                        family.add_sample(family.name, {**named, "quantile": quantile}, getattr(value, attribute))
                else:
                    family.add_metric(labels, value)
            yield family

    def _family(self, measure: Measure) -> Any:
        name = "_".join(filter(None, [self.prefix, measure.name.replace(".", "_"), measure.unit]))
        return _FAMILIES[measure.kind](name, measure.help, labels=measure.labels)


def _check() -> None:
    try:
        here = version("prometheus_client")
    except PackageNotFoundError:  # it was copied into a program: it may be any
        return
    check_version(
        "threadlets.adapters.prometheus", "prometheus_client", here, TESTED, "read Pool.statistics() yourself"
    )
