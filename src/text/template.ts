/**
 * Runs chat templates: `@huggingface/jinja` within a budget, and printing values as Python does.
 *
 * The engine evaluates every node of a template by one method. Here it is overridden: operands are evaluated
 * first, what the operation would cost is paid, and only then the engine does it. Known gaps of the engine,
 * by which the same template would give another text in Python, are closed on the way.
 *
 * @module
 */
import { Environment, Interpreter } from "npm:@huggingface/jinja@0.5.11";
import { InvalidArgument, ModelFileError } from "../errors.ts";
import { Budget, type Extent, isText, units, type Value } from "./template_budget.ts";
import { explain, type Node, type Template } from "./template_source.ts";
import { payFilter, payMethod, payOperator, sizeOf } from "./template_costs.ts";
import { equal, strftime, textOf } from "./template_values.ts";

type Statement = NonNullable<Parameters<Interpreter["evaluate"]>[0]>;
type EngineValue = ReturnType<Interpreter["evaluate"]>;

/**
 * Renders a template with `variables`, which must be plain JSON; `inputs` is their extent.
 *
 * @throws {ModelFileError} when it fails or costs too much
 * @throws {InvalidArgument} when it refuses the conversation itself, by `raise_exception`
 */
export function render(
  template: Template,
  variables: Readonly<Record<string, unknown>>,
  inputs: Pick<Extent, "values" | "characters">,
): string {
  const budget = new Budget(inputs);
  try {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...globals(budget), ...variables })) {
      environment.set(name, value);
    }
    const { value } = new Rendering(environment, template, budget).run(template.program);
    return String(value);
  } catch (error) {
    throw explain(error, "Cannot apply the chat template");
  }
}

/** What every template can call. */
function globals(budget: Budget): Record<string, unknown> {
  return {
    ...{ true: true, false: false, none: null, True: true, False: false, None: null },
    raise_exception(message: unknown) {
      throw new InvalidArgument(`Cannot apply the chat template: ${String(message).slice(0, 300)}`);
    },
    range(...args: unknown[]) {
      const [start, stop, step = 1] = args.length === 1 ? [0, args[0]] : args;
      if (![start, stop, step].every(Number.isSafeInteger) || step === 0 || args.length > 3) {
        throw new ModelFileError("Cannot apply the chat template: range takes one to three integers");
      }
      const [from, by] = [Number(start), Number(step)];
      const length = Math.max(0, Math.ceil((Number(stop) - from) / by));
      budget.charge(2 * length);
      return Array.from({ length }, (_, i) => from + i * by);
    },
    strftime_now(format: unknown) {
      const text = String(format);
      budget.charge(16 + units(16 * text.length));
      return strftime(new Date(), text);
    },
  };
}

/** A function taken from a value, e.g. `content.strip`: whose it is and what it is called. */
interface Method {
  readonly receiver: Value;
  readonly name: string;
}

class Rendering extends Interpreter {
  readonly #template: Template;
  readonly #budget: Budget;
  readonly #methods = new WeakMap<object, Method>();
  readonly #booleans: readonly [no: EngineValue, yes: EngineValue];

  constructor(environment: Environment, template: Template, budget: Budget) {
    super(environment);
    this.#booleans = [environment.lookupVariable("false"), environment.lookupVariable("true")];
    this.#template = template;
    this.#budget = budget;
  }

