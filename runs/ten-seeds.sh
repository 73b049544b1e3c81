#!/usr/bin/env bash
# The pipeline as it stands in params.yaml, with ten splits, each with SAEs and probes of its own seed:
#
#   runs/ten-seeds.sh [-S key=value ...]
#
# metrics/summary.json then has contrasts whose intervals include how far splits and seeds are apart, and
# metrics/probes.json the mean and standard deviation of every arm under `seeds`. Small training sets and wrong labels
# are drawn ten times, too. Extraction is not run again; SAEs and probes take ten times as long.
#
# params.yaml and the workspace are left as 'dvc exp run' leaves them: with the values of this run.
set -euo pipefail

case ${1-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit ;; esac
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
command -v dvc >/dev/null || { echo "error: dvc is not installed: run 'make setup' first" >&2; exit 2; }
python -m pipeline.params
exec dvc exp run -S 'seeds=[0,1,2,3,4,5,6,7,8,9]' -S probe.draws=10 "$@"
