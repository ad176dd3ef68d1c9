"""Bundle the adapter of the recipe `many` with the bundled model, as `tiny-en-de-simul`.

python -m recipes.experiments.bundle --data ../shared/data/multi30k --assets .assets --work .experiments
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from recipes.command import run
from recipes.experiments.ideas import bundled_lab
from recipes.experiments.systems import BEST
from recipes.experiments.workers import LabConfig
from simulsa import strict_json
from simulsa.files import write_json
from simulsa.lalm.parts import RECORD, read_record

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class BundleConfig:
    """Which seed's adapter, and where it goes."""

    lab: LabConfig = field(default_factory=bundled_lab)
    out: Path = Path("src/simulsa/models/tiny-en-de-simul")
    """folder of the bundled adapter"""
    seed: int = 0
    """seed of cuts and training"""
    kept: float = 0.75
    """share of the trained update that is kept (interpolation with the base, as in WiSE-FT, arXiv 2109.01903): the whole one
    stops too early on sentences that are no captions"""


def bundle(config: BundleConfig) -> None:
    """Train the adapter, unless the lab already has it, and copy the files that `simulsa.load` reads."""
    lab = config.lab.open()
    adapter = Path(lab.tuned(BEST, config.seed, lab.base).name)
    config.out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(adapter / WEIGHTS, config.out / WEIGHTS)
    settings = strict_json.loads((adapter / SETTINGS).read_text(encoding="utf-8"))
    write_json(config.out / SETTINGS, {**settings, "lora_alpha": config.kept * settings["lora_alpha"]})
    record = read_record(adapter)
    # do not record the path where it was trained
    write_json(config.out / RECORD, {**record, "settings": {**record["settings"], "out": config.out.name}})
    print(f"{adapter} copied to {config.out}")


if __name__ == "__main__":
    run(bundle, BundleConfig, __doc__)
