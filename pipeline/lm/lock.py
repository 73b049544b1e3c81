"""models/model.lock.json: exactly which weights the activations come from, and where to find these again."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.files import read_json, sha256_of, write_json
from pipeline.core.progress import progress
from pipeline.lm.files import fetch_hub_model, model_files


@dataclass(frozen=True)
class ModelLock:
    """What `extract` depends on. The weights themselves are in DVC's cache only if they were made here."""

    source: str  # tiny, hub or local
    repo: str | None  # for hub
    commit: str | None  # for hub, 40 hex digits
    path: str | None  # for tiny and local
    architecture: str
    layers: int
    width: int
    quantization: str | None
    max_positions: int | None
    files: dict[str, dict[str, Any]]  # name -> sha256, size in bytes
    unquantised: str | None  # directory of the same model before it was quantised, for tiny

    @classmethod
    def read(cls, path: Path) -> "ModelLock":
        """Read a lock file. Raise UserError when it is missing or not a lock."""
        try:
            return cls(**read_json(path))
        except TypeError:
            raise UserError(f"{path} is not a lock of a model: run 'dvc repro --force fetch_model'") from None

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    def content(self) -> str:
        """Return a hash of the locked files. Two models with the same hash have the same weights."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()

    def locate(self) -> Path:
        """Return the directory of the locked files, each checked by size and sha256. Fetch a hub model if needed.

        Raises: UserError when a file is missing or is not the locked one.
        """
        if self.source == "hub":
            assert self.repo is not None and self.commit is not None
            directory = fetch_hub_model(self.repo, self.commit)
        else:
            directory = Path(str(self.path))
        found = hash_files(directory)
        for name, entry in self.files.items():
            if found.get(name) != entry:
                state = "differs from" if name in found else "is missing but stands in"
                raise UserError(
                    f"{directory / name} {state} models/model.lock.json: restore it, or run "
                    "'dvc repro --force fetch_model' to lock the model as it is now"
                )
        return directory


def hash_files(directory: Path) -> dict[str, dict[str, Any]]:
    """Return sha256 and size of every file of a model directory that the pipeline may read."""
    files = model_files(directory)
    with progress(sum(file.stat().st_size for file in files), "checking the model's files", "B") as bar:
        return {file.name: {"sha256": sha256_of(file, bar.update), "size": file.stat().st_size} for file in files}
