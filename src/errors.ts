/**
 * The few error classes a caller may want to catch. Every message names what was expected, what came,
 * and what is allowed.
 *
 * @module
 */

/** Base class of every error this library throws on purpose. */
export class AttuneError extends Error {
  /** The class, for callers that cannot import it. */
  override readonly name: string = "AttuneError";
}

/** An argument has the wrong type, shape, dtype, range or name. Nothing was computed and nothing changed. */
export class InvalidArgument extends AttuneError {
  /** The class, for callers that cannot import it. */
  override readonly name = "InvalidArgument";
}

/** The requested device, or an explicitly requested feature of it, does not exist on this machine. */
export class DeviceUnavailable extends AttuneError {
  /** The class, for callers that cannot import it. */
  override readonly name = "DeviceUnavailable";
}

/** A memory plan or an allocation does not fit. Raised before anything is written. */
export class OutOfMemory extends AttuneError {
  /** The class, for callers that cannot import it. */
  override readonly name = "OutOfMemory";
}

/** A kernel trapped or a GPU device was lost. The engine is dead; other engines and models live on. */
export class EngineFailure extends AttuneError {
  /** The class, for callers that cannot import it. */
  override readonly name = "EngineFailure";
}

/** A model file (config, weights, tokenizer) is missing, malformed or contradicts itself. */
export class ModelFileError extends AttuneError {
  /** The class, for callers that cannot import it. */
  override readonly name = "ModelFileError";
}

/** One candidate that was looked at, and why it was taken or refused. */
export interface Candidate {
  /** What was considered, e.g. an implementation or SDPA backend name. */
  readonly name: string;
  /** `"accepted"`, or the reason it was rejected. */
  readonly verdict: string;
}

/** An explicitly requested attention implementation or backend cannot do what was asked of it. */
export class AttentionRefused extends AttuneError {
  /** The class, for callers that cannot import it. */
  override readonly name = "AttentionRefused";
  /** Every candidate that was considered, in order. */
  readonly candidates: readonly Candidate[];
  /** Builds the message from `what` and one line per candidate. */
  constructor(what: string, candidates: readonly Candidate[] = []) {
    super(
      candidates.length === 0
        ? what
        : `${what}\n${candidates.map((c) => `  ${c.name}: ${c.verdict}`).join("\n")}`,
    );
    this.candidates = candidates;
  }
}

/** A tensor was read after its computation was dropped, because the request that owned it was aborted. */
export class ComputationDropped extends AttuneError {
  /** The class, for callers that cannot import it. */
  override readonly name = "ComputationDropped";
}
