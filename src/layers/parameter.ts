/**
 * Parameters: the weights of a model, each in a box so that moving a model replaces them all at once.
 *
 * @module
 */
import type { Device } from "../devices/device.ts";
import type { QuantizedMatrix } from "../devices/quantized.ts";
import type { DType } from "../dtype.ts";
import { ModelFileError } from "../errors.ts";
import { Tensor } from "../tensor.ts";

/** One weight. `tensor` changes when the model moves to another device. */
export interface Parameter {
  readonly name: string;
  tensor: Tensor;
  /** What a weight of few bits stands for; `tensor` then holds it packed, and only a {@linkcode Linear} layer reads it. */
  readonly quantized?: QuantizedMatrix;
  /** What reads the weight: only those of linear layers can be quantised. Set by the layer. */
  use?: "linear" | "other";
  /** Type it has in a file; in memory vectors are wider. */
  readonly stored: DType;
  /** Undoes what was done to the weight when the model was built, for saving it; absent where nothing was. */
  restore?: (tensor: Tensor) => Tensor;
}

/** A weight as {@linkcode Parameters} takes it over. */
export interface Weight {
  readonly tensor: Tensor;
  /** Type it has in a file; default: that of the tensor. */
  readonly stored?: DType;
  readonly quantized?: QuantizedMatrix;
}

/** Shape of the matrix or vector a weight is. */
export function weightShape({ tensor, quantized }: Parameter): readonly number[] {
  return quantized?.shape ?? tensor.shape;
}

/** Makes the weight `name` of a new model when a layer asks for it. */
export type MakeWeight = (name: string, shape: readonly number[]) => Weight;

/** All weights of a model by their name in the checkpoint. */
export class Parameters {
  #all = new Map<string, Parameter>();
  #taken = new Set<string>();
  readonly #prefix: string;
  readonly #make: MakeWeight | null;

  /**
   * Holds the weights of a checkpoint, or those that `make` makes as they are asked for; `prefix` is put before every
   * name a layer asks for.
   */
  constructor(weights: ReadonlyMap<string, Weight> | MakeWeight, prefix = "") {
    this.#make = typeof weights === "function" ? weights : null;
    if (typeof weights !== "function") { for (const [name, weight] of weights) this.#add(name, weight); }
    this.#prefix = prefix;
  }

  #add(name: string, { tensor, stored = tensor.dtype, quantized }: Weight): Parameter {
    const parameter = { name, tensor, stored, ...(quantized === undefined ? {} : { quantized }) };
    this.#all.set(name, parameter);
    return parameter;
  }

  /** The same weights, asked for without `prefix.` before their names. */
  under(prefix: string): Parameters {
    const inner = new Parameters(this.#make ?? new Map(), `${this.#prefix}${prefix}.`);
    inner.#all = this.#all;
    inner.#taken = this.#taken;
    return inner;
  }

  /** Whether the checkpoint has a weight. A new model has those it was asked for. */
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
    const found = this.#all.get(full) ??
      (this.#make === null ? null : this.#add(full, this.#make(full, shape)));
    if (found === null) {
      throw new ModelFileError(
        `Cannot build the model: weight "${full}" [${shape}] is missing from the checkpoint`,
      );
    }
    const has = weightShape(found);
    if (has.length !== shape.length || shape.some((d, i) => has[i] !== d)) {
      throw new ModelFileError(
        `Cannot build the model: weight "${full}" has shape [${has}], the config asks for [${shape}]`,
      );
    }
    this.#taken.add(full);
    return found;
  }

  /** Disposes weights of the checkpoint that no layer took and `keep` does not name, and returns the names. */
  dropUnused(keep: (name: string) => boolean = () => false): string[] {
    const unused = [...this.#all.keys()].filter((name) => !this.#taken.has(name) && !keep(name));
    for (const name of unused) {
      this.#all.get(name)!.tensor[Symbol.dispose]();
      this.#all.delete(name);
    }
    return unused;
  }

  /**
   * Copies every weight to another device and returns what puts the copies into the boxes. On an error nothing has
   * changed, and no copy stays.
   */
  async copyTo(device: Device): Promise<() => void> {
    const copies: [Parameter, Tensor][] = [];
    try {
      for (const parameter of this) {
        const host = await parameter.tensor.raw();
        const there = Tensor.empty(device, parameter.tensor.dtype, parameter.tensor.shape);
        copies.push([parameter, there]);
        device.write(there.storage.on(device), 0, device.encode(there.dtype, host));
        await device.flush();
      }
    } catch (error) {
      for (const [, copy] of copies) copy[Symbol.dispose]();
      throw error;
    }
    return () => {
      for (const [parameter, copy] of copies) {
        parameter.tensor[Symbol.dispose]();
        parameter.tensor = copy;
      }
    };
  }

  /**
   * What puts the weights of `fresh`, the same checkpoint once more, into the boxes. They belong to the model then.
   *
   * @throws {ModelFileError} where they are not the same
   */
  replacedBy(fresh: Parameters): () => void {
    const pairs = [...this].map((parameter) => {
      const { name, tensor } = parameter;
      const found = fresh.#all.get(name)?.tensor;
      if (found !== undefined && found.dtype === tensor.dtype && `${found.shape}` === `${tensor.shape}`) {
        return [parameter, found] as const;
      }
      throw new ModelFileError(
        `Cannot load the model's weights again: "${name}" is ${
          found === undefined ? "missing" : `${found.dtype} [${found.shape}]`
        } now, it was ${tensor.dtype} [${tensor.shape}]`,
      );
    });
    return () => {
      for (const [parameter, tensor] of pairs) {
        parameter.tensor[Symbol.dispose]();
        parameter.tensor = tensor;
      }
    };
  }

  /** Gives every weight back. */
  dispose(): void {
    for (const { tensor } of this) tensor[Symbol.dispose]();
  }

  /** Every weight. */
  [Symbol.iterator](): IterableIterator<Parameter> {
    return this.#all.values();
  }
}
