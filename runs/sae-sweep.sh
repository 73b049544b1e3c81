#!/usr/bin/env bash
# A grid of SAEs, k x width, as DVC experiments:
#
#   runs/sae-sweep.sh [--variant NAME] [--k K,K,...] [--width WIDTH,WIDTH,...] [-S key=value ...]
#
# NAME   one of sae.variants in params.yaml, the only one that is trained (default batch_topk)
# K      active latents a token (default 4,8,16,32)
# WIDTH  latents (default 512,1024,2048)
#
# This queues one experiment a pair. Then run them, one after another, and draw what all of them found:
#
#   dvc exp run --run-all
#   python -m tools.frontier     # report/figures/fvu_l0.png
#
# Only SAEs and what reads them run; prompts and activations come from the cache.
set -euo pipefail

variant=batch_topk ks=4,8,16,32 widths=512,1024,2048 settings=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit ;;
    --variant | --k | --width | -S)
        [ $# -ge 2 ] || { echo "error: $1 wants a value: see $0 --help" >&2; exit 2; }
        case $1 in --variant) variant=$2 ;; --k) ks=$2 ;; --width) widths=$2 ;; -S) settings+=(-S "$2") ;; esac
        shift 2
        ;;
    *) echo "error: $1 is not known: see $0 --help" >&2; exit 2 ;;
    esac
done

# they become part of -S, in whose grammar other characters mean something
name='^[a-z0-9][a-z0-9_]*$' numbers='^[1-9][0-9]{0,9}(,[1-9][0-9]{0,9})*$'
(LC_ALL=C; [[ $variant =~ $name ]]) || { echo "error: --variant: a name in small letters, digits and _ is needed" >&2; exit 2; }
for list in "$ks" "$widths"; do
    [[ $list =~ $numbers ]] || { echo "error: --k and --width: numbers with commas between are needed" >&2; exit 2; }
done

cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
command -v dvc >/dev/null || { echo "error: dvc is not installed: run 'make setup' first" >&2; exit 2; }
python -m pipeline.params --variant "$variant"
# ++: its entry may say nothing of k and width yet, and DVC refuses -S on a key that is not there
exec dvc exp run --queue \
    -S "sae.train=[$variant]" \
    -S "++sae.variants.$variant.k=$ks" -S "++sae.variants.$variant.width=$widths" \
    ${settings[@]+"${settings[@]}"}
