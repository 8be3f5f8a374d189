#!/bin/sh
# Unpacks a 64-bit ARM Python with tflite-runtime, and LiteRT, into a folder, for qemu-user: arm.sh FOLDER
# Nothing is installed on this machine; the packages come from Debian and PyPI by their own clients.
set -eu
root=$1
[ -e "$root/complete" ] && exit 0
mkdir -p "$root/lists/partial" "$root/debs/partial" "$root/site"
root=$(cd "$root" && pwd)
apt="-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::lists=$root/lists -o Dir::State::status=$root/status"
: > "$root/status"
# shellcheck disable=SC2086
apt-get $apt -q update
cd "$root/debs"
# shellcheck disable=SC2086
apt-get $apt -q download libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 libssl3 libuuid1 \
  python3.11-minimal libpython3.11-minimal libpython3.11-stdlib
for deb in *.deb; do dpkg-deb -x "$deb" "$root"; done
python3 -m pip download -q --no-deps -d "$root/wheels" --only-binary=:all: --python-version 3.11 \
  --platform manylinux2014_aarch64 --platform manylinux_2_34_aarch64 tflite-runtime==2.14.0 'numpy<2'
for wheel in "$root"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$root/site"; done
python3 -m pip download -q --no-deps -d "$root/litert" --only-binary=:all: --python-version 3.11 \
  --platform manylinux_2_27_aarch64 ai-edge-litert==2.1.6
python3 -m zipfile -e "$root"/litert/*.whl "$root/litert"
touch "$root/complete"
