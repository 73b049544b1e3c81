"""Show libraries only a model directory's locked files, without settings that lead to anything else."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.core.errors import UserError, shown
from pipeline.core.offline import offline
from pipeline.lm.faults import first_line
from pipeline.lm.files import model_files

# Settings that name code, files, repositories or kernels, wherever they stand: transformers would follow some of them
# out of the directory, or on to the hub, and none is needed to load the directory's own files. Nor are the labels of a
# classifier, of which transformers would make a dictionary, however many they are.
_LEADS_ELSEWHERE = re.compile(
    r"num_labels|id2label|label2id|auto_map|custom_generate|custom_pipelines|init_inputs|vocab|merges|transformers_weights|fusion_config"
    r"|kernel_config|use_kernels|tokenizer_object|.*_files?|.*_path|.*_implementation(_internal)?"
)
_CLEANED = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "quantize_config.json")
_LEFT_OUT = ("generation_config.json",)  # nothing is generated
_LARGEST_SETTINGS = 32 * 1024**2  # bytes; such files have kilobytes, indices of weights a few megabytes
_LARGEST_OTHERS = 512 * 1024**2  # bytes of a tokenizer; large ones have some 30 megabytes


@contextmanager
def viewed(directory: Path, *, with_weights: bool = True) -> Iterator[Path]:
    """Yield a temporary directory with links to the locked files of a model directory, and stay offline meanwhile.

    Libraries load from there exactly what `hash_files` hashes; other files (code, pickles, adapters, folders) are not
    there. JSON files are copied without settings that lead elsewhere, and read only once, so what is checked is what is
    loaded. Links in the model directory itself are followed, since snapshots in the hub's cache consist of links.

    Raises: UserError when a file is not a regular one, is too large, or is not JSON where it should be, and when an
        index of weights names anything but a .safetensors file of the directory.
    """
    files = model_files(directory)
    weights = {file.name for file in files if file.suffix == ".safetensors"}
    with TemporaryDirectory(prefix="model.") as folder, offline():
        for file in files:
            if file.name.endswith(".safetensors.index.json"):
                _check_index(file, weights)
            if file.name in _CLEANED:
                with _said_of(file):
                    text = json.dumps(read_settings(file, _without_leads))
                Path(folder, file.name).write_text(text, encoding="utf-8")
            elif file.name not in _LEFT_OUT and (with_weights or file.name not in weights):
                if file.name not in weights:
                    _check_size(file, _LARGEST_OTHERS)
                Path(folder, file.name).symlink_to(file.resolve())
        yield Path(folder)


def read_settings(path: Path, hook: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return the keys of a JSON file, each of its objects replaced by what `hook` makes of it.

    Raises: UserError when the file has no keys, or is too large.
    """
    _check_size(path, _LARGEST_SETTINGS)
    with _said_of(path):
        settings = json.loads(path.read_text(encoding="utf-8"), object_hook=hook)
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no keys: fetch or copy the model again")
    return settings


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else first_line(error)
        raise UserError(f"{path} is not JSON ({reason}): fetch or copy the model again") from None


def _without_leads(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if not _LEADS_ELSEWHERE.fullmatch(key)}


def _check_index(path: Path, weights: set[str]) -> None:
    places = read_settings(path).get("weight_map")
    if not isinstance(places, dict):
        raise UserError(f"{path} has no weight_map: fetch or copy the model again")
    for tensor, name in places.items():
        if not isinstance(name, str) or name not in weights:
            raise UserError(
                f"{path}: weight_map looks for {shown(tensor)} in {shown(name)}, which is no .safetensors file of the "
                "directory: fetch or copy the model again"
            )


def _check_size(path: Path, most: int) -> None:
    size = path.stat().st_size
    if size > most:
        raise UserError(f"{path} has {size} bytes, and more than {most} are never read: fetch or copy the model again")
