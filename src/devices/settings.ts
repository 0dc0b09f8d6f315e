/** The values behind `configure`, read by engines when they are made. @module */
export const settings: {
  threads: number | "auto";
  deterministic: boolean;
  max_memory: number;
  webgpu: "runtime" | "software" | "dawn";
  tensor_cores: boolean;
} = {
  threads: "auto",
  deterministic: false,
  max_memory: 2 ** 32,
  webgpu: "runtime",
  tensor_cores: false,
};
