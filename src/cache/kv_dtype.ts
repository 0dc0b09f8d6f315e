/**
 * The types a cache may keep keys and values in.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";

/**
 * How keys and values are kept. The float types round; `"int8"` scales every row of a head by its largest element, in 1
 * byte an element and 4 a row.
 */
export type KvDType = "float32" | "float16" | "bfloat16" | "int8";

/** All of them, in the order messages list them. */
export const KV_DTYPES: readonly KvDType[] = ["float32", "float16", "bfloat16", "int8"];

/**
 * Checks a type that came from outside; null and undefined leave keys and values as they are computed.
 *
 * @throws {InvalidArgument} naming what is allowed
 */
export function checkKvDType(kv_dtype: unknown): KvDType | null {
  if (kv_dtype === undefined || kv_dtype === null) return null;
  const found = KV_DTYPES.find((dtype) => dtype === kv_dtype);
  if (found !== undefined) return found;
  throw new InvalidArgument(
    `Cannot keep keys and values as kv_dtype ${JSON.stringify(kv_dtype) ?? typeof kv_dtype}: ` +
      `expected one of ${KV_DTYPES.join(", ")}`,
  );
}
