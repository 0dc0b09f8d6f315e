/**
 * Values of chat templates as Python has them: how they print and when they are equal.
 *
 * @module
 */
import { type Budget, isList, isMapping, isText, type Value } from "./template_budget.ts";

/** Python's `str(value)`; what is not defined prints nothing. */
export function textOf(value: Value, budget: Budget): string {
  if (isText(value)) return value.value;
  const { values, characters } = budget.walk(value);
  budget.checkLength(characters + values);
  return value.type === "UndefinedValue" ? "" : literalOf(value);
}

/** Python's `repr(value)`. */
function literalOf(value: Value): string {
  if (isText(value)) return quote(value.value);
  if (isList(value)) {
    const items = value.value.map(literalOf);
    if (value.type !== "TupleValue") return `[${items.join(", ")}]`;
    return items.length === 1 ? `(${items[0]},)` : `(${items.join(", ")})`;
  }
  if (isMapping(value)) {
    return `{${[...value.value].map(([key, item]) => `${quote(key)}: ${literalOf(item)}`).join(", ")}}`;
  }
  switch (value.type) {
    case "NullValue":
      return "None";
    case "UndefinedValue":
      return "Undefined";
    case "BooleanValue":
      return value.value === true ? "True" : "False";
    case "FloatValue":
      return float(Number(value.value));
    case "IntegerValue":
      return String(value.value);
    default:
      return `<${value.type}>`;
  }
}

/** A number with a fraction; integers never come here but from arithmetic. */
function float(x: number): string {
  if (Number.isInteger(x) && Math.abs(x) < 1e16) return Object.is(x, -0) ? "-0.0" : x.toFixed(1);
  return String(x).replace(/e([+-])(\d)$/, "e$10$2").replace("Infinity", "inf").replace("NaN", "nan");
}

function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\\\p{Cc}\p{Cs}\p{Zl}\p{Zp}]|'|"/gu, (c) => {
    if (c === mark || c === "\\") return `\\${c}`;
    if (c === "'" || c === '"') return c;
    const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[c];
    const code = c.codePointAt(0)!;
    return short ?? (code < 256 ? `\\x${hex(code, 2)}` : `\\u${hex(code, 4)}`);
  });
  return mark + escaped + mark;
}

function hex(code: number, digits: number): string {
  return code.toString(16).padStart(digits, "0");
}

/** Python's `a == b`: by value, and never equal between texts and numbers. */
export function equal(a: Value, b: Value, budget: Budget, level = 1): boolean {
  budget.charge(1);
  budget.checkDepth(level);
  if (a === b) return true;
  if (isText(a) && isText(b)) {
    if (a.value.length !== b.value.length) return false;
    budget.read(a);
    return a.value === b.value;
  }
  if (isList(a) && isList(b)) {
    const other = b.value;
    return a.type === b.type && a.value.length === other.length &&
      a.value.every((item, i) => equal(item, other[i]!, budget, level + 1));
  }
  if (isMapping(a) && isMapping(b)) {
    const other = b.value;
    return a.value.size === other.size && [...a.value].every(([key, item]) => {
      const match = other.get(key);
      return match !== undefined && equal(item, match, budget, level + 1);
    });
  }
  if (isNumber(a.value) && isNumber(b.value)) return Number(a.value) === Number(b.value);
  return a.type === b.type && a.value === b.value;
}

function isNumber(value: unknown): value is number | boolean {
  return typeof value === "number" || typeof value === "boolean";
}

/** The date in English, by the codes of C's `strftime` that templates use. */
export function strftime(date: Date, format: string): string {
  const pad = (n: number, digits = 2) => String(n).padStart(digits, "0");
  const name = (options: Intl.DateTimeFormatOptions) =>
    new Intl.DateTimeFormat("en-US", options).format(date);
  const codes: Record<string, () => string> = {
    Y: () => String(date.getFullYear()),
    y: () => pad(date.getFullYear() % 100),
    m: () => pad(date.getMonth() + 1),
    d: () => pad(date.getDate()),
    H: () => pad(date.getHours()),
    I: () => pad((date.getHours() + 11) % 12 + 1),
    M: () => pad(date.getMinutes()),
    S: () => pad(date.getSeconds()),
    p: () => date.getHours() < 12 ? "AM" : "PM",
    B: () => name({ month: "long" }),
    b: () => name({ month: "short" }),
    A: () => name({ weekday: "long" }),
    a: () => name({ weekday: "short" }),
    "%": () => "%",
  };
  const made = new Map<string, string>();
  return format.replace(/%([a-zA-Z%])/g, (whole, code: string) => {
    if (!Object.hasOwn(codes, code)) return whole;
    if (!made.has(code)) made.set(code, codes[code]!());
    return made.get(code)!;
  });
}
