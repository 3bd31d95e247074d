#!/usr/bin/env bash
# What the ARM Python of tools/arm/root.sh runs: FOLDER/tree, with the cross-compiled runtime and example, tests and models.
#     tools/arm/tree.sh FOLDER     # PYTHON: one with hashcompile, that makes the models
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:?usage: tools/arm/tree.sh FOLDER}
tree=$folder/tree

rm -rf "$tree"
mkdir -p "$tree"/{tests,tools,hashcompile/core}
cmake -S runtime -B "$folder/runtime" -DCMAKE_TOOLCHAIN_FILE="$PWD/tools/arm/toolchain.cmake" > "$folder/cmake.log"
cmake --build "$folder/runtime" --parallel 2 > "$folder/build.log" || { cat "$folder/build.log" && exit 1; }
cmake --install "$folder/runtime" --prefix "$tree" > /dev/null
cp runtime/hashcompile_runtime/*.py "$tree/hashcompile_runtime"
cp -R pyproject.toml "$tree"
cp -R tests/conftest.py tests/runtime "$tree/tests"
cp -R tools/arm "$tree/tools"
# The compiler needs torch, which is not there: the tests of the runtime use its packing of codes alone.
cp hashcompile/core/packing.py "$tree/hashcompile/core"
"$PYTHON" tools/arm/model.py "$tree/tools/arm/models"
cmake -S examples/device -B "$folder/device" -DCMAKE_TOOLCHAIN_FILE="$PWD/tools/arm/toolchain.cmake" \
    -DTVM_ROOT="$(realpath "$folder")/root/usr/lib/python3/dist-packages" >> "$folder/cmake.log"
cmake --build "$folder/device" >> "$folder/build.log" || { cat "$folder/build.log" && exit 1; }
cp "$folder/device/run_tvm" "$tree/tools/arm"
"$PYTHON" -m tools.arm.libraries "$tree/tools/arm/libraries"
