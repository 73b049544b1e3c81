"""Models of the Hugging Face hub, and which files of a model directory are read."""

from fnmatch import fnmatchcase
from pathlib import Path

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
    """Have a model of the hub in the Hugging Face cache: its config, tokenizer and safetensors, checked.

    Args:
        repo: `owner/name` of the model.
        commit: 40 hex digits.

    Returns: the directory with the files.
    Raises: UserError as `pipeline.hub.fetch` does.
    """
    from pipeline.hub import fetch  # not at the top: local models need no hub

    return fetch(repo, commit, "model", MODEL_FILES, ignore=["*/*"])


def model_files(directory: Path) -> list[Path]:
    """The files of a model directory that the pipeline may read, sorted: no pickles, no code."""
    return sorted(
        path
        for path in directory.iterdir()
        if path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in MODEL_FILES)
    )