  override evaluate(statement: Statement | undefined, environment: Environment): EngineValue {
    if (statement === undefined) return super.evaluate(statement, environment);
    const node = statement as unknown as Node;
    if (node.type === "Value") return node["value"] as EngineValue;
    return this.#budget.deeper(() => {
      this.#budget.charge(2);
      const value = this.#evaluate(node, environment);
      if (isText(value)) this.#budget.checkLength(value.value.length);
      const prints = this.#template.printed.has(statement) && !isText(value);
      return prints ? this.#literal(textOf(value, this.#budget)) : value;
    });
  }

  #evaluate(node: Node, environment: Environment): EngineValue {
    const budget = this.#budget;
    const one = (field: string) => this.#operand(node[field], environment);
    const engine = (fields: Readonly<Record<string, unknown>> = {}) =>
      super.evaluate({ ...node, ...fields } as unknown as Statement, environment);
    switch (node.type) {
      case "Identifier":
        return this.#variable(String(node["value"]), environment);
      case "Break":
      case "Continue":
        // The engine throws an error for each.
        budget.charge(64);
        return engine();
      case "Macro":
        budget.charge(this.#template.sizes.get(node) ?? 0);
        return engine();
      case "For": {
        // A condition on the items is a select expression around the iterable.
        const select = node["iterable"] as Node;
        const filtered = select.type === "SelectExpression";
        const iterable = this.#operand(filtered ? select["lhs"] : select, environment);
        budget.charge(24 * sizeOf(iterable.value));
        return engine({ iterable: filtered ? { ...select, lhs: iterable } : iterable });
      }
      case "ObjectLiteral": {
        const entries = [...node["value"] as Map<unknown, unknown>].map(([key, value]) => {
          const name = this.#operand(key, environment);
          budget.charge(4);
          budget.read(name.value);
          return [name, this.#operand(value, environment)] as const;
        });
        return engine({ value: new Map(entries) });
      }
      case "MemberExpression":
        return this.#member(node, environment);
      case "BinaryExpression": {
        const operator = (node["operator"] as { readonly value: string }).value;
        if (operator === "and" || operator === "or") return engine();
        const left = one("left"), right = one("right");
        if (operator === "==" || operator === "!=") {
          const yes = equal(left.value, right.value, budget) === (operator === "==");
          return this.#booleans[yes ? 1 : 0];
        }
        if (operator === "~") {
          return this.#literal(textOf(left.value, budget) + textOf(right.value, budget));
        }
        payOperator(operator, left.value, right.value, budget);
        return engine({ left, right });
      }
      case "TestExpression": {
        const operand = one("operand");
        budget.read(operand.value);
        return engine({ operand });
      }
      case "FilterStatement":
        return this.#filter({ type: "Program", body: node["body"] }, node["filter"] as Node, environment);
      case "FilterExpression":
        return this.#filter(node["operand"], node["filter"] as Node, environment);
      case "CallExpression":
        return engine(this.#call(node, environment));
      case "CallStatement":
        budget.charge(this.#template.sizes.get(node) ?? 0);
        return engine({
          call: { ...node["call"] as Node, ...this.#call(node["call"] as Node, environment) },
        });
      default:
        return engine();
    }
  }

  /** Evaluates a node once and returns one that stands for its value. */
  #operand(node: unknown, environment: Environment): { readonly type: "Value"; readonly value: EngineValue } {
    return { type: "Value", value: this.evaluate(node as Statement | undefined, environment) };
  }

  #literal(value: string): EngineValue {
    this.#budget.checkLength(value.length);
    return super.evaluate({ type: "StringLiteral", value } as unknown as Statement, this.global);
  }

  /** The engine throws and catches an error for every name it does not find. */
  #variable(name: string, environment: Environment): EngineValue {
    for (let scope: Environment | undefined = environment; scope !== undefined; scope = scope.parent) {
      this.#budget.charge(1);
      const value = scope.variables.get(name);
      if (value !== undefined) return value;
    }
    return super.evaluate(undefined, environment);
  }

  #member(node: Node, environment: Environment): EngineValue {
    const object = this.#operand(node["object"], environment);
    const receiver: Value = object.value;
    const property = node["property"] as Node;
    if (receiver.type === "UndefinedValue") {
      throw new ModelFileError("Cannot apply the chat template: it reads a field of what is not defined");
    }
    this.#budget.read(receiver);
    // The engine makes a list of a text's characters to slice it, and a map of a value's methods to find one.
    if (property.type === "SliceExpression") this.#budget.charge(sizeOf(receiver));
    else this.#budget.charge(isText(receiver) ? 48 : 4);
    const key = node["computed"] === true && property.type !== "SliceExpression"
      ? this.#operand(property, environment)
      : property;
    if ("value" in key && key.type === "Value") this.#budget.read(key.value as Value);
    const value = super.evaluate({ ...node, object, property: key } as unknown as Statement, environment);
    if (value.type === "FunctionValue") {
      const name = key.type === "Value" ? (key.value as Value).value : key.value;
      this.#methods.set(value, { receiver, name: String(name) });
    }
    return value;
  }

  /** The fields of a call whose arguments and function are evaluated and paid for. */
  #call(node: Node, environment: Environment): { readonly args: readonly Node[]; readonly callee: Node } {
    const args = this.#arguments(node["args"] as readonly Node[], environment);
    const callee = this.#operand(node["callee"], environment);
    this.#budget.charge(16);
    const method = this.#methods.get(callee.value);
    if (method !== undefined) payMethod(method.name, method.receiver, args.map(valueOf), this.#budget);
    else for (const argument of args) this.#budget.charge(sizeOf(valueOf(argument)));
    return { args, callee: callee as unknown as Node };
  }

  /** Arguments by value, in the engine's order: positions before keywords. */
  #arguments(args: readonly Node[], environment: Environment): readonly Node[] {
    const done = new Map<Node, Node>();
    for (const keyword of [false, true]) {
      for (const node of args) {
        if (node.type.startsWith("Keyword") !== keyword) continue;
        const field = node.type === "KeywordArgumentExpression"
          ? "value"
          : node.type.endsWith("SpreadExpression")
          ? "argument"
          : null;
        const value = this.#operand(field === null ? node : node[field], environment);
        if (field === "argument") this.#budget.charge(4 * sizeOf(value.value));
        done.set(node, (field === null ? value : { ...node, [field]: value }) as unknown as Node);
      }
    }
    return args.map((node) => done.get(node)!);
  }

  #filter(operandNode: unknown, filter: Node, environment: Environment): EngineValue {
    const operand = this.#operand(operandNode, environment);
    const called = filter.type === "CallExpression";
    const name = String((called ? filter["callee"] as Node : filter)["value"]);
    if (name === "string") return this.#literal(textOf(operand.value, this.#budget));
    // The arguments of these two must stay literals.
    const literal = name === "selectattr" || name === "rejectattr";
    const given = called ? filter["args"] as readonly Node[] : [];
    const args = literal ? given : this.#arguments(given, environment);
    payFilter(name, operand.value, literal ? args : args.map(valueOf), this.#budget);
    const node = { type: "FilterExpression", operand, filter: called ? { ...filter, args } : filter };
    return super.evaluate(node as unknown as Statement, environment);
  }
}

/** The value of an argument node, its keyword or star aside. */
function valueOf(node: Node): unknown {
  const inner = node.type === "Value" ? node : (node["value"] ?? node["argument"]) as Node;
  return inner["value"];
}
