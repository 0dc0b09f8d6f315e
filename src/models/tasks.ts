/**
 * Tasks: what the loaders are called, and which model of an architecture each of them builds.
 *
 * @module
 */
import { modelType, type PretrainedConfig } from "../config.ts";
import { InvalidArgument } from "../errors.ts";
import { type Architecture, type BuildModel, MODELS } from "./mod.ts";

/** What a model is wanted for. */
export interface Task {
  /** Name of its loader. */
  readonly name: string;
  /** The model of an architecture that does it. */
  readonly choose: (architecture: Architecture) => BuildModel | undefined;
}

/** Every task. */
export const TASKS = {
  base: { name: "AutoModel", choose: (a) => a.base },
  causal_lm: { name: "AutoModelForCausalLM", choose: (a) => a.causal_lm },
  image_text_to_text: { name: "AutoModelForImageTextToText", choose: (a) => a.image_text_to_text },
} as const satisfies Readonly<Record<string, Task>>;

/**
 * The architecture of a config, and how its model for a task is built; `what` is what messages call it.
 *
 * @throws {InvalidArgument | ModelFileError} for an unknown model type, or one without such a head
 */
export function modelFor(
  task: Task,
  config: PretrainedConfig,
  what: string,
): { architecture: Architecture; build: BuildModel } {
  const architecture = MODELS[modelType(config, Object.keys(MODELS))]!;
  const build = task.choose(architecture);
  if (build !== undefined) return { architecture, build };
  const fitting = Object.values<Task>(TASKS).filter(({ choose }) => choose(architecture) !== undefined);
  throw new InvalidArgument(
    `Cannot load ${what} with ${task.name}: model type ${
      String(config["model_type"])
    } has no such head; use ${fitting.map(({ name }) => name).join(" or ")}`,
  );
}
