/**
 * Reading chat templates: what is too long to be one is refused before the engine's parser sees it.
 *
 * @module
 */
import { parse, tokenize } from "npm:@huggingface/jinja@0.5.11";
import { AttuneError, ModelFileError } from "../errors.ts";

/** A node of the engine's syntax tree; which fields it has depends on its type. */
export interface Node {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** Longest template; the longest published ones have a third of it. */
const MAX_TEMPLATE = 2 ** 17;
/** Longest run of white space: the engine reads a run of n in n² steps. */
const MAX_SPACES = 500;

/** A checked template. */
export interface Template {
  readonly program: ReturnType<typeof parse>;
  /** Nodes whose value is written to the output. */
  readonly printed: ReadonlySet<unknown>;
  /** Nodes below a macro or call block, which the engine walks whenever it meets one. */
  readonly sizes: ReadonlyMap<unknown, number>;
}

/**
 * Parses a template.
 *
 * @throws {ModelFileError} when it is too long or not a template
 */
export function parseTemplate(source: string): Template {
  if (source.length > MAX_TEMPLATE) {
    throw new ModelFileError(
      `Cannot read the chat template: expected at most ${MAX_TEMPLATE} characters, it has ${source.length}`,
    );
  }
  if (new RegExp(`\\s{${MAX_SPACES}}`).test(source)) {
    throw new ModelFileError(
      `Cannot read the chat template: it has ${MAX_SPACES} characters of white space in a row`,
    );
  }
  try {
    const program = parse(tokenize(source, { trim_blocks: true, lstrip_blocks: true }));
    const printed = new Set<unknown>(), sizes = new Map<unknown, number>();
    survey(program, printed, sizes);
    return { program, printed, sizes };
  } catch (error) {
    throw explain(error, "Cannot read the chat template");
  }
}

/** Statements that print nothing. */
const SILENT = new Set(["Set", "Macro", "Comment", "Break", "Continue"]);
/** Fields that hold blocks of statements. */
const BLOCKS = ["body", "alternate", "defaultBlock"];

/** Notes what is printed and how large blocks are; returns the number of nodes. */
function survey(node: unknown, printed: Set<unknown>, sizes: Map<unknown, number>): number {
  if (typeof node !== "object" || node === null) return 0;
  if (node instanceof Map) return survey([...node], printed, sizes);
  if (Array.isArray(node)) return node.reduce<number>((sum, part) => sum + survey(part, printed, sizes), 0);
  for (const field of BLOCKS) {
    const block: unknown = Reflect.get(node, field);
    for (const statement of Array.isArray(block) ? block as Node[] : []) {
      if (!SILENT.has(statement.type)) printed.add(statement);
    }
  }
  const size = 1 + survey(Object.values(node), printed, sizes);
  sizes.set(node, size);
  return size;
}

/** What the engine throws, as an error of the template. */
export function explain(error: unknown, what: string): Error {
  if (error instanceof AttuneError) return error;
  const why = error instanceof RangeError
    ? "it nests too deeply or makes too long a text"
    : error instanceof Error && error.message !== ""
    ? error.message.slice(0, 300)
    : "a loop is left where there is none";
  return new ModelFileError(`${what}: ${why}`, { cause: error });
}
