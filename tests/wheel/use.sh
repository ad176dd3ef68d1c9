#!/usr/bin/env bash
# Use the wheel in dist/ as a new user does: in an empty environment, outside the checkout. `make wheel-test`
set -euo pipefail
checkout=$(cd "$(dirname "$0")/../.." && pwd)
wheel=$(echo "$checkout"/dist/simulsa-*.whl)
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
"${PYTHON:-python3}" -m venv env
bin=$folder/env/bin
say() { echo "wheel: $* (after $SECONDS s)"; }
install() { "$bin/pip" install --quiet --constraint "$checkout/constraints.txt" "$1"; }

install "$wheel"
say "core: $("$bin/pip" list --format freeze | wc -l) packages, $(du -sm env | cut -f1) MB"
"$bin/python" - << 'END'
import simulsa, soundfile
from importlib.resources import files
data = files("simulsa") / "demo" / "data"
row = simulsa.read_manifest(str(data / "test.jsonl"))[0]
soundfile.write("clip.wav", row.load(), 16000)
END
"$bin/simulsa" translate clip.wav
# the README's API
"$bin/python" - << 'END'
import simulsa
stream = simulsa.Stream(simulsa.load("tiny-en-de-simul"), simulsa.StreamConfig(chunk_ms=500, rollback=3))
updates = stream.push(simulsa.load_audio("clip.wav")) + stream.finish()
assert updates[-1].final and updates[-1].committed, updates
END
for command in "train --offline x.jsonl --out x" "evaluate --manifest x.jsonl --out x"; do
    if said=$("$bin/simulsa" $command 2>&1); then exit 1; fi
    grep -q "pip install 'simulsa\[" <<< "$said" || { echo "$said"; exit 1; }
done
say "translated with the core alone; what is missing is named"

install "$wheel[train,evaluate,serve]"
"$bin/python" - << 'END'
from importlib.resources import files
import simulsa
for name, count in (("train", 8), ("test", 4)):
    rows = simulsa.read_manifest(str(files("simulsa") / "demo" / "data" / f"{name}.jsonl"))[:count]
    simulsa.write_manifest(f"{name}.jsonl", rows)
END
"$bin/simulsa" augment --manifest train.jsonl --out augmented.jsonl --num 4
"$bin/simulsa" train --offline train.jsonl --augmented augmented.jsonl --out run --epochs 1 --batch-size 8
"$bin/simulsa" evaluate --manifest test.jsonl --model run --out scores --chunk-ms 1000 --rollback 3
say "augmented, trained and evaluated"

"$bin/simulsa" serve --port 18765 &
for _ in $(seq 60); do
    "$bin/python" -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:18765/healthz', timeout=1)" 2> /dev/null && break
    sleep 1
done
"$bin/simulsa" translate clip.wav --url ws://127.0.0.1:18765
"$bin/simulsa" doctor
say "served one request: all of it works"
