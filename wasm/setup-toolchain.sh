#!/bin/sh
# Sets up what wasm/build.sh needs: a rustc with a standard library for wasm32-unknown-unknown, wasm-pack and
# wasm-bindgen.
#
#   sh wasm/setup-toolchain.sh        then `sh wasm/build.sh` finds it
#
# Where rustc already has the target (`rustup target add wasm32-unknown-unknown`; WASM_RUSTUP=1 lets this script
# do that), only the two tools are installed. On a Debian machine without rustup the compiler comes from packages
# (as root), and the standard library, which Debian does not ship for this target, is built once from the
# packaged sources into a private sysroot; a two-line `rustc` that adds --sysroot then goes first on PATH, so that
# cargo and wasm-pack see a target like any other. Every step is skipped when its result is there. Everything is
# put under WASM_TC, outside the checkout.
set -eu

# No "rustup" in this path: wasm-pack takes it as a sign to call rustup.
WASM_TC=${WASM_TC:-${XDG_CACHE_HOME:-$HOME/.cache}/wasm-toolchain}
WASM_PACK_VERSION=0.15.1
# Must be the version of `wasm-bindgen = "=…"` in wasm/host/Cargo.toml: the two speak a private format.
WASM_BINDGEN_VERSION=0.2.126
TARGET=wasm32-unknown-unknown
mkdir -p "$WASM_TC/bin"
say() { printf '[wasm toolchain] %s\n' "$*"; }
fail() { printf '[wasm toolchain] %s\n' "$*" >&2; exit 1; }

has_std() { # $1: a rustc
  dir=$("$1" --print target-libdir --target $TARGET 2>/dev/null) && ls "$dir"/libstd-*.rlib >/dev/null 2>&1
}

install_packages() {
  [ "$(id -u)" = 0 ] || fail "run as root: apt-get install $*"
  say "installing $*"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$WASM_TC/packages.log" 2>&1 ||
    { tail -20 "$WASM_TC/packages.log"; exit 1; }
}

build_std() { # $1: sysroot to make
  root=$1
  host=$($RUSTC -vV | sed -n 's/^host: //p')
  hash=$($RUSTC -vV | sed -n 's/^commit-hash: //p')
  base=$($RUSTC --print sysroot)
  stamp="$($RUSTC --version) 1"
  if [ -f "$root/stamp" ] && [ "$(cat "$root/stamp")" = "$stamp" ]; then return 0; fi
  rm -rf "$root"
  mkdir -p "$root/bin" "$root/lib/rustlib/$host/bin" "$root/lib/rustlib/$TARGET" "$root/build/src"
  ln -s "$base/lib/rustlib/$host/lib" "$root/lib/rustlib/$host/lib"
  ln -s "$base/lib/rustlib/src" "$root/lib/rustlib/src"
  ln -s "$LLD" "$root/lib/rustlib/$host/bin/rust-lld" # the linker this target asks for
  printf '#!/bin/sh\nexec "%s" --sysroot "%s" "$@"\n' "$RUSTC" "$root" >"$root/bin/rustc"
  [ ! -x /usr/bin/rustdoc ] || printf '#!/bin/sh\nexec /usr/bin/rustdoc --sysroot "%s" "$@"\n' "$root" >"$root/bin/rustdoc"
  ln -s "$CARGO" "$root/bin/cargo"
  chmod +x "$root"/bin/rust*
  say "building the standard library for $TARGET"
  : >"$root/build/src/lib.rs"
  printf '[package]\nname = "std-for-wasm"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n' >"$root/build/Cargo.toml"
  # Bitcode, so that `lto = true` finds it. Remapped (the last match wins), so that no path of this machine reaches
  # a panic message.
  (
    cd "$root/build"
    unset CARGO_ENCODED_RUSTFLAGS
    RUSTC="$root/bin/rustc" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$root/build/target" \
      RUSTFLAGS="-Cembed-bitcode=yes --remap-path-prefix=$root=/rust/sysroot --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/rust/deps --remap-path-prefix=$root/lib/rustlib/src/rust=/rustc/$hash" \
      "$CARGO" build --release --target $TARGET -Zbuild-std=std,panic_abort,proc_macro,test \
      -Zbuild-std-features=panic-unwind,backtrace
  ) >"$root/build.log" 2>&1 || { tail -30 "$root/build.log"; exit 1; }
  mkdir "$root/lib/rustlib/$TARGET/lib"
  for file in "$root/build/target/$TARGET/release/deps"/*.rlib; do
    case $file in *std_for_wasm*) ;; *) cp "$file" "$root/lib/rustlib/$TARGET/lib/" ;; esac
  done
  rm -rf "$root/build"
  has_std "$root/bin/rustc" || fail "the standard library was built but rustc does not find it"
  printf '%s\n' "$stamp" >"$root/stamp"
}

if command -v rustc >/dev/null 2>&1 && has_std rustc; then
  SEARCH="$WASM_TC/bin"
elif [ "${WASM_RUSTUP:-0}" = 1 ]; then
  rustup target add $TARGET
  SEARCH="$WASM_TC/bin"
else
  RUSTC=/usr/bin/rustc
  CARGO=/usr/bin/cargo
  command -v apt-get >/dev/null 2>&1 || fail "rustc has no $TARGET: rustup target add $TARGET"
  if ! [ -x $RUSTC ] || ! [ -x $CARGO ] || ! [ -d "$($RUSTC --print sysroot)/lib/rustlib/src/rust/library/std" ]; then
    install_packages rustc-web cargo-web rust-web-src
  fi
  llvm=$($RUSTC -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
  command -v "lld-$llvm" >/dev/null 2>&1 || install_packages "lld-$llvm"
  LLD=$(command -v "lld-$llvm")
  build_std "$WASM_TC/rust"
  SEARCH="$WASM_TC/rust/bin:$WASM_TC/bin"
fi

PATH="$SEARCH:$PATH"
export PATH
want() { # $1: command, $2: version, $3: crate, then cargo arguments
  command=$1 version=$2 crate=$3
  shift 3
  if [ "$("$command" --version 2>/dev/null | awk '{ print $2 }')" = "$version" ]; then return 0; fi
  say "installing $crate $version"
  # Unoptimised: half the time to build, and these tools run for a second.
  CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install --locked --root "$WASM_TC" --version "=$version" "$@" "$crate" >"$WASM_TC/$crate.log" 2>&1 ||
    { tail -30 "$WASM_TC/$crate.log"; exit 1; }
}
want wasm-bindgen $WASM_BINDGEN_VERSION wasm-bindgen-cli --no-default-features --bin wasm-bindgen
want wasm-pack $WASM_PACK_VERSION wasm-pack
# build.sh reads this file.
printf 'export PATH="%s:$PATH"\n' "$SEARCH" >"$WASM_TC/env.sh"
say "ready: $(rustc --version), $(wasm-pack --version), $(wasm-bindgen --version)"
