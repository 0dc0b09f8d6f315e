/**
 * Parameters: the weights of a model, each in a box so that moving a model replaces them all at once.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import type { Tensor } from "../tensor.ts";

/** One weight. `tensor` changes when the model moves to another device. */
export interface Parameter {
  readonly name: string;
  tensor: Tensor;
  /** Undoes what was done to the weight when the model was built, for saving it; absent where nothing was. */
  restore?: (tensor: Tensor) => Tensor;
}

/** All weights of a model by their name in the checkpoint. */
export class Parameters {
  #all = new Map<string, Parameter>();
  #taken = new Set<string>();
  readonly #prefix: string;

  /** Holds `tensors`; `prefix` is put before every name a layer asks for. */
  constructor(tensors: ReadonlyMap<string, Tensor>, prefix = "") {
    for (const [name, tensor] of tensors) this.#all.set(name, { name, tensor });
    this.#prefix = prefix;
  }

  /** The same weights, asked for without `prefix.` before their names. */
  under(prefix: string): Parameters {
    const inner = new Parameters(new Map(), `${this.#prefix}${prefix}.`);
    inner.#all = this.#all;
    inner.#taken = this.#taken;
    return inner;
  }

  /** Whether the checkpoint has a weight. */
  has(name: string): boolean {
    return this.#all.has(this.#prefix + name);
  }

  /** As {@linkcode Parameters.has}, for a weight outside the prefix. */
  hasAbsolute(full: string): boolean {
    return this.#all.has(full);
  }

  /**
   * The weight `name`, which must have `shape`.
   *
   * @throws {ModelFileError} when it is missing or has another shape
   */
  take(name: string, shape: readonly number[]): Parameter {
    return this.takeAbsolute(this.#prefix + name, shape);
  }

  /** As {@linkcode Parameters.take}, for a weight outside the prefix. */
  takeAbsolute(full: string, shape: readonly number[]): Parameter {
    const found = this.#all.get(full);
    if (found === undefined) {
      throw new ModelFileError(
        `Cannot build the model: weight "${full}" [${shape}] is missing from the checkpoint`,
      );
    }
    const { tensor } = found;
    if (tensor.shape.length !== shape.length || shape.some((d, i) => tensor.shape[i] !== d)) {
      throw new ModelFileError(
        `Cannot build the model: weight "${full}" has shape [${tensor.shape}], the config asks for [${shape}]`,
      );
    }
    this.#taken.add(full);
    return found;
  }

  /** Disposes weights of the checkpoint that no layer took, and returns their names. */
  dropUnused(): string[] {
    const unused = [...this.#all.keys()].filter((name) => !this.#taken.has(name));
    for (const name of unused) {
      this.#all.get(name)!.tensor[Symbol.dispose]();
      this.#all.delete(name);
    }
    return unused;
  }

  /** Every weight. */
  [Symbol.iterator](): IterableIterator<Parameter> {
    return this.#all.values();
  }
}
