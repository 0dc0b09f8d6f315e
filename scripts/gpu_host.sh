#!/bin/sh
# Tests and benches on a host with a GPU and no network. In a checkout there: sh scripts/gpu_host.sh [results folder]
# What has to be carried along is in bench/NOTES.md, "On a GPU host".
set -eu
cd "$(dirname "$0")/.."
out=${1:-gpu_results}
deno=${DENO:-deno}
mkdir -p "$out"
# A driver without its loader is no adapter, and OpenGL is no replacement.
export DENO_WEBGPU_BACKEND=vulkan REQUIRE_WEBGPU=1 NO_COLOR=1
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"
if [ -z "${VK_DRIVER_FILES:-}" ]; then
  for icd in /usr/share/vulkan/icd.d/nvidia_icd.json /etc/vulkan/icd.d/nvidia_icd.json; do
    if [ -e "$icd" ]; then export VK_DRIVER_FILES="$icd"; break; fi
  done
fi
status=0
# An endless shader hangs the process.
timeout 900 "$deno" test --cached-only --no-check -A tests/webgpu tests/kernels_test.ts tests/attention_kernels_test.ts \
  > "$out/tests.txt" 2>&1 || status=$?
tail -n 5 "$out/tests.txt"
timeout 900 "$deno" run --cached-only --no-check --no-lock -A bench/run.ts webgpu ${PEERS---no-peers} \
  --json "$out/webgpu.json" > "$out/webgpu.txt" 2>&1 || status=$?
cat "$out/webgpu.txt"
exit "$status"
