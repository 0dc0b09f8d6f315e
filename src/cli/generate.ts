/**
 * `attune generate`: text after a prompt, as it comes.
 *
 * @module
 */
import { Command, InvalidArgumentError } from "npm:commander@14.0.3";
import type { AttnImplementation } from "../config.ts";
import { InvalidArgument } from "../errors.ts";
import type { DraftCounts } from "../generation/output.ts";
import { applyImplementation } from "../models/plans.ts";
import type { PreTrainedModel } from "../models/pretrained.ts";
import { TextStreamer } from "../text/streamer.ts";
import type { Io } from "./io.ts";
import { implementation, type Loaded, loadModel, loadSecond, type ModelOptions, withModel } from "./model.ts";
import { promptOf } from "./prompt.ts";
import { Recording, statsLine } from "./recording.ts";
import { samplingOf, withSampling } from "./sampling.ts";

/** Options of the command, besides those of {@linkcode withSampling}. */
interface GenerateFlags extends ModelOptions {
  readonly swapAt?: readonly Swap[];
  readonly assistant?: string;
  readonly echo?: true;
  readonly stats?: true;
  readonly json?: true;
  readonly [flag: string]: unknown;
}

/** Another implementation after so many new tokens. */
interface Swap {
  readonly after: number;
  readonly to: AttnImplementation;
}

/** The command. */
export function generateCommand(io: Io): Command {
  const command = withModel(new Command("generate"))
    .description("Continue a text, written as it comes.")
    .argument("[prompt]", "the text to continue; without it, or as -, it is read from stdin");
  return withSampling(command, "several")
    .option("--swap-at <n=name>", "after n new tokens, compute attention with <name> (repeatable)", swap)
    .option("--assistant <model>", "a smaller model with the same vocabulary, which guesses tokens ahead")
    .option("--echo", "write the prompt before its continuation")
    .option("--stats", "say how fast it was, on stderr")
    .option("--json", "print one JSON document instead of text")
    .addHelpText(
      "after",
      "\nExamples:\n" +
        '  deno task attune generate tests/models/demo "In the beginning" --max-new-tokens 12\n' +
        '  deno task attune generate tests/models/demo "And God said" --attn eager --swap-at 4=flash_attention_2 --stats\n' +
        '  deno task attune generate tests/models/demo "And" --sample --temperature 0.8 --seed 7 --max-new-tokens 8 --json',
    )
    .action((model: string, prompt: string | undefined, options: GenerateFlags) =>
      run(io, model, prompt, options)
    );
}

async function run(io: Io, name: string, given: string | undefined, options: GenerateFlags): Promise<void> {
  const prompt = await promptOf(io, given);
  await using loaded = await loadModel(io, name, options);
  const { model, tokenizer } = loaded;
  const { swapAt = [] } = options;
  await using second = options.assistant === undefined
    ? null
    : disposing(await loadSecond(io, options.assistant, options));
  // On a copy, so that a name nobody knows is refused before anything is written.
  for (const { to } of swapAt) applyImplementation(model.config.clone(), to);
  const sampling = samplingOf(options);
  const { input_ids, attention_mask } = tokenizer(prompt);
  using ids = input_ids;
  using mask = attention_mask;
  const prompt_tokens = ids.shape[1]!;
  const count = (name: "num_beams" | "num_return_sequences") =>
    Number(sampling[name] ?? model.generation_config[name] ?? 1);
  const beams = count("num_beams") > 1;
  if (beams && swapAt.length > 0) {
    throw new InvalidArgument("Cannot swap after some tokens with num_beams: they are decided at the end");
  }
  // Several rows cannot be written as they come.
  const streams = options.json !== true && !beams && count("num_return_sequences") === 1;
  const text = streams ? new TextStreamer(tokenizer, { write: io.write }) : null;
  const recording = new Recording(model, text, async (step) => {
    for (const { after, to } of swapAt) {
      if (after === step) await model.set_attn_implementation(to);
    }
  });
  if (streams && options.echo === true) io.write(prompt);
  let rows: number[][] | null = null;
  let drafts: DraftCounts | null = null;
  try {
    using output = await model.generate({
      input_ids: ids,
      attention_mask: mask,
      ...sampling,
      ...(second === null ? {} : { assistant_model: second.model }),
      tokenizer,
      return_dict_in_generate: true,
      ...(beams ? {} : { streamer: recording }),
      signal: io.signal,
    });
    rows = (await output.sequences.tolist() as number[][]).map((row) => row.slice(prompt_tokens));
    drafts = output.drafts ?? null;
  } finally {
    // What an interrupt left is as much a result as what came to its end.
    if (rows !== null || io.signal.aborted) {
      report(io, options, loaded, { name, prompt, prompt_tokens, recording, streams, rows, drafts });
    }
  }
  const written = recording.steps.length;
  for (const { after, to } of swapAt) {
    if (after < written) continue;
    io.note(
      `Nothing was computed with ${
        shown(to)
      }: --swap-at ${after}, and the text ended after ${written} tokens`,
    );
  }
}

