"""Models of the Hugging Face hub, and which files of a model directory are read."""

import stat
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.core.errors import UserError

MODEL_FILES = [
    "config.json",
    "generation_config.json",
    "quantize_config.json",
    "tokenizer*.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "*.safetensors",
    "*.safetensors.index.json",
]


def fetch_hub_model(repo: str, commit: str) -> Path:
    """Fetch a model of the hub into the Hugging Face cache, checked: its config, tokenizer and safetensors.

    Args:
        repo: `owner/name` of the model.
        commit: 40 hex digits.

    Returns: the directory with the files.
    Raises: UserError as `pipeline.core.hub.fetch` does.
    """
    from pipeline.core.hub import fetch  # not at the top: local models need no hub

    return fetch(repo, commit, "model", MODEL_FILES, ignore=["*/*"]).directory


def model_files(directory: Path) -> list[Path]:
    """Return the files of a model directory that the pipeline may read, sorted: no pickles, no code.

    A file may be a link, also to a place outside. What the link leads to is hashed, locked and read.

    Raises: UserError when there is no such directory, or when such a file is not a regular one, since reading a pipe or
        a device might never end.
    """
    try:
        if not directory.is_dir():
            raise UserError(f"{directory} is not a directory: set model.path to a model in Hugging Face format")
        wanted = sorted(path for path in directory.iterdir() if _has_a_known_name(path))
        for path in wanted:
            if not stat.S_ISREG(path.stat().st_mode):
                raise UserError(f"{path} is not a regular file: fetch or copy the model again")
            with path.open("rb"):
                pass
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): fetch or copy the model again") from None
    return wanted


def _has_a_known_name(path: Path) -> bool:
    return any(fnmatchcase(path.name, pattern) for pattern in MODEL_FILES)
