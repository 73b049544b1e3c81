"""Export the trained SAEs as a folder that can be uploaded as a Hugging Face model repository.

python -m pipeline.sae.export DIR writes DIR/POINT/VARIANT/{cfg.json,sae_weights.safetensors} for every SAE below
models/sae, and DIR/README.md, a model card. Each loads with SAELens: SAE.load_from_disk, or SAE.from_pretrained(REPO,
"POINT/VARIANT") after an upload.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.cli import exit_on_user_error
from pipeline.errors import UserError
from pipeline.files import read_json, write_text
from pipeline.model.lock import ModelLock
from pipeline.sae.model import CONFIG, WEIGHTS

CARD = """---
library_name: saelens
license: {license}
tags:
- sparse-autoencoder
- interpretability
---

# Sparse autoencoders for {model}

Trained on activations of {model} ({architecture}, {layers} layers, width {width}) at red-team prompts. What comes of
data under a non-commercial licence is for non-commercial use.

| SAE | kind | latents | L0 | FVU | dead | cross-entropy recovered |
|---|---|---|---|---|---|---|
{rows}

L0 (active latents a token), FVU (fraction of variance unexplained) and dead latents are on held-out prompts. Load one
with `SAE.load_from_disk("{example}")` of SAELens 6.
"""


def export(target: Path, license: str) -> list[str]:
    """Copy the SAEs below models/sae into `target` and write its model card; return their names, POINT/VARIANT.

    Raises: UserError when `target` is not empty, or there is no SAE or no metrics of one.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already and is not an empty folder: choose another one")
    folders = sorted(file.parent for file in paths.SAES.glob(f"*/*/{CONFIG}"))
    if not folders:
        raise UserError(f"{paths.SAES} holds no SAE: run 'dvc repro' to train one")
    lock = ModelLock.read(paths.MODEL_LOCK)
    names = [folder.relative_to(paths.SAES).as_posix() for folder in folders]
    card = CARD.format(
        license=license,
        model=f"{lock.repo} at {lock.commit}" if lock.repo else lock.path,
        architecture=lock.architecture,
        layers=lock.layers,
        width=lock.width,
        rows="\n".join(_row(name) for name in names),
        example=names[0],
    )
    for folder, name in zip(folders, names, strict=True):
        (target / name).mkdir(parents=True)
        for file in (CONFIG, WEIGHTS):
            shutil.copyfile(folder / file, target / name / file)
    write_text(target / "README.md", card)
    return names


def _row(name: str) -> str:
    config: dict[str, Any] = read_json(paths.SAES / name / CONFIG)
    metrics: dict[str, Any] = read_json(paths.METRICS / "sae" / f"{name}.json")
    held_out, fidelity = metrics["held_out"], metrics["fidelity"]
    recovered = f"{fidelity['ce_recovered']:.3f}" if fidelity else ""
    return (
        f"| {name} | {config['architecture']} | {config['d_sae']} | {held_out['l0']:.1f} | {held_out['fvu']:.3f} "
        f"| {held_out['dead_fraction']:.3f} | {recovered} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", metavar="DIR", type=Path, help="a folder that is not there yet, or empty")
    parser.add_argument("--license", default="cc-by-nc-4.0", help="of the SAEs, for the card (default: %(default)s)")
    options = parser.parse_args()
    names = export(options.target, options.license)
    print(f"{len(names)} SAEs in {options.target}: upload with 'hf upload OWNER/NAME {options.target}'")


if __name__ == "__main__":
    exit_on_user_error(main)
