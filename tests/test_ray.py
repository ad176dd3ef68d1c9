"""Two workers on a local Ray: the same rows and scores as one process, also when a worker is killed."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from simulsa.audio import SAMPLE_RATE
from simulsa.augmentation.augment import augment
from simulsa.augmentation.config import AugmentConfig
from simulsa.cli import main
from simulsa.commands.parsing import with_default
from simulsa.evaluation.config import EvaluateConfig
from simulsa.evaluation.evaluate import evaluate
from simulsa.evaluation.instances import EvaluationError
from simulsa.integrations.ray import RayConfig, RayWorkers, workers_of
from simulsa.lalm.interface import LALM
from simulsa.lalm.load import ModelConfig, load
from simulsa.manifest import Utterance

Rows = Callable[..., list[Utterance]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="needs simulsa[ray]")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def workers(cluster: None, random_model_folder: Path) -> RayWorkers:
    return RayWorkers(Load(str(random_model_folder)))


@dataclasses.dataclass(frozen=True)
class Load:
    folder: str

    def __call__(self) -> LALM:
        lalm = load(self.folder, device="cpu")
        lalm.max_target_tokens = 12
        return lalm


class Divided:
    def load(self, item: int, frontend: Any, ahead: bool) -> int:
        return item

    def run(self, lalm: LALM, loaded: int) -> float:
        return 1 / loaded


@dataclasses.dataclass(frozen=True)
class KilledOnce:
    """Reports its item; the first process to come across item 2 dies of it."""

    marker: str

    def load(self, item: int, frontend: Any, ahead: bool) -> int:
        return item

    def run(self, lalm: LALM, item: int) -> tuple[int, int]:
        if item == 2 and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item, os.getpid()


def test_augmented_rows_are_those_of_one_process(workers: RayWorkers, random_lalm: Any, make_rows: Rows, tmp_path: Path) -> None:
    rows = make_rows(7)
    config = AugmentConfig(num=7, batch_size=2, preflight=False)
    shared = augment(rows, random_lalm, config, tmp_path / "shared.jsonl", workers)
    augment(rows, random_lalm, config, tmp_path / "alone.jsonl")
    assert len(shared) == 7
    assert (tmp_path / "shared.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()


def test_scores_and_logs_are_those_of_one_process(workers: RayWorkers, random_lalm: Any, make_rows: Rows, tmp_path: Path) -> None:
    config = EvaluateConfig((500, math.inf), (0, 3), tmp_path / "alone", batch_size=2, preflight=False)
    rows = make_rows(5, seconds=1.0)
    alone = evaluate(random_lalm, rows, config)
    shared = evaluate(random_lalm, rows, dataclasses.replace(config, out=tmp_path / "shared"), workers)
    assert shared.scores == alone.scores
    for log in (tmp_path / "alone").glob("*.log"):
        assert (tmp_path / "shared" / log.name).read_bytes() == log.read_bytes()


def test_a_killed_worker_loses_nothing(workers: RayWorkers, tmp_path: Path) -> None:
    with workers.map(KilledOnce(str(tmp_path / "killed")), range(6)) as results:
        done = dict(results)
    assert (tmp_path / "killed").exists()
    assert sorted(done) == [0, 1, 2, 3, 4, 5]
    assert os.getpid() not in done.values()


def test_what_the_work_raises_is_raised_here(workers: RayWorkers, random_lalm: Any, make_rows: Rows) -> None:
    rows = make_rows(3)
    soundfile.write(rows[1].audio, np.full(SAMPLE_RATE, np.nan), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(EvaluationError, match=r"row 'row-1'.*NaN"):
        evaluate(random_lalm, rows, EvaluateConfig((500,), (0,), batch_size=1, preflight=False), workers)
    with pytest.raises(ZeroDivisionError), workers.map(Divided(), [1, 0]) as results:
        list(results)


def test_the_command(cluster: None, make_rows: Rows, write_rows: Callable[[Sequence[Utterance]], Path], tmp_path: Path,
                     random_model_folder: Path) -> None:  # fmt: skip
    manifest = write_rows(make_rows(3))
    given = ["augment", "--manifest", str(manifest), "--model", str(random_model_folder), "--num", "3", "--no-preflight"]
    assert main([*given, "--out", str(tmp_path / "a.jsonl"), "--ray"]) == 0
    assert main([*given, "--out", str(tmp_path / "b.jsonl")]) == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_ray_stands_alone_or_with_an_address() -> None:
    assert with_default(["--ray", "--num", "3"], "--ray", "local") == ["--ray", "local", "--num", "3"]
    assert with_default(["--num", "3", "--ray"], "--ray", "local") == ["--num", "3", "--ray", "local"]
    assert with_default(["--ray", "ray://host:1"], "--ray", "local") == ["--ray", "ray://host:1"]
    assert with_default(["--num", "3"], "--ray", "local") == ["--num", "3"]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert workers_of(RayConfig(), ModelConfig()) is None
    with pytest.raises(RuntimeError, match=r"pip install 'simulsa\[ray\]'"):
        workers_of(RayConfig("local"), ModelConfig())


def test_workers_may_share_an_engine(cluster: None, make_rows: Rows) -> None:
    from tests.engine_server import engine

    here = load("tiny-en-de", "cpu")
    config = AugmentConfig(num=6, batch_size=2, tau=1e-4, preflight=False)
    with engine({"tiny-en-de": here}) as server:
        model = ModelConfig("tiny-en-de", dtype="float32", engine_url=server.url)
        there = model.load()
        alone = augment(make_rows(6), there, config)
        server.seen.clear()
        assert augment(make_rows(6), there, config, workers=RayWorkers(model.load)) == alone
        assert len(server.seen) > 6  # the workers' own checks are among them
