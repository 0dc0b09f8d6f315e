/**
 * Turns the canonical text of a kernel into the WGSL of one variant.
 *
 * The files in `kernels/` are valid WGSL for their default constants. Comments that start with `//#` are
 * directives; `kernels/README.md` documents all of them. Specialising by text, not with `override` constants,
 * is what lets inner loops be unrolled with constant indices: current WebGPU implementations put a bound check
 * on every index and a counter into every loop they cannot see through.
 *
 * @module
 */
import { ELEMENT_TYPES, loader, packer, storer, vectorLoader } from "./element_types.ts";

/** Values of a variant's constants: numbers and flags, or the name of an element type. */
export type Constants = Readonly<Record<string, number | boolean | string>>;

/**
 * The WGSL of `source` with `constants` put in.
 *
 * @throws {SyntaxError} for a directive that makes no sense
 */
export function specialise(source: string, constants: Constants): string {
  const env = new Map<string, number>();
  const values = new Map<string, number | boolean | string>(Object.entries(constants));
  const kept = declare(select(source.split("\n"), values), values, env);
  const scalars = new Map<string, number>();
  const lines = unroll(splitArrays(kept, env, scalars), env);
  if (scalars.size === 0) return lines.join("\n");
  const use = new RegExp(`\\b(${[...scalars.keys()].join("|")})\\[([^\\[\\]]+)\\]`, "g");
  return lines.map((line) =>
    line.replace(use, (_, name: string, index: string) => {
      const i = evaluate(index, env);
      if (i === undefined || i >= scalars.get(name)!) {
        throw new SyntaxError(`${name}[${index}] has no constant index`);
      }
      return `${name}_${i}`;
    })
  ).join("\n");
}

