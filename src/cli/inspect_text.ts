/**
 * A model's inspection as text.
 *
 * @module
 */
import { isRecord } from "../config_fields.ts";
import type { Inspection } from "./inspect.ts";
import type { DryRun } from "./dry_run.ts";
import { table } from "./io.ts";
import { size } from "./recording.ts";

/** Fields of a config that say how large a model is and what it attends to. */
const FIELDS = [
  "model_type",
  "architectures",
  "dtype",
  "torch_dtype",
  "vocab_size",
  "hidden_size",
  "intermediate_size",
  "num_hidden_layers",
  "num_attention_heads",
  "num_key_value_heads",
  "head_dim",
  "max_position_embeddings",
  "sliding_window",
  "attention_chunk_size",
  "attn_logit_softcapping",
  "tie_word_embeddings",
];

/** A model on a page. */
export function drawn(found: Inspection): string {
  const parts = [found.model, configLines(found.config)];
  const millions = (n: number) => `${(n / 1e6).toFixed(n < 1e7 ? 2 : 0)} M`;
  parts.push(
    table(
      ["stored as", "tensors", "numbers", "size"],
      found.stored.map((row) => [row.dtype, String(row.tensors), millions(row.numbers), size(row.bytes)]),
    ),
    table(["file", "size"], found.files.map(({ name, bytes }) => [name, size(bytes)])),
    fact("tokenizer", found.tokenizer),
    fact("generation", found.generation_config),
  );
  if (found.run === null) parts.push(`This model cannot be loaded here. ${found.problem}`);
  else parts.push(memoryLines(found.run), layerLines(found.run));
  return parts.join("\n\n");
}

function configLines(config: Readonly<Record<string, unknown>>): string {
  const lines = (fields: Readonly<Record<string, unknown>>, prefix: string): string[] => [
    ...FIELDS.filter((name) => (fields[name] ?? null) !== null).map((name) =>
      `${prefix}${name}: ${typeof fields[name] === "string" ? fields[name] : JSON.stringify(fields[name])}`
    ),
    ...Object.entries(fields).flatMap(([name, part]) =>
      name.endsWith("_config") && isRecord(part) ? lines(part, `${prefix}${name}.`) : []
    ),
  ];
  return lines(config, "").join("\n");
}

function fact(name: string, fields: Readonly<Record<string, unknown>> | null): string {
  if (fields === null) return `${name}: none`;
  const shown = Object.entries(fields).filter(([key, value]) => value !== null && !key.startsWith("_"));
  return `${name}: ${shown.map(([key, value]) => `${key} ${JSON.stringify(value)}`).join(", ")}`;
}

function memoryLines({ memory: m, parameters }: DryRun): string {
  const perToken = Object.entries(m.cache_per_token).map(([type, n]) => `${size(n)} as ${type}`);
  return [
    `memory for a context of ${m.context} tokens`,
    table(["what", "takes"], [
      [`weights, ${(parameters / 1e6).toFixed(2)} M numbers`, size(m.weights)],
      ["keys and values, float32", size(m.cache.float32)],
      [`work, prompt of ${m.prompt}`, size(m.work)],
      ["together", size(m.total)],
      ["most an engine may have", size(m.maximum)],
    ]),
    m.fits ? "It fits." : `It does not fit; a context of ${m.longest_context} tokens does.`,
    `One token's keys and values: ${perToken.join(", ")}.`,
  ].join("\n");
}

function layerLines({ layers, memory }: DryRun): string {
  const rows = layers.map((row) => ({
    layer: row.layer,
    cells: [
      row.type,
      row.implementation,
      row.heads === null ? "" : `${row.heads}/${row.kv_heads} × ${row.head_dim}`,
      row.window === null ? "" : String(row.window),
      row.softcap === null ? "" : String(row.softcap),
      row.mask_of_prompt ?? "–",
      row.mask_of_token ?? "–",
      row.why,
    ],
  }));
  // Layers that are alike share a line, as long as they follow each other.
  const groups: { first: string; last: string; cells: readonly string[] }[] = [];
  for (const { layer, cells } of rows) {
    const before = groups.at(-1);
    if (before !== undefined && before.cells.join() === cells.join()) before.last = layer;
    else groups.push({ first: layer, last: layer, cells });
  }
  const types = [...Map.groupBy(layers, ({ type }) => type)].map(([type, list]) => `${list.length} ${type}`);
  return `${layers.length} attention layers: ${types.join(", ")}\n` + table(
    [
      "layers",
      "type",
      "implementation",
      "heads",
      "window",
      "softcap",
      `mask of ${memory.prompt}`,
      "mask of 1 more",
      "why",
    ],
    groups.map(({ first, last, cells }) => [first === last ? first : `${first} … ${last}`, ...cells]),
  );
}
