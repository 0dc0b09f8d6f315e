/** The values behind `configure`, read by engines when they are made. @module */
export const settings: { threads: number; deterministic: boolean; max_memory: number } = {
  threads: 1,
  deterministic: false,
  max_memory: 2 ** 32,
};
