#!/usr/bin/env bash
# The pipeline on a local prompt file and a local model, as a DVC experiment:
#
#   runs/local.sh DATA MODEL [-S key=value ...]
#
# DATA   a .csv, .jsonl or .parquet file with the columns prompt, source, cluster
#        (other names: -S data.columns.prompt=text ...)
# MODEL  a directory in Hugging Face format: config, tokenizer and safetensors
#
# Later -S win over those below. Layers count from 0; the middle of the model is a good place to begin:
#   runs/local.sh prompts.csv ~/models/llama -S 'extract.points=[resid_post.8,layer_delta.8]'
#
# params.yaml and the workspace are left as 'dvc exp run' leaves them: with the values of this run.
set -euo pipefail

case ${1-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit ;; esac
if [ $# -lt 2 ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
fi
[ -f "$1" ] || { echo "error: DATA: $1 is not a file: give a .csv, .jsonl or .parquet file" >&2; exit 2; }
[ -d "$2" ] || { echo "error: MODEL: $2 is not a directory: give a model in Hugging Face format" >&2; exit 2; }

# absolute, so that DVC tracks the same files from anywhere; quoted for -S, whose grammar is Hydra's
as_value() {
    local path quote="'"
    path=$(realpath -- "$1")
    if [[ $1$path == *[[:cntrl:]]* || $path == *\\* || $path == *'${'* ]] ||
        ! printf %s "$path" | iconv -f UTF-8 -t UTF-8 >/dev/null 2>&1; then
        printf 'error: %q has a backslash, a ${, a control character or what is not UTF-8 in its path: rename it\n' "$1" >&2
        exit 2
    fi
    printf %s "'${path//$quote/\\$quote}'"
}
data=$(as_value "$1")
model=$(as_value "$2")
shift 2

cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
command -v dvc >/dev/null || { echo "error: dvc is not installed: run 'make setup' first" >&2; exit 2; }
python -m pipeline.params
exec dvc exp run \
    -S data.source=local -S "data.path=$data" \
    -S model.source=local -S "model.path=$model" \
    "$@"
