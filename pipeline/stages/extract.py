"""Stage extract: the language model's activations at the hook points, for every kept token of every prompt."""

import shutil

from pipeline import paths
from pipeline.activations.extract import extract
from pipeline.activations.tokens import tokenise
from pipeline.cli import run_stage
from pipeline.files import read_table, write_metrics
from pipeline.model.checkpoint import DTYPES, load_model, load_tokenizer, pick_device
from pipeline.model.lock import ModelLock
from pipeline.params.base import read
from pipeline.params.model import ExtractParams, check_layers


def main() -> None:
    params = read("extract", ExtractParams)
    lock = ModelLock.read(paths.MODEL_LOCK)
    check_layers(params, lock.layers)
    prompts = read_table(paths.PROMPTS)
    directory = lock.locate()
    points = params.parsed_points()
    tokenizer = load_tokenizer(directory)
    limits = (params.max_tokens, lock.max_positions, tokenizer.model_max_length)
    tokens = tokenise(
        tokenizer,
        prompts["prompt_id"].to_pylist(),
        prompts["prompt"].to_pylist(),
        max_tokens=min(limit for limit in limits if limit and limit > 0),
        prompt_format=params.prompt_format,
        keep=params.keep,
    )
    model = load_model(
        directory, max(point.layer for point in points) + 1, params.compute_dtype, pick_device(params.device)
    )
    shutil.rmtree(paths.ACTIVATIONS, ignore_errors=True)
    counts = extract(
        model,
        tokens,
        points,
        paths.ACTIVATIONS,
        batch_tokens=params.batch_tokens,
        dtype=DTYPES[params.dtype],
        shard_mb=params.shard_mb,
    )
    write_metrics(paths.METRICS / "extract.json", counts)


if __name__ == "__main__":
    run_stage(main, __doc__)
