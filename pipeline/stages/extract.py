"""Stage extract: write the language model's activations at the points, for every kept token of every prompt."""

import os
from pathlib import Path

import pyarrow as pa

from pipeline.activations.compare import relative_errors
from pipeline.activations.extraction import extract
from pipeline.activations.ranks import local_device
from pipeline.core.files import read_table, write_metrics
from pipeline.lm.load import DTYPES, load_model, load_tokenizer, pick_device
from pipeline.lm.lock import ModelLock
from pipeline.lm.tokens import input_limit, tokenise
from pipeline.params.base import read
from pipeline.params.model import ExtractParams, check_layers
from pipeline.stages import paths
from pipeline.stages.clean_up import remove_activations_of_other_points
from pipeline.stages.run import run_stage


def main() -> None:
    params = read("extract", ExtractParams)
    lock = ModelLock.read(paths.MODEL_LOCK)
    check_layers(params.parsed_points(), lock.layers)
    columns = ["prompt_id", "prompt"]
    prompts = pa.concat_tables([read_table(path, columns) for path in (paths.PROMPTS, paths.BENIGN)])
    directory = lock.locate()
    points = params.parsed_points()
    tokenizer = load_tokenizer(directory)
    tokens = tokenise(
        tokenizer,
        prompts["prompt_id"].to_pylist(),
        prompts["prompt"].to_pylist(),
        max_tokens=input_limit(tokenizer, params.max_tokens, lock.max_positions),
        prompt_format=params.prompt_format,
        keep=params.keep,
    )
    blocks = max(point.layer for point in points) + 1
    device = local_device(pick_device(read("device", str)))
    model = load_model(directory, blocks, params.compute_dtype, device)
    metrics = extract(
        model,
        tokens,
        points,
        paths.ACTIVATIONS,
        batch_tokens=params.batch_tokens,
        dtype=DTYPES[params.dtype],
        shard_mb=params.shard_mb,
        pieces=paths.unfinished(paths.ACTIVATIONS),
        model_key=lock.content(),
    )
    if os.environ.get("RANK", "0") != "0":
        return
    remove_activations_of_other_points(params.points)
    if lock.unquantised:
        reference = load_model(Path(lock.unquantised), blocks, "float32", device)
        metrics["quantisation_error"] = relative_errors(model, reference, tokens, points, params.batch_tokens)
    write_metrics(paths.METRICS / "extract.json", metrics)


if __name__ == "__main__":
    run_stage(main, __doc__)
