# Source this: `. tests/support/mesa.sh`. WebGPU on the CPU for tests: a recent lavapipe, unpacked, not installed.
#
# Debian 12's own Mesa 22 ends every shader loop at 65535 iterations without a word, and Dawn refuses to run on it,
# so this takes the packages of the backports suite from the machine's configured Debian source. Where Mesa is
# already 24 or newer, install mesa-vulkan-drivers instead. Needs libvulkan1, apt-get and dpkg-deb; no root.
# Sourcing it again does nothing. MESA_CACHE names the folder, else one in the user's cache is used.

attune_mesa() {
  local home=${MESA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/attune-mesa} suite uri
  local driver=$home/root/usr/lib/$(uname -m)-linux-gnu/libvulkan_lvp.so
  if [ ! -e "$driver" ]; then
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")-backports
    uri=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -1)
    if [ -z "$uri" ]; then
      uri=$(sed -n 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' /etc/apt/sources.list 2>/dev/null | head -1)
    fi
    if [ -z "$uri" ]; then
      echo "mesa.sh: no Debian source is configured; install mesa-vulkan-drivers 24 or newer" >&2
      return 1
    fi
    mkdir -p "$home/lists/partial" "$home/archives/partial" "$home/root"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main" > "$home/backports.list"
    local options="-o Dir::Etc::sourcelist=$home/backports.list -o Dir::Etc::sourceparts=- \
      -o Dir::State::lists=$home/lists -o Dir::Cache=$home -o APT::Sandbox::User=root"
    (
      cd "$home/archives" &&
        apt-get $options update -qq &&
        apt-get $options download mesa-vulkan-drivers libdrm2 libdrm-amdgpu1 &&
        for package in *.deb; do dpkg-deb -x "$package" "$home/root"; done
    ) >&2 || { echo "mesa.sh: the packages could not be fetched" >&2; return 1; }
  fi
  case ":${LD_LIBRARY_PATH:-}:" in
    *":${driver%/*}:"*) ;;
    *) export LD_LIBRARY_PATH=${driver%/*}${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}} ;;
  esac
  export VK_ICD_FILENAMES=$home/root/usr/share/vulkan/icd.d/lvp_icd.json
  # The icd file may carry the machine type in its name.
  [ -e "$VK_ICD_FILENAMES" ] || VK_ICD_FILENAMES=$(echo "$home"/root/usr/share/vulkan/icd.d/lvp_icd*.json)
  # Without it Deno falls back to OpenGL where Vulkan is missing, and hangs in compute kernels.
  export DENO_WEBGPU_BACKEND=vulkan
  export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}
}
attune_mesa
