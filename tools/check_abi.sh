#!/usr/bin/env bash
# Builds the CPU wheel once, on torch BUILD_TORCH, and runs the NMS tests with this wheel on every given torch and
# Python. Then checks that the library needs no symbols beyond the stable ABI and the C/C++ runtime.
#
#   tools/check_abi.sh [WORK]
#
#   TORCH       versions of torch, default "2.10.0 2.13.0 2.14.1"
#   BUILD_TORCH default 2.13.0
#   PYTHONS     interpreters, default "python3"; a torch that cannot be installed for one of them is reported and fails
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-$(mktemp -d)}
torch_versions=${TORCH:-"2.10.0 2.13.0 2.14.1"}
build_torch=${BUILD_TORCH:-2.13.0}
pythons=${PYTHONS:-python3}
first=${pythons%% *}

make_env() { # FOLDER PYTHON TORCH
    [ -f "$1/.ready-$3" ] && return
    rm -rf "$1"
    "$2" -m venv "$1"
    "$1/bin/python" -m pip install --quiet --upgrade pip "setuptools>=77" wheel
    "$1/bin/python" -m pip install --quiet "torch==$3" numpy
    touch "$1/.ready-$3"
}

make_env "$work/build" "$first" "$build_torch"
rm -rf "$work/wheel" "$work/source"
git clone --quiet . "$work/source"
(cd "$work/source" && FORCE_CUDA=0 "$work/build/bin/python" -m pip wheel --quiet --no-build-isolation --no-deps \
    --wheel-dir "$work/wheel" .)
wheel=$(ls "$work"/wheel/*.whl)
echo "built $(basename "$wheel") on torch $build_torch"

failed=0
for python in $pythons; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    for torch in $torch_versions; do
        env="$work/py$version-torch$torch"
        if ! make_env "$env" "$python" "$torch" 2> "$work/error"; then
            echo "Python $version, torch $torch: could not be installed: $(tail -n 1 "$work/error")"
            failed=1
            continue
        fi
        "$env/bin/python" -m pip install --quiet pytest hypothesis
        "$env/bin/python" -m pip install --quiet --force-reinstall --no-deps "$wheel"
        "$env/bin/python" -m pip install --quiet pyyaml pydantic pandas joblib tensorboard tqdm
        rm -rf "$work/tests"
        cp -r tests "$work/tests"
        result=$(cd "$work" && "$env/bin/python" -m pytest -q -p no:cacheprovider tests/nms/test_suppress.py 2>&1 | tail -n 1) || failed=1
        loaded=$(cd "$work" && "$env/bin/python" -c 'import torch, libs._C; print(torch.__version__, libs._C.__file__.rsplit("/", 1)[1])')
        echo "Python $version, $loaded: $result"
    done
done

rm -rf "$work/unpacked"
"$first" -m zipfile -e "$wheel" "$work/unpacked"
foreign=$(nm -D --undefined-only "$work"/unpacked/libs/_C.abi3.so | awk '{print $2}' |
    grep -v -E '^(aoti_torch_|torch_|Py|_Py)|@(GLIBC|GLIBCXX|CXXABI|GCC)|^(_ITM_|__gmon_start__|__cxa_finalize)|^_ZNSt7__cxx1119?1?8?basic_(o)?stringstream' || true)
if [ -n "$foreign" ]; then
    echo "symbols beyond the stable ABI and the C/C++ runtime:"
    echo "$foreign"
    failed=1
else
    echo "undefined symbols: only the stable ABI's, Python's limited API and the C/C++ runtime's"
fi
exit $failed
