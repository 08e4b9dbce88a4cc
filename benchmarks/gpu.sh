#!/usr/bin/env bash
# What a GPU is needed for, in order of value: benchmarks/gpu.sh DATA OUT [--seconds N] [--device cpu] [--tiny]
# DATA is a folder in the plain layout, or what `python -m benchmarks.pack` made of one. Needs no installation of this package
# and no internet. Call it again to go on: see docs/gpu.md.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