/** What a generation gave, for {@linkcode report}. */
interface Outcome {
  readonly name: string;
  readonly prompt: string;
  readonly prompt_tokens: number;
  readonly recording: Recording;
  /** Whether the text was written as it came. */
  readonly streams: boolean;
  /** New tokens of each sequence; null where an interrupt came first. */
  readonly rows: readonly number[][] | null;
  /** What became of guesses; null where nobody guessed, or an interrupt came first. */
  readonly drafts: DraftCounts | null;
}

function report(io: Io, options: GenerateFlags, { model, tokenizer }: Loaded, outcome: Outcome): void {
  const { recording, rows, streams, prompt, prompt_tokens, drafts } = outcome;
  const tokens = rows ??
    (recording.steps[0] ?? []).map((_, row) => recording.steps.map((step) => step[row]!));
  const sequences = tokens.map((token_ids) => ({
    text: tokenizer.decode(token_ids, { skip_special_tokens: true }),
    token_ids,
  }));
  const stats = recording.stats(prompt_tokens, { new_tokens: tokens[0]?.length ?? 0 });
  if (options.json === true) {
    const { text = "", token_ids = [] } = sequences[0] ?? {};
    io.print(JSON.stringify(
      {
        model: outcome.name,
        device: model.device,
        prompt,
        prompt_tokens,
        text,
        token_ids,
        implementations: recording.implementations,
        times_ms: recording.times,
        ...(sequences.length > 1 ? { sequences } : {}),
        interrupted: rows === null,
        ...(drafts === null ? {} : { drafts }),
        stats,
      },
      null,
      2,
    ));
  } else if (streams) io.write("\n");
  else {
    const before = options.echo === true ? prompt : "";
    sequences.forEach(({ text }, i) => io.print(`${i > 0 ? "---\n" : ""}${before}${text}`));
  }
  if (options.stats !== true) return;
  io.note(statsLine(stats));
  io.note(`${recording.legs} on ${model.device}, ${(model.num_parameters / 1e6).toFixed(1)} M parameters`);
  if (drafts !== null) {
    io.note(`${drafts.accepted} of ${drafts.proposed} guessed tokens accepted, ${drafts.forwards} forwards`);
  }
}

/** A model that is given back at the end of a block. */
function disposing(model: PreTrainedModel): { readonly model: PreTrainedModel } & AsyncDisposable {
  return { model, [Symbol.asyncDispose]: () => model.dispose() };
}

/** An implementation as it is written in an option. */
function shown(to: AttnImplementation): string {
  const name = (part: string, of: AttnImplementation) => part === "" ? `${of}` : `${part}=${of}`;
  return typeof to === "object" && to !== null
    ? Object.entries(to).map(([part, of]) => name(part, of)).join(", ")
    : `${to}`;
}

function swap(text: string, before: readonly Swap[] = []): readonly Swap[] {
  const [, n = "", name = ""] = /^(\d+)=(.+)$/s.exec(text) ?? [];
  const after = Number(n);
  if (!Number.isSafeInteger(after) || after < 1) {
    throw new InvalidArgumentError("expected <tokens>=<name>, as in 16=flash_attention_2");
  }
  return [...before, { after, to: implementation(name) }];
}
