#!/usr/bin/env bash
# The real run: the Galtea red-teaming prompts and Qwen3-4B in 4-bit GPTQ, from the Hugging Face hub, as a DVC
# experiment. The activations are extracted on a GPU if there is one (meant for 6 GB); the SAEs and probes are
# trained on the CPU, which takes hours at this width:
#
#   runs/qwen3-4b-gptq.sh [-S key=value ...]
#
# The data are CC-BY-NC-4.0 (non-commercial) and may be gated: accept the conditions on the dataset's page, then
# 'hf auth login'. Both revisions are 'main', resolved to a full commit that metrics/download.json and
# models/model.lock.json record; to repeat a run later, pin them (quoted, or a commit like 12e34567 reads as a number):
#   -S "data.revision='<commit>'" -S "model.revision='<commit>'"
#
# 36 layers of width 2560: the delta of the last block (layer 35) beside the residual stream at mid-depth. The
# deepest point decides how much of the model is loaded; without layer 35, half of the weights are enough.
set -euo pipefail

case ${1-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit ;; esac
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
command -v dvc >/dev/null || { echo "error: dvc is not installed: run 'make setup' first" >&2; exit 2; }
python -m pipeline.params
exec dvc exp run \
    -S data.source=hub -S data.repo=Galtea-AI/galtea-red-teaming-clustered-data -S data.revision=main \
    -S model.source=hub -S model.repo=AlphaGaO/Qwen3-4B-GPTQ -S model.revision=main \
    -S 'extract.points=[resid_post.12,resid_post.18,resid_post.24,layer_delta.35]' \
    -S extract.compute_dtype=bfloat16 -S extract.shard_mb=256 \
    -S sae.width=8192 -S sae.k=32 -S sae.batch_size=2048 -S sae.epochs=20 \
    "$@"
