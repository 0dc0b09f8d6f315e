/**
 * For authors of attention functions and kernels: the oracle their results are compared with.
 *
 * @module
 */
export {
  type NestedValues,
  reference_attention,
  type ReferenceArray,
  type ReferenceCall,
  type ReferenceResult,
} from "./src/attention/reference.ts";
