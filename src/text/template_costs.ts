/**
 * What the operations of chat templates cost: those whose work or result is not bounded by their operands' number.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import { type Budget, isList, isMapping, isText, units, type Value } from "./template_budget.ts";

/**
 * Pays for a binary operator, and refuses to add a list or mapping to a text, as Python does.
 *
 * @throws {ModelFileError} when the budget ends
 */
export function payOperator(operator: string, left: Value, right: Value, budget: Budget): void {
  if (operator === "+") {
    const odd = [left, right].find((value) => isList(value) || isMapping(value));
    if (odd !== undefined && (isText(left) || isText(right))) {
      throw new ModelFileError("Cannot apply the chat template: it adds a list or mapping to a text");
    }
    if (isList(left) && isList(right)) budget.charge(left.value.length + right.value.length);
  } else if (isList(right)) {
    for (const item of right.value) {
      const alike = isText(item) && isText(left) && item.value.length === left.value.length;
      budget.charge(alike ? units(item.value.length) : 1);
    }
  } else budget.search(right, left);
}

/** Pays for calling a method of a text or mapping. */
export function payMethod(name: string, receiver: Value, args: readonly unknown[], budget: Budget): void {
  if (isMapping(receiver)) {
    const n = receiver.value.size;
    if (name === "dictsort") paySort(receiver, budget);
    else if (name !== "get") budget.charge(4 * n);
    return;
  }
  if (!isText(receiver)) return;
  const texts = args.flatMap((arg) => isValue(arg) ? isList(arg) ? [...arg.value] : [arg] : []);
  for (const text of texts) budget.search(receiver, text);
  const [first, second] = texts;
  const length = receiver.value.length;
  const parts = first !== undefined && isText(first) ? length / Math.max(1, first.value.length) + 1 : length;
  if (name === "split") budget.charge(2 * Math.ceil(parts));
  if (name === "replace" && second !== undefined && isText(second)) {
    const most = length + parts * second.value.length;
    budget.charge(units(most));
  }
  budget.read(receiver);
}

/** Comparing while sorting reads every value some times. */
function paySort(value: Value, budget: Budget): void {
  const { values, characters } = budget.walk(value);
  budget.charge(4 * (values + units(characters)) * Math.ceil(Math.log2(2 + sizeOf(value))));
}

/** Pays for a filter. `args` are values, or the nodes of string literals. */
export function payFilter(name: string, operand: Value, args: readonly unknown[], budget: Budget): void {
  const numbers = args.flatMap((arg) => isValue(arg) && typeof arg.value === "number" ? [arg.value] : []);
  const width = Math.max(0, ...numbers);
  const texts = args.flatMap((arg) => isValue(arg) ? isList(arg) ? [...arg.value] : [arg] : []).filter(
    isText,
  );
  const between = texts.reduce((sum, text) => sum + text.value.length, 0);
  if (name === "tojson") {
    const { values, characters, depth } = budget.walk(operand);
    // Escapes take six characters for one.
    budget.charge(units(6 * characters + values * (depth * width + between + 16)));
  } else if (name === "join") {
    const { values, characters } = budget.walk(operand);
    const parts = isText(operand) ? operand.value.length : values;
    budget.charge(parts);
    budget.checkLength(characters + parts * between);
  } else if (isText(operand)) {
    if (name === "replace") payMethod(name, operand, args, budget);
    budget.charge(2 * units(operand.value.length));
    if (name === "indent") {
      const lines = operand.value.split("\n").length;
      budget.charge(4 * lines);
      budget.checkLength(operand.value.length + lines * Math.max(4, width));
    }
  } else if (name === "sort" || name === "dictsort" || name === "unique") {
    paySort(operand, budget);
  } else if (isList(operand) && (name === "selectattr" || name === "rejectattr")) {
    const attribute = (args[0] as { readonly value?: unknown } | undefined)?.value;
    for (const item of operand.value) {
      budget.charge(4);
      const value = isMapping(item) ? item.value.get(String(attribute)) : undefined;
      if (value !== undefined) budget.read(value);
    }
  } else if (!["length", "first", "last", "list", "default", "safe"].includes(name)) {
    budget.charge(4 * sizeOf(operand) * units(between));
  }
}

/** Parts of a value: items, entries or characters. */
export function sizeOf(value: unknown): number {
  if (!isValue(value)) return 0;
  return isMapping(value) ? value.value.size : isList(value) || isText(value) ? value.value.length : 0;
}

function isValue(value: unknown): value is Value {
  return typeof value === "object" && value !== null && "type" in value && "value" in value;
}
