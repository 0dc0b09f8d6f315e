/**
 * Says which GPU WebGPU gives here and with what; a software adapter is an error unless SOFTWARE=1.
 *
 * @module
 */
import { WebGpuDevice } from "../src/devices/webgpu/device.ts";

const device = new WebGpuDevice();
const info = await device.info();
console.log(JSON.stringify(info, null, 2));
await device.destroy();
if (info.isFallbackAdapter && Deno.env.get("SOFTWARE") !== "1") {
  console.error(
    "This is a software adapter, whose figures say nothing about a GPU: expected a driver of a GPU",
  );
  Deno.exit(1);
}
