"""Ray actors as workers for `augment` and `evaluate`, on one machine or a cluster; each holds a copy of the model.

Ray restarts an actor that dies and repeats its batch, so nothing is lost. Results do not depend on the worker, so they equal
those of a single process. (Ray Data would start new actors for every data set, so an evaluation would reload the model for
every setting.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from simulsa.extras import optional
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import ModelConfig
from simulsa.lalm.workers import Item, Result, Work
from simulsa.loading import Failed, Processes
from simulsa.settings import check_whole_numbers

logger = logging.getLogger("simulsa")

LOCAL_CLUSTER = "local"


@dataclass(frozen=True)
class RayConfig:
    """Whether to distribute the work with Ray, and over how many workers."""

    ray: str = ""
    """address of a Ray cluster, `auto` for the one this machine belongs to, or `local` (also --ray alone); empty: no Ray"""
    ray_workers: int = 2
    """number of workers, each with a copy of the model and, on GPUs, a GPU of its own"""

    def __post_init__(self) -> None:
        check_whole_numbers(self, {"ray_workers": 1})


class RayWorkers:
    """Actors on a Ray cluster, which live as long as this object; implements `simulsa.lalm.workers.Workers`."""

    def __init__(self, load: Callable[[], LALM], count: int = 2, gpus: float = 0.0, encoder_cache_mib: float = 0.0) -> None:
        """`load` makes an actor's model: it must be picklable and return the same model as in the calling process. `gpus` is
        the number of GPUs per actor, `encoder_cache_mib` the size of its encoder cache."""
        import ray
        from ray.util import ActorPool

        remote = ray.remote(num_gpus=gpus, max_restarts=-1, max_task_retries=-1)(_Actor)
        self._actors = [remote.remote(load, encoder_cache_mib) for _ in range(count)]
        self._pool = ActorPool(self._actors)

    @contextmanager
    def map(self, work: Work[Item, Result], items: Sequence[Item], processes: Processes = 0) -> Iterator[Iterator[Result]]:
        """The results in any order (see `Workers.map`); each actor loads what it runs."""
        yield self._results(work, items)

    def _results(self, work: Work[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        for outcome in self._pool.map_unordered(lambda actor, item: actor.do.remote(work, item), items):
            if isinstance(outcome, Failed):
                raise outcome.error
            yield outcome


class _Actor:
    """Holds a model and processes one item at a time."""

    def __init__(self, load: Callable[[], LALM], encoder_cache_mib: float) -> None:
        from simulsa.lalm.cache import CachedLALM

        lalm = load()
        self._lalm = CachedLALM(lalm, encoder_cache_mib) if encoder_cache_mib else lalm

    def do(self, work: Work[Any, Any], item: Any) -> Any:
        try:
            return work.run(self._lalm, work.load(item, self._lalm.frontend, ahead=False))
        except Exception as error:  # whatever it is, the caller handles it; Ray would wrap it in an error of its own
            return Failed(error)


def workers_of(config: RayConfig, model: ModelConfig, encoder_cache_mib: float = 0.0) -> RayWorkers | None:
    """Join the cluster and return the workers that a command requests, if any. Raises `RuntimeError` if Ray is missing."""
    if not config.ray:
        return None
    ray = join(config.ray)
    if (cores := ray.cluster_resources().get("CPU", 0)) < config.ray_workers:
        logger.warning(
            "ray: %d workers are requested but the cluster has %g cores; waiting for it to scale up", config.ray_workers, cores
        )
    return RayWorkers(model.load, config.ray_workers, float(model.on_gpu), encoder_cache_mib)


def join(address: str) -> Any:
    """Connect to the cluster at `address` and return the `ray` module. Raises `RuntimeError` if it is not installed."""
    ray = optional("ray", "ray", "--ray")
    if not ray.is_initialized():
        # `local` starts its own Ray cluster, even if the environment gives the address of another one
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    return ray
