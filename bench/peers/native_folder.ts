/**
 * Where node-llama-cpp lies: Deno cannot fetch it by specifier, because it names packages for other machines that no
 * registry has. npm leaves those out.
 *
 * @module
 */

const PACKAGES = ["node-llama-cpp@3.22.1", "@node-llama-cpp/linux-x64@3.22.1"];

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/**
 * The folder with its `node_modules`, which is filled at the first call.
 *
 * @throws {Error} on other machines than the package is for, or without npm
 */
export async function nativeFolder(): Promise<string> {
  const { os, arch } = Deno.build;
  if (os !== "linux" || arch !== "x86_64") {
    throw new Error(`its package is for linux x86_64, not ${os} ${arch}`);
  }
  const cache = Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME")}/.cache`;
  const folder = `${cache}/attune/bench/${PACKAGES[0]}`;
  if (await exists(`${folder}/node_modules/node-llama-cpp`)) return folder;
  const part = `${folder}.part`;
  await Deno.mkdir(part, { recursive: true });
  await Deno.writeTextFile(`${part}/package.json`, "{}");
  const { success } = await new Deno.Command("npm", {
    args: [
      "install",
      "--prefix",
      part,
      "--ignore-scripts",
      "--omit=optional",
      "--no-audit",
      "--no-fund",
      ...PACKAGES,
    ],
    stdout: "null",
    stderr: "null",
  }).output();
  if (!success) throw new Error(`npm install ${PACKAGES.join(" ")} failed`);
  await Deno.rename(part, folder);
  return folder;
}
