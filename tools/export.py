"""Export the trained SAEs as a folder that can be uploaded as a Hugging Face model repository.

python -m tools.export DIR writes DIR/POINT/VARIANT/{cfg.json,sae_weights.safetensors} for every SAE below
models/sae, and DIR/README.md, a model card. Each loads with SAELens: SAE.load_from_disk, or SAE.from_pretrained(REPO,
"POINT/VARIANT") after an upload.
"""

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

from pipeline.core.cli import exit_on_user_error
from pipeline.core.errors import FileError, UserError
from pipeline.core.files import read_json, write_text
from pipeline.lm.lock import ModelLock
from pipeline.sae.model import CONFIG, WEIGHTS, Sae
from pipeline.stages import paths

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

    Raises: UserError when `target` is not empty or cannot be made, the licence is no name of one, or there is no SAE or
        no metrics of one.
    """
    if not re.fullmatch(r"[A-Za-z0-9.+-]+", license):
        raise UserError(f"license {license!r} is not allowed: give the name of one, such as cc-by-nc-4.0")
    folders = sorted(file.parent for file in paths.SAES.glob(f"*/*/{CONFIG}"))
    if not folders:
        raise FileError(f"{paths.SAES} holds no SAE")
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
    _make_empty(target)
    for folder, name in zip(folders, names, strict=True):
        (target / name).mkdir(parents=True)
        for file in (CONFIG, WEIGHTS):
            shutil.copyfile(folder / file, target / name / file)
    write_text(target / "README.md", card)
    return names


def _make_empty(folder: Path) -> None:
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        if not taken:
            folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"{folder} cannot be made ({error}): choose another folder") from None
    if taken:
        raise UserError(f"{folder} is there already and is not an empty folder: choose another one")


def _row(name: str) -> str:
    sae = Sae.load(paths.SAES / name)
    file = paths.METRICS / "sae" / f"{name}.json"
    metrics: dict[str, Any] = read_json(file)
    try:
        held_out, fidelity = metrics["held_out"], metrics["fidelity"] or {}
        numbers = [held_out["l0"], held_out["fvu"], held_out["dead_fraction"], fidelity.get("ce_recovered")]
    except (KeyError, TypeError, AttributeError):
        raise FileError(f"{file} does not hold the metrics of an SAE") from None
    # what is not a number was not defined, such as the FVU of activations that are all the same
    cells = [f"{number:.3g}" if isinstance(number, int | float) else "" for number in numbers]
    return " | ".join([f"| {name}", sae.architecture, str(sae.latents), *cells]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", metavar="DIR", type=Path, help="a folder that is not there yet, or empty")
    parser.add_argument("--license", default="cc-by-nc-4.0", help="of the SAEs, for the card (default: %(default)s)")
    options = parser.parse_args()
    names = export(options.target, options.license)
    print(f"{len(names)} SAEs in {options.target}: upload with 'hf upload OWNER/NAME {options.target}'")


if __name__ == "__main__":
    exit_on_user_error(main)
