/**
 * How far attention may be from the float64 oracle, for those who run the conformance suite.
 *
 * @module
 */
export { ATTENTION_TOLERANCE, type Tolerance } from "../attention/tolerance.ts";
