#!/usr/bin/env bash
# Runs the NMS tests with the CPU kernels built under AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   tools/check_sanitizers.sh [PYTHON]     (default .venv/bin/python)
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(cd "$(dirname "${1:-.venv/bin/python}")" && pwd)/$(basename "${1:-python}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work"
cd "$work"
NMS_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1" FORCE_CUDA=0 \
    "$python" setup.py --quiet build_ext --inplace
runtime="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so) $(gcc -print-file-name=libstdc++.so)"
# No leak check: Python and torch hold memory until the process ends, which is not a leak of the kernels.
LD_PRELOAD=$runtime ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH="$work" \
    "$python" -m pytest -p no:cacheprovider tests/nms/test_suppress.py
