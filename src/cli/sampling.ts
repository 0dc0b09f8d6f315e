/**
 * The options of `model.generate` as flags.
 *
 * @module
 */
import type { Command } from "npm:commander@14.0.3";
import { InvalidArgumentError } from "npm:commander@14.0.3";
import { number } from "./model.ts";

/** One option of `model.generate`. Ranges are checked by `generate` itself, which knows them. */
interface Flag {
  readonly option: string;
  /** What follows the flag; none for a switch. */
  readonly value?: string;
  readonly says: string;
  readonly parse?: (text: string, before: unknown) => unknown;
  /** Whether it is about several sequences, of which a conversation can have one. */
  readonly several?: true;
}

const integer = number({ integer: true });

const FLAGS: readonly Flag[] = [
  { option: "max_new_tokens", value: "<n>", says: "tokens to add at most", parse: integer },
  { option: "min_new_tokens", value: "<n>", says: "tokens to add at least", parse: integer },
  { option: "do_sample", says: "sample, where the model's own configuration does not say so" },
  { option: "temperature", value: "<x>", says: "divides the logits", parse: number() },
  { option: "top_k", value: "<n>", says: "sample among the n most probable, 0 is all", parse: integer },
  { option: "top_p", value: "<x>", says: "sample among those that reach probability x", parse: number() },
  {
    option: "min_p",
    value: "<x>",
    says: "sample among those with x of the best one's probability",
    parse: number(),
  },
  { option: "repetition_penalty", value: "<x>", says: "above 1 makes repetition rarer", parse: number() },
  { option: "seed", value: "<n>", says: "makes sampling repeatable", parse: integer },
  {
    option: "stop_strings",
    value: "<text>",
    says: "end after this text (repeatable)",
    parse: (text, before) => [...(before as string[] | undefined ?? []), text],
  },
  {
    option: "prompt_lookup_num_tokens",
    value: "<n>",
    says: "guess n tokens from the text itself and check them together",
    parse: integer,
  },
  {
    option: "num_assistant_tokens",
    value: "<n>",
    says: "tokens that --assistant guesses ahead",
    parse: integer,
    several: true,
  },
  { option: "num_beams", value: "<n>", says: "search with n beams", parse: integer, several: true },
  {
    option: "length_penalty",
    value: "<x>",
    says: "above 0, beams prefer long texts",
    parse: number(),
    several: true,
  },
  {
    option: "num_return_sequences",
    value: "<n>",
    says: "continuations to return",
    parse: integer,
    several: true,
  },
];

/** Flags with a name of their own. */
const NAMES: Readonly<Record<string, string>> = {
  do_sample: "sample",
  stop_strings: "stop",
  prompt_lookup_num_tokens: "prompt-lookup",
};

const flagOf = (option: string): string => (NAMES[option] ?? option).replaceAll("_", "-");
const keyOf = (option: string): string => flagOf(option).replace(/-(\w)/g, (_, c: string) => c.toUpperCase());

/** The flags of a command that writes one text, or several. */
const flagsFor = (texts: "one" | "several") =>
  texts === "several" ? FLAGS : FLAGS.filter(({ several = false }) => !several);

/** Adds the flags to a command. */
export function withSampling(command: Command, texts: "one" | "several"): Command {
  for (const { option, value, says, parse } of flagsFor(texts)) {
    const flag = `--${flagOf(option)}${value === undefined ? "" : ` ${value}`}`;
    if (parse === undefined) command.option(flag, says).option(flag.replace("--", "--no-"), `do not ${says}`);
    else command.option(flag, says, parse);
  }
  return command;
}

/** The options of `generate` that were given as flags. */
export function samplingOf(options: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    FLAGS.map(({ option }) => [option, options[keyOf(option)]]).filter(([, value]) => value !== undefined),
  );
}

/**
 * `name=value` of one text, for people who set options one by one; `name=` takes one back.
 *
 * @throws {InvalidArgumentError} for an unknown name or a value that is no number
 */
export function setting(text: string): [option: string, value: unknown] {
  const [, name = "", value = ""] = /^([\w-]+)\s*=\s*(.*)$/s.exec(text.trim()) ?? [];
  const flags = flagsFor("one");
  const flag = flags.find(({ option }) => option === name || flagOf(option) === name);
  if (flag === undefined) {
    throw new InvalidArgumentError(
      `expected <name>=<value> with one of ${flags.map(({ option }) => option).join(", ")}`,
    );
  }
  if (value === "") return [flag.option, undefined];
  if (flag.parse !== undefined) return [flag.option, flag.parse(value, undefined)];
  if (value !== "true" && value !== "false") {
    throw new InvalidArgumentError(`expected ${name}=true or ${name}=false`);
  }
  return [flag.option, value === "true"];
}
