"""Quantise a saved model to 4-bit GPTQ, in the checkpoint format of the hub's GPTQ models."""

import io
import shutil
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pipeline.lm.load import quiet_gptqmodel

BITS, GROUP_SIZE = 4, 64
CALIBRATION_TOKENS = 256  # tokens in one calibration sample


def quantise(source: Path, target: Path, texts: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Quantise the model at `source` with GPTQModel, calibrated on `texts`, and save it at `target`.

    GPTQ: Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers".
    """
    samples = [
        {"input_ids": ids[:CALIBRATION_TOKENS], "attention_mask": [1] * len(ids[:CALIBRATION_TOKENS])}
        for ids in tokenizer(texts)["input_ids"]
    ]
    quiet_gptqmodel()
    # its progress of a line a batch, which no level of logging stops
    source, target = source.resolve(), target.resolve()
    with (
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        tempfile.TemporaryDirectory() as logs,  # it writes them into the current directory
        chdir(logs),
    ):
        from gptqmodel import GPTQModel, QuantizeConfig

        config = QuantizeConfig(bits=BITS, group_size=GROUP_SIZE, offload_to_disk=False)
        model = GPTQModel.load(str(source), config, trust_remote_code=False)
        model.quantize(samples, batch_size=8)
        shutil.rmtree(target, ignore_errors=True)
        model.save(str(target))
    (target / "quant_log.csv").unlink(missing_ok=True)  # holds timings, which differ from run to run
