"""Stage fetch_model: make, fetch or find the language model, and lock the hashes of its files."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.core.files import write_metrics
from pipeline.lm.files import fetch_hub_model
from pipeline.lm.load import describe
from pipeline.lm.lock import ModelLock, hash_files
from pipeline.lm.quantise import quantise
from pipeline.lm.tiny import perplexity, train_language_model, train_tokenizer
from pipeline.params.base import read
from pipeline.params.model import ModelParams, TinyParams
from pipeline.prompts.sample import sample_prompts
from pipeline.stages import paths
from pipeline.stages.run import run_stage

# added to the seed, so that the model reads other text than the prompt set and is tested on yet other text
TRAIN_SEED, HELD_OUT_SEED, HELD_OUT_PROMPTS = 1_000_003, 2_000_003, 500
CALIBRATION_PROMPTS = 256


def main() -> None:
    model = read("model", ModelParams)
    seed = read("seed", int)
    metrics: dict[str, Any] = {}
    repo = commit = None
    # DVC wants this output to exist: it is empty unless the model is made here
    with _replacing(paths.TINY_MODEL) as made:
        if model.source == "tiny":
            directory = made
            data = sample_prompts(read("data.sample_rows", int), seed)["prompt"].to_pylist()
            metrics = make_tiny_model(directory, model.tiny, seed, exclude=set(data))
        elif model.source == "local":
            directory = Path(model.path)
        else:
            from pipeline.core.hub import resolve_commit  # not at the top: other sources need no network

            repo, commit = model.repo, resolve_commit(model.repo, model.revision, "model")
            directory = fetch_hub_model(repo, commit)
        facts, files = describe(directory), hash_files(directory)
    where = {"tiny": str(paths.TINY_MODEL), "local": str(Path(model.path)), "hub": None}
    ModelLock(
        source=model.source,
        repo=repo,
        commit=commit,
        path=where[model.source],
        unquantised=str(paths.TINY_UNQUANTISED) if model.source == "tiny" else None,
        files=files,
        **facts,
    ).write(paths.MODEL_LOCK)
    write_metrics(paths.METRICS / "model.json", facts | {"source": model.source, "commit": commit} | metrics)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`. It takes that folder's place if the block succeeds, else it is deleted."""
    new = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(new, ignore_errors=True)  # of a run that was killed
    new.mkdir(parents=True)
    try:
        yield new
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def make_tiny_model(directory: Path, tiny: TinyParams, seed: int, exclude: set[str]) -> dict[str, Any]:
    """Train a small language model and quantise it into `directory`. Return its perplexity before and after.

    It reads none of the prompts of `exclude`. Its perplexity is measured on prompts that it has not read.
    """
    texts = _prompts(tiny.train_prompts, seed + TRAIN_SEED, exclude)
    held_out = _prompts(HELD_OUT_PROMPTS, seed + HELD_OUT_SEED, exclude | set(texts))
    tokenizer = train_tokenizer(texts, tiny.vocabulary)
    model = train_language_model(texts, tokenizer, layers=tiny.layers, width=tiny.width, steps=tiny.steps, seed=seed)
    full = directory / paths.TINY_UNQUANTISED.name
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        quantise(Path(folder), directory, texts[:: len(texts) // CALIBRATION_PROMPTS], tokenizer)
        shutil.copytree(folder, full)
    return {
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "perplexity_before_quantisation": perplexity(full, held_out, tokenizer),
        "perplexity": perplexity(directory, held_out, tokenizer),
    }


def _prompts(count: int, seed: int, exclude: set[str]) -> list[str]:
    return [prompt for prompt in sample_prompts(count, seed)["prompt"].to_pylist() if prompt not in exclude]


if __name__ == "__main__":
    run_stage(main, __doc__)
