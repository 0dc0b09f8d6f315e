#!/bin/sh
# Builds everything in wasm/built from the two crates.
#
#   sh wasm/build.sh            rebuilds wasm/built
#   sh wasm/build.sh --check    rebuilds elsewhere and compares byte for byte with what is committed
#
# Needs the toolchain of setup-toolchain.sh and Deno. Without a toolchain, --check says so, counts a skip and
# succeeds, unless REQUIRE_WASM_TOOLCHAIN=1. Bytes are the same for the same compiler, whatever the directory; the
# manifest says which compiler it was, and --check with another one is a skip too.
set -eu
cd "$(dirname "$0")"
WASM=$PWD
TARGET=wasm32-unknown-unknown

skip() {
  echo "skipped 1 check: wasm/built was not rebuilt, $1"
  [ "${REQUIRE_WASM_TOOLCHAIN:-0}" != 1 ] || { echo "REQUIRE_WASM_TOOLCHAIN=1 makes that a failure" >&2; exit 1; }
  exit 0
}
has_target() {
  dir=$(rustc --print target-libdir --target $TARGET 2>/dev/null) && ls "$dir"/libcore-*.rlib >/dev/null 2>&1
}

CHECK=0
case ${1:-} in
  --check) CHECK=1 ;;
  '') ;;
  *) echo "usage: sh wasm/build.sh [--check]" >&2; exit 2 ;;
esac

ENV=${WASM_TC:-${XDG_CACHE_HOME:-$HOME/.cache}/wasm-toolchain}/env.sh
if ! has_target || ! command -v wasm-pack >/dev/null 2>&1; then
  # shellcheck source=/dev/null
  [ ! -f "$ENV" ] || . "$ENV"
fi
for tool in rustc cargo wasm-pack; do
  command -v $tool >/dev/null 2>&1 || { [ $CHECK = 1 ] && skip "there is no $tool"; echo "there is no $tool: run wasm/setup-toolchain.sh" >&2; exit 1; }
done
has_target || { [ $CHECK = 1 ] && skip "rustc has no $TARGET"; echo "rustc has no $TARGET: run wasm/setup-toolchain.sh" >&2; exit 1; }
RUSTC=$(rustc --version)
if [ $CHECK = 1 ] && ! grep -qF "\"rustc\": \"$RUSTC\"" built/manifest.json; then
  skip "it was built by another compiler than $RUSTC"
fi

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT INT TERM
OUT=$WORK/built
mkdir "$OUT"

# Flags apart by 0x1f, so that paths may hold spaces. Remapped: no path of this machine may reach the bytes.
encode() {
  flags="--remap-path-prefix=$WASM=/wasm"
  for flag in "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/crates" "$@"; do
    flags="$flags$(printf '\037')$flag"
  done
  printf %s "$flags"
}

kernels() { # $1: build, $2: target features
  # Without loop strength reduction offsets stay in the loads: 8 % on linear, 25 % on the attention tiles.
  # Memory and table belong to the host: one memory serves all instances, the table takes score hooks. The stack
  # comes first, so that an overflow traps. No function recurses, and none has more than a few KiB of locals.
  # One tile is assembly (src/six.rs), which the compiler still counts as unstable for this target.
  RUSTC_BOOTSTRAP=attune_kernels CARGO_ENCODED_RUSTFLAGS=$(encode "-Ctarget-feature=$2" -Clink-arg=--import-memory \
    -Cllvm-args=-disable-lsr -Clink-arg=--max-memory=4294967296 -Clink-arg=--export-table -Clink-arg=--growable-table \
    -Clink-arg=--export=__stack_pointer -Clink-arg=--export=__heap_base -Clink-arg=-zstack-size=65536) \
    CARGO_TARGET_DIR="$WASM/target/kernels-$1" \
    cargo build --quiet --release --locked --target $TARGET --manifest-path kernels/Cargo.toml
  cp "target/kernels-$1/$TARGET/release/attune_kernels.wasm" "$OUT/attune_$1.wasm"
}

host() { # $1: name, then cargo arguments
  name=$1
  shift
  CARGO_ENCODED_RUSTFLAGS=$(encode) CARGO_TARGET_DIR="$WASM/target/$name" \
    wasm-pack --quiet build host --release --mode no-install --no-pack --target web \
    --out-dir "$WORK/$name" --out-name "$name" -- --locked "$@"
  cp "$WORK/$name/$name.js" "$WORK/$name/$name.d.ts" "$OUT"
  cp "$WORK/$name/${name}_bg.wasm" "$OUT/$name.wasm"
}

kernels simd +simd128
kernels relaxed +simd128,+relaxed-simd
host attune_host
host attune_inspect --no-default-features --features inspect
deno run --no-prompt --allow-read="$WASM,$WORK" --allow-write="$OUT" embed.ts "$OUT" "$RUSTC"

if [ $CHECK = 0 ]; then
  mkdir -p built
  chmod 644 "$OUT"/*
  cp "$OUT"/* built/
  for file in built/*; do [ -e "$OUT/${file#built/}" ] || rm "$file"; done
  echo "built $(ls built | wc -l) files with $RUSTC"
elif diff -rq built "$OUT"; then
  echo "wasm/built is what the sources give: $(ls built | wc -l) files"
else
  echo "wasm/built is not what the sources give: run sh wasm/build.sh" >&2
  exit 1
fi
