/**
 * JSON as Transformers writes it.
 *
 * @module
 */

/**
 * Fields of configurations that Transformers declares as `float` and refuses where the file has `20` for `20.0`: numbers
 * here do not tell the two apart.
 */
const FLOATS: ReadonlySet<string> = new Set([
  "attention_dropout",
  "attention_factor",
  "attention_probs_dropout_prob",
  "attn_logit_softcapping",
  "attn_scale",
  "beta_fast",
  "beta_slow",
  "classifier_dropout",
  "factor",
  "final_logit_softcapping",
  "hidden_dropout_prob",
  "high_freq_factor",
  "initializer_factor",
  "initializer_range",
  "layer_norm_eps",
  "length_penalty",
  "long_factor",
  "low_freq_factor",
  "min_p",
  "mscale",
  "mscale_all_dim",
  "partial_rotary_factor",
  "repetition_penalty",
  "rms_norm_eps",
  "rope_theta",
  "router_aux_loss_coef",
  "router_jitter_noise",
  "short_factor",
  "temperature",
  "top_p",
  "typical_p",
]);

/** The text of a JSON file: indented by 2, keys in order, a line break at the end. */
export function jsonText(value: unknown): string {
  return `${print(value, "", "\n")}\n`;
}

function print(value: unknown, field: string, line: string): string {
  const inner = `${line}  `;
  const list = (open: string, items: readonly string[], close: string) =>
    items.length === 0 ? open + close : `${open}${inner}${items.join(`,${inner}`)}${line}${close}`;
  if (Array.isArray(value)) return list("[", value.map((item) => print(item, field, inner)), "]");
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    entries.sort(([a], [b]) => a < b ? -1 : 1);
    return list("{", entries.map(([key, item]) => `${JSON.stringify(key)}: ${print(item, key, inner)}`), "}");
  }
  // Python writes small numbers with an exponent of two digits.
  if (typeof value === "number" && value !== 0 && Math.abs(value) < 1e-4) {
    return value.toExponential().replace(/e-(\d)$/, "e-0$1");
  }
  const text = JSON.stringify(value);
  return FLOATS.has(field) && /^-?\d+$/.test(text) ? `${text}.0` : text;
}
