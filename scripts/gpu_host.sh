#!/bin/sh
# Tests and benches on a host with a GPU and no network. In a checkout there:
#   sh scripts/gpu_host.sh [results folder] [all|tests|bench]
# What has to be carried along is in bench/NOTES.md, "On a GPU host". A software adapter is refused, unless SOFTWARE=1
# says that the script itself is to be tried.
set -eu
cd "$(dirname "$0")/.."
out=${1:-gpu_results}
what=${2:-all}
deno=${DENO:-deno}
case "$what" in all | tests | bench) ;; *)
  echo "gpu_host.sh: unknown part \"$what\": expected all, tests or bench" >&2
  exit 2
  ;;
esac
mkdir -p "$out"
# A driver without its loader is no adapter, and OpenGL is no replacement.
export DENO_WEBGPU_BACKEND=vulkan REQUIRE_WEBGPU=1 NO_COLOR=1 DENO_NO_UPDATE_CHECK=1
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"
if [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]; then
  for icd in /usr/share/vulkan/icd.d/nvidia_icd.json /etc/vulkan/icd.d/nvidia_icd.json; do
    if [ -e "$icd" ]; then export VK_DRIVER_FILES="$icd"; break; fi
  done
fi
# Where and on what: a figure without it is worth nothing.
{
  date -u
  "$deno" --version
  nvidia-smi 2>&1 || echo "no nvidia-smi"
} > "$out/machine.txt" 2>&1 || true
timeout 120 "$deno" run --cached-only --no-check --no-lock -A scripts/gpu_adapter.ts > "$out/adapter.txt" 2>&1 || {
  cat "$out/adapter.txt"
  exit 1
}
cat "$out/adapter.txt"
status=0
# What is measured comes first: a machine may be lent for minutes. An endless shader hangs the process.
if [ "$what" != tests ]; then
  timeout "${BENCH_SECONDS:-900}" "$deno" run --cached-only --no-check --no-lock -A bench/run.ts webgpu \
    ${QUICK:+--quick} ${PEERS---no-peers} --json "$out/webgpu.json" > "$out/webgpu.txt" 2>&1 || status=$?
  cat "$out/webgpu.txt"
fi
if [ "$what" != bench ]; then
  timeout "${TEST_SECONDS:-900}" "$deno" test --cached-only --no-check --no-lock -A --filter="${FILTER:-/^(webgpu|lint|flash|matrix)/}" \
    tests/webgpu tests/kernels_test.ts tests/attention_kernels_test.ts tests/generation/every_swap_test.ts \
    > "$out/tests.txt" 2>&1 || status=$?
  tail -n 5 "$out/tests.txt"
fi
exit "$status"
