#!/usr/bin/env bash
# A 64-bit ARM Linux that runs under qemu:
#     tools/arm/root.sh FOLDER     # PYTHON: one with pip and TVM; DEBIAN_MIRROR: where Debian's packages come from
#
# FOLDER/root     Debian packages, unpacked: libc, libstdc++, Python, and wheels in its dist-packages
# FOLDER/python   that Python; HC_ARM_CPU names the CPU that qemu plays (max)
#
# Only the cross compiler, qemu and CMake are installed on this machine, and only if one is missing. Exit status 77: they are
# missing and cannot be installed here, or Debian cannot be reached.
set -euo pipefail

folder=$(realpath -m "${1:?usage: tools/arm/root.sh FOLDER}")
python=${PYTHON:-python3}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=bookworm # its Python is 3.11, as is the wheels'

tools=(g++-aarch64-linux-gnu qemu-user-static cmake)
packages=(libc6 libgcc-s1 libstdc++6 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib zlib1g libexpat1
    libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libcrypt1)
# Later releases of ONNX Runtime crash under the qemu of this Debian.
wheels=(numpy onnxruntime==1.24.1 onnx pytest pytest-timeout hypothesis)
# Libraries are loaded by the same release of TVM that made them.
for package in apache-tvm apache-tvm-ffi; do
    wheels+=("$package==$("$python" -c "from importlib.metadata import version; print(version('$package'))")")
done

cannot() {
    echo "no ARM tests here: $*" >&2
    exit 77
}

install_tools() {
    local missing=
    for tool in aarch64-linux-gnu-g++ qemu-aarch64-static cmake; do command -v "$tool" > /dev/null || missing=1; done
    [[ $missing ]] || return 0
    command -v apt-get > /dev/null || cannot "install ${tools[*]} (Debian's names): this machine has no apt-get"
    local as_root=()
    if [[ $(id -u) != 0 ]]; then
        sudo -n true 2> /dev/null || cannot "install ${tools[*]}: that takes root, or sudo without a password"
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -qq || cannot "apt-get update failed"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${tools[@]}" ||
        cannot "apt-get could not install ${tools[*]}"
}

# apt with a state of its own, so that this machine need not know of another architecture.
unpack_packages() {
    local apt=$folder/apt keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [[ -f $keyring ]] || cannot "$keyring is missing: install debian-archive-keyring"
    mkdir -p "$apt"/{lists,archives}/partial "$apt/etc" "$folder/root"
    touch "$apt/status"
    echo "deb [signed-by=$keyring] $mirror $suite main" > "$apt/etc/sources.list"
    cat > "$apt/config" << END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Etc::sourcelist "$apt/etc/sources.list";
Dir::Etc::sourceparts "-";
END
    APT_CONFIG=$apt/config apt-get update -qq || cannot "Debian's packages cannot be reached at $mirror"
    (cd "$apt/archives" && APT_CONFIG=$apt/config apt-get download -qq "${packages[@]}")
    for package in "$apt"/archives/*.deb; do dpkg -x "$package" "$folder/root"; done
}

install_wheels() {
    local platforms=() version
    for version in 2_28 2_27 2_17; do platforms+=(--platform "manylinux_${version}_aarch64"); done
    "$python" -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --only-binary=:all: \
        --implementation cp --python-version 3.11 "${platforms[@]}" --platform manylinux2014_aarch64 \
        --target "$folder/root/usr/lib/python3/dist-packages" "${wheels[@]}"
}

# Its name is also argv[0], from which Python takes sys.executable: what it starts is emulated in turn.
write_launcher() {
    cat > "$folder/python" << 'END'
#!/bin/sh
here=$(dirname "$(realpath "$0")")
export PYTHONHOME="$here/root/usr" PYTHONDONTWRITEBYTECODE=1
exec qemu-aarch64-static -cpu "${HC_ARM_CPU:-max}" -L "$here/root" -0 "$here/python" "$here/root/usr/bin/python3.11" "$@"
END
    chmod +x "$folder/python"
}

install_tools
[[ $folder/complete -nt $0 ]] && exit
rm -rf "$folder"
unpack_packages
install_wheels
write_launcher
"$folder/python" -c "import numpy, onnx, onnxruntime, pytest, hypothesis, tvm" 2> /dev/null
touch "$folder/complete"
