#!/bin/sh
# Train on a machine without network access, for example a GPU server inside a hospital.
#
#   tools/offline_training.sh pack DATA PACK [PYTHON_VERSION]
#       Here: put the training data of configs/default.yaml and the wheels that such a machine lacks into the folder PACK
#       (about 60 MB; PyTorch, Lightning and SciPy must be installed there). Then copy PACK over.
#   tools/offline_training.sh train PACK OUT MINUTES [vertebral train's options]
#       There: install the wheels into a folder, then train OUT/run, or resume it, for MINUTES. OUT/model-*.tar.part??
#       is the model folder with the history, in parts of 15 MB:  cat OUT/model-*.tar.part?? | tar x
set -eu

pack() {
    data=$1 pack=$2 python=${3:-3.12}
    mkdir -p "$pack/wheels" "$pack/data"
    here=$(cd "$(dirname "$0")/.." && pwd)
    pip=${PIP:-"$here/.venv/bin/python -m pip --disable-pip-version-check --quiet"}
    rm -rf "$here/build"
    $pip wheel --no-deps --wheel-dir "$pack/wheels" "$here"
    $pip download --no-deps --only-binary=:all: --python-version "$python" --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --constraint "$here/constraints.txt" --dest "$pack/wheels" \
        monai isal nibabel pydantic pydantic_core annotated-types typing-inspection typing-extensions \
        importlib-resources platformdirs connected-components-3d pydicom
    for glob in 'labels/train' 'phantom/*_labelmap_1p5mm*' 'organs/*_organs*' 'real/labelled/ts_s0328_boneonly*'; do
        (cd "$data" && tar c $glob) | tar x -C "$pack/data"
    done
    "$here/.venv/bin/python" "$here/tools/mesh_anatomies.py" "$data" "$pack/data/anatomies"
    "$here/.venv/bin/python" "$here/tools/self_training.py" "$data" "$pack/data/pseudo" \
        --small-scans "$pack/data/real/unlabelled"
    du -sh "$pack"
}

train() {
    pack=$1 out=$2 minutes=$3
    shift 3
    site=${TMPDIR:-/tmp}/vertebral-site
    python3 -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$site" "$pack"/wheels/*.whl
    mkdir -p "$out"
    PYTHONPATH=$site PYTHONUNBUFFERED=1 python3 -m vertebral train \
        --data "$pack/data" --out "$out/run" --resume --minutes "$minutes" "$@" 2>&1 | tail -n 200
    steps=$(tail -n 1 "$out/run/history.csv" | cut -d, -f3)
    rm -f "$out"/model-*.tar.part??
    tar c -C "$out/run" model history.csv config.json | split -b 15000000 - "$out/model-$steps.tar.part"
    ls -l "$out"
}

case ${1:-} in
    pack | train) "$@" ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