/** Default constants of a source, as its `//#constant`, `//#alias`, `//#storage` and `//#flags` lines declare them. */
export function defaults(source: string): Constants {
  const out: Record<string, number | boolean | string> = {};
  for (const [, name, value] of source.matchAll(/^\s*const (\w+): \w+ = (\d+)u?; \/\/#constant/gm)) {
    out[name!] = Number(value);
  }
  for (
    const [, type, name] of source.matchAll(/(?:array<|alias \w+ = )(\w+)>?; \/\/#(?:storage|alias) (\w+)/gm)
  ) {
    out[name!] ??= type!;
  }
  for (const [, pairs] of source.matchAll(/^\s*\/\/#flags (.*)$/gm)) {
    for (const pair of pairs!.trim().split(/\s+/)) {
      const [name, value] = pair.split("=");
      out[name!] = value === "true" ? true : value === "false" ? false : value!;
    }
  }
  return out;
}

/** Keeps the lines whose `//#if` conditions hold. Lines of alternatives start with `//| ` in the canonical text. */
function select(lines: readonly string[], values: ReadonlyMap<string, unknown>): string[] {
  const out: string[] = [];
  const stack: { taken: boolean; active: boolean; outer: boolean }[] = [];
  for (const raw of lines) {
    const line = raw.trim();
    const top = stack.at(-1);
    const [word] = line.split(" ", 1);
    if (word === "//#flags") continue;
    if (word === "//#if") {
      const outer = top?.active ?? true;
      const active = outer && holds(line.slice(5), values);
      stack.push({ taken: active, active, outer });
    } else if (word === "//#elif" || word === "//#else") {
      if (!top) throw new SyntaxError(`${word} without //#if`);
      top.active = top.outer && !top.taken && (word === "//#else" || holds(line.slice(7), values));
      top.taken ||= top.active;
    } else if (word === "//#endif") {
      if (!stack.pop()) throw new SyntaxError("//#endif without //#if");
    } else if (top?.active ?? true) out.push(line.startsWith("//| ") ? line.slice(4) : line);
  }
  if (stack.length > 0) throw new SyntaxError("//#if without //#endif");
  return out;
}

function holds(condition: string, values: ReadonlyMap<string, unknown>): boolean {
  return condition.split("||").some((any) =>
    any.split("&&").every((term) => {
      const [, not, name, op, right] = /^\s*(!?)(\w+)(?:\s*(==|!=)\s*(\w+))?\s*$/.exec(term) ?? [];
      if (name === undefined) {
        throw new SyntaxError(`//#if ${condition}: expected NAME, !NAME, NAME == value`);
      }
      if (!values.has(name)) throw new SyntaxError(`//#if ${condition}: ${name} has no value`);
      const value = values.get(name);
      const plain = op === undefined
        ? value !== false && value !== 0
        : (String(value) === right) === (op === "==");
      return plain !== (not === "!");
    })
  );
}

/** Puts the values of constants and element types in, and learns every integer constant the text declares. */
function declare(
  lines: readonly string[],
  values: ReadonlyMap<string, number | boolean | string>,
  env: Map<string, number>,
): string[] {
  return lines.flatMap((line) => {
    const at = line.indexOf("//#");
    const code = (at < 0 ? line : line.slice(0, at)).trimEnd();
    const [word, first = "", second = ""] = at < 0 ? [""] : line.slice(at).split(/\s+/);
    let text = code;
    if (word === "//#unroll") return first === "" || values.get(first) === true ? [word] : [];
    if (word === "//#scalars") return [first === "" || values.get(first) === true ? `${code} ${word}` : code];
    if (word === "//#constant") text = code.replace(/= [^;]+;/, `= ${literal(code, values)};`);
    else if (word === "//#alias") text = code.replace(/= \w+;/, `= ${element(first, values).value};`);
    else if (word === "//#storage") {
      const { storage, bits } = element(first, values);
      const type = bits !== undefined && code.includes("read_write") ? "atomic<u32>" : storage;
      text = code.replace(/array<\w+>/, `array<${type}>`);
    } else if (word === "//#load") text = `${head(code)} { ${loader(first, element(second, values))} }`;
    else if (word === "//#load4") text = `${head(code)} { ${vectorLoader(first, element(second, values))} }`;
    else if (word === "//#store") text = storer(head(code), first, element(second, values));
    else if (word === "//#bits") text = packer(head(code), element(first, values));
    else if (word !== "") throw new SyntaxError(`unknown directive ${word}`);
    const declared = /^const (\w+)(?:: ?u32)? ?= ?(.+);$/.exec(text);
    if (declared) {
      const value = evaluate(declared[2]!, env);
      if (value !== undefined) env.set(declared[1]!, value);
    }
    return [text];
  });
}

function head(code: string): string {
  return code.slice(0, code.indexOf("{")).trimEnd();
}

function literal(code: string, values: ReadonlyMap<string, number | boolean | string>): string {
  const [, name, type] = /^const (\w+): (\w+)/.exec(code) ?? [];
  const value = values.get(name ?? "");
  if (typeof value !== "number") throw new SyntaxError(`constant ${name} has no value`);
  return type === "u32" ? `${value}u` : type === "f32" ? `f32(${value})` : String(value);
}

function element(name: string, values: ReadonlyMap<string, number | boolean | string>) {
  const type = ELEMENT_TYPES[String(values.get(name))];
  if (!type) throw new SyntaxError(`element type ${name} has no value`);
  return type;
}

/** Replaces private arrays marked `//#scalars` by one variable per element. */
function splitArrays(
  lines: readonly string[],
  env: ReadonlyMap<string, number>,
  found: Map<string, number>,
): string[] {
  return lines.flatMap((line) => {
    if (!line.endsWith("//#scalars")) return [line];
    const [, name, type, size] = /^var (\w+): ?array<(.+), ?([^,]+)>;/.exec(line) ?? [];
    const n = evaluate(size ?? "", env);
    if (name === undefined || n === undefined) {
      throw new SyntaxError(`not an array of constant size: ${line}`);
    }
    found.set(name, n);
    return Array.from({ length: n }, (_, i) => `var ${name}_${i}: ${type};`);
  });
}

/** Writes out every loop that follows a `//#unroll`, innermost last so that its bounds may use outer variables. */
function unroll(lines: readonly string[], env: ReadonlyMap<string, number>): string[] {
  const out: string[] = [];
  for (let i = 0; i < lines.length; i++) {
    if (!lines[i]!.startsWith("//#unroll")) {
      out.push(lines[i]!);
      continue;
    }
    const loop = lines[i + 1] ?? "";
    const [, name, from, to, step] =
      /^for \(var (\w+) ?= ?([^;]+); ?\w+ ?< ?([^;]+); ?\w+(?:\+\+| ?\+= ?([^)]+))\) ?\{$/.exec(loop) ?? [];
    let end = i + 2;
    for (let depth = 1; end < lines.length; end++) {
      for (const c of lines[end]!) depth += c === "{" ? 1 : c === "}" ? -1 : 0;
      if (depth === 0) break;
    }
    const bounds = [from, to, step ?? "1"].map((e) =>
      evaluate((e ?? "").replace(/^rolled\((\w+)\)$/, "$1"), env)
    );
    if (name === undefined || bounds.includes(undefined) || lines[end] !== "}") {
      throw new SyntaxError(`cannot unroll: ${loop}`);
    }
    const body = lines.slice(i + 2, end);
    const use = new RegExp(`\\b${name}\\b`, "g");
    for (let v = bounds[0]!; v < bounds[1]!; v += bounds[2]!) {
      const copy = unroll(body.map((line) => line.replace(use, `${v}u`)), env);
      // A body that declares nothing needs no scope of its own, which keeps long unrolled kernels flat.
      if (copy.some((line) => /^(let|var|const)\b/.test(line))) out.push("{", ...copy, "}");
      else out.push(...copy);
    }
    i = end;
  }
  return out;
}

/** Value of an integer expression over known constants, or undefined when it is not one. */
export function evaluate(text: string, env: ReadonlyMap<string, number>): number | undefined {
  const tokens = text.match(/\d+|\w+|\S/g) ?? [];
  const plain = text.replace(/(\d+)[ui]\b/g, "$1");
  const list = plain === text ? tokens : plain.match(/\d+|\w+|\S/g) ?? [];
  let at = 0;
  const atom = (): number => {
    const token = list[at++];
    if (token === "(") {
      const value = sum();
      return list[at++] === ")" ? value : NaN;
    }
    if (token === undefined) return NaN;
    return /^\d+$/.test(token) ? Number(token) : env.get(token) ?? NaN;
  };
  const product = (): number => {
    let value = atom();
    while (list[at] === "*" || list[at] === "/" || list[at] === "%") {
      const op = list[at++];
      const right = atom();
      value = op === "*" ? value * right : op === "/" ? Math.trunc(value / right) : value % right;
    }
    return value;
  };
  const sum = (): number => {
    let value = product();
    while (list[at] === "+" || list[at] === "-") value += list[at++] === "+" ? product() : -product();
    return value;
  };
  const value = sum();
  return at === list.length && Number.isSafeInteger(value) ? value : undefined;
}
