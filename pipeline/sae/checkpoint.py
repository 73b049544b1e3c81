"""Save the state of a training run, so that a run that was killed goes on and ends with the same bytes."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.core.files import replacing
from pipeline.sae.run import Run

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Checkpoint:
    """A safetensors file with weights, Adam's moments, dead-latent counters and the curve. None: nothing is saved.

    The file is written under a temporary name, synced and renamed, so the last good one is there whatever happens.
    """

    def __init__(self, path: Path | None, settings: list[Any], seconds: float) -> None:
        """`settings`: everything that determines the run. A file of other settings or other code is never used."""
        self._path = path
        self._seconds = seconds
        code = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.rglob("*.py")))
        self._key = hashlib.sha256(code + json.dumps([*settings, torch.__version__]).encode()).hexdigest()
        self._last = time.monotonic()

    def save_if_due(self, run: Run) -> None:
        if self._path is None or time.monotonic() - self._last < self._seconds:
            return
        tensors = {f"weights {name}": weight.detach() for name, weight in run.weights.items()}
        tensors |= {f"best {name}": weight for name, weight in run.best.items()}
        tensors |= {f"dial {name}": dial for name, dial in run.memory.dials.items()}
        tensors["last_fired"] = run.memory.last_fired
        for name, weight in run.weights.items():
            for moment in _MOMENTS:
                tensors[f"{moment} {name}"] = run.optimizer.state[weight][moment]
        numbers = {
            "step": run.step,
            "best_fvu": repr(run.best_fvu),
            "stale_epochs": run.stale_epochs,
            "curve": run.curve,
        }
        metadata = {"key": self._key, "numbers": json.dumps(numbers)}
        with replacing(self._path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=metadata)
        self._last = time.monotonic()

    def load(self, run: Run) -> None:
        """Put the saved state into `run`, if there is one of the same settings.

        Raises: UserError when the file is not a checkpoint, since saving would overwrite it.
        """
        if self._path is None or not self._path.exists():
            return
        metadata, saved = self._read(self._path)
        if metadata["key"] != self._key:
            return
        numbers = json.loads(metadata["numbers"])
        run.step, run.stale_epochs, run.best_fvu = numbers["step"], numbers["stale_epochs"], float(numbers["best_fvu"])
        run.curve = [tuple(point) for point in numbers["curve"]]
        with torch.no_grad():
            for name, weight in run.weights.items():
                weight.copy_(saved[f"weights {name}"])
                run.optimizer.state[weight] = {
                    moment: saved[f"{moment} {name}"].to("cpu" if moment == "step" else weight.device)
                    for moment in _MOMENTS
                }
        run.memory.last_fired.copy_(saved["last_fired"])
        for name, tensor in saved.items():
            kind, _, rest = name.partition(" ")
            if kind == "best":
                run.best[rest] = tensor.to(run.memory.last_fired.device)
            elif kind == "dial":
                run.memory.dials[rest] = tensor

    def _read(self, path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
        not_one = UserError(f"{path} is damaged, or is no checkpoint of train_sae: delete it, or name another file")
        if not path.is_file():
            raise not_one
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError:
            raise not_one from None
        if not {"key", "numbers"} <= metadata.keys():
            raise not_one
        return metadata, saved

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
