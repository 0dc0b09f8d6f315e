/**
 * `attune chat`: a conversation line by line, in which attention can be swapped while an answer is written.
 *
 * @module
 */
import { Command } from "npm:commander@14.0.3";
import { InvalidArgument } from "../errors.ts";
import { GenerationSession } from "../generation/session.ts";
import { releasingAfter } from "../release.ts";
import { Tensor } from "../tensor.ts";
import { TextStreamer } from "../text/streamer.ts";
import { actionOf, type ChatState } from "./chat_actions.ts";
import { Conversation } from "./conversation.ts";
import { dim, Finished, Interrupted, type Io, isExpected } from "./io.ts";
import { type Loaded, loadModel, type ModelOptions, withModel } from "./model.ts";
import { Recording, type Stats, statsLine } from "./recording.ts";
import { samplingOf, withSampling } from "./sampling.ts";

/** Options of the command, besides those of {@linkcode withSampling}. */
interface ChatFlags extends ModelOptions {
  readonly plain?: true;
  readonly system?: string;
  readonly json?: true;
  readonly [flag: string]: unknown;
}

/** Longest answer where nothing says otherwise. */
const MAX_NEW_TOKENS = 256;

/** The command. */
export function chatCommand(io: Io): Command {
  const command = withModel(new Command("chat"))
    .description("Talk with a model, line by line; /help lists what else a line can say.");
  return withSampling(command, "one")
    .option("--system <text>", "what the conversation begins with")
    .option("--plain", "join turns as plain text, without the model's chat template")
    .option("--json", "print one JSON object a line instead of text")
    .addHelpText(
      "after",
      "\nLines that begin with / are commands. On a terminal they also work while an answer is written, and\n" +
        "Ctrl-C stops an answer. Lines that are piped in are taken one after the other;\n" +
        "the exit code is 1 where one of them failed.\n" +
        "\nExamples:\n" +
        '  printf "In the beginning\\n/swap eager\\nAnd God said\\n" | deno task attune chat tests/models/demo --max-new-tokens 8\n' +
        '  echo "And" | deno task attune chat tests/models/demo --plain --sample --seed 7 --max-new-tokens 8 --json',
    )
    .action(async (model: string, options: ChatFlags) => {
      await using loaded = await loadModel(io, model, options);
      await releasingAfter(new Chat(io, loaded, options), (chat) => chat.run());
    });
}

/** What an answer was. */
interface Turn {
  readonly token_ids: number[];
  readonly implementations: readonly string[];
  /** The implementations in the order of their use. */
  readonly legs: string;
  readonly stats: Stats;
}

class Chat implements ChatState, Disposable {
  readonly model: Loaded["model"];
  readonly conversation: Conversation;
  readonly session: GenerationSession;
  readonly sampling: Map<string, unknown>;
  last: Stats | null = null;
  readonly #io: Io;
  readonly #loaded: Loaded;
  readonly #json: boolean;
  /** Lines that came while an answer was written. */
  readonly #waiting: string[] = [];
  readonly #lines: AsyncIterator<string, undefined>;
  #next: Promise<IteratorResult<string, undefined>> | null = null;
  #answer: AbortController | null = null;
  readonly #left = Promise.withResolvers<null>();
  #isLeft = false;
  #interrupted = false;
  #failed = false;

  constructor(io: Io, loaded: Loaded, options: ChatFlags) {
    this.model = loaded.model;
    this.session = new GenerationSession(loaded.model);
    this.conversation = new Conversation(loaded.tokenizer, options.plain === true);
    this.sampling = new Map(Object.entries({ max_new_tokens: MAX_NEW_TOKENS, ...samplingOf(options) }));
    this.#io = io;
    this.#loaded = loaded;
    this.#json = options.json === true;
    this.#lines = io.lines();
    if (options.system !== undefined) this.conversation.setSystem(options.system);
    if (!this.conversation.templated && options.plain !== true) {
      this.say("notice", "The model has no chat template: turns are joined as plain text.");
    }
  }

  /** Gives the session's cache back. */
  [Symbol.dispose](): void {
    this.session[Symbol.dispose]();
  }

  get answering(): boolean {
    return this.#answer !== null;
  }

  say(type: string, text: string, fields: Record<string, unknown> = { message: text }): void {
    if (this.#json) this.#io.print(JSON.stringify({ type, ...fields }));
    else this.#io.note(dim(this.#io, this.answering ? `\n${text}` : text));
  }

  leave(): void {
    this.#isLeft = true;
    this.#left.resolve(null);
  }

  /** Until there are no more lines, /exit or Ctrl-C. A script of which a line failed has failed, after all its lines. */
  async run(): Promise<void> {
    using _ = this.#io.onInterrupt(() => this.#interrupt());
    while (!this.#isLeft) {
      const line = this.#waiting.shift() ?? await this.#line();
      if (line === null) break;
      await this.#take(line);
    }
    if (this.#interrupted) throw new Interrupted();
    if (this.#failed && !this.#io.terminal.stdin) throw new Finished(1);
  }

  /** Stops the answer; where there is none, or it is being stopped already, leaves. */
  #interrupt(): void {
    if (this.#answer !== null && !this.#answer.signal.aborted) return this.#answer.abort(new Interrupted());
    this.#interrupted = true;
    this.leave();
  }

  /** The next line, or null where there is none or the program is left. */
  async #line(): Promise<string | null> {
    const { stdin, stderr } = this.#io.terminal;
    if (stdin && stderr) this.#io.writeNote(dim(this.#io, "> "));
    const next = await Promise.race([this.#ahead(), this.#left.promise]);
    if (next !== null && next.done !== true) {
      this.#next = null;
      return next.value;
    }
    if (stdin && stderr) this.#io.note("");
    return null;
  }

  /** The next line, asked for once. */
  #ahead(): Promise<IteratorResult<string, undefined>> {
    return this.#next ??= this.#lines.next();
  }

  /** Does what a line says. What is wrong with the line is said, and the conversation goes on. */
  async #take(line: string): Promise<void> {
    try {
      if (line.trim() === "") return;
      if (line.startsWith("//")) await this.#reply(line.slice(1));
      else if (line.startsWith("/")) await actionOf(line).run(this);
      else await this.#reply(line);
    } catch (error) {
      if (!(error instanceof Error) || !isExpected(error) || error instanceof Deno.errors.BrokenPipe) {
        throw error;
      }
      this.#failed = true;
      this.say("error", error.message);
    }
  }

  /** Answers a line. Lines that come meanwhile are commands that are done at once, or wait. */
  async #reply(text: string): Promise<void> {
    this.conversation.add("user", text);
    const answer = this.#write().finally(() => this.#answer = null);
    // Only who reads along can mean the middle of an answer: a script would have another effect each time.
    const listening = this.#io.terminal.stdin ? this.#listen(answer) : null;
    await Promise.all([answer, listening]);
  }

  async #listen(answer: Promise<void>): Promise<void> {
    const done = answer.then(() => null, () => null);
    for (;;) {
      // Where no more can be read, whoever asks for the next line is told.
      const next = await Promise.race([done, this.#ahead().catch(() => null)]);
      if (next === null || next.done === true) return;
      this.#next = null;
      if (next.value.startsWith("/") && isLive(next.value)) await this.#take(next.value);
      else this.#waiting.push(next.value);
    }
  }

  async #write(): Promise<void> {
    const controller = this.#answer = new AbortController();
    let text = "";
    const streamer = new TextStreamer(this.#loaded.tokenizer, {
      write: (part) => {
        text += part;
        if (!this.#json) this.#io.write(part);
      },
    });
    let turn: Turn;
    try {
      turn = await this.#generate(streamer, controller.signal);
    } catch (error) {
      // A question without an answer would be part of every later prompt.
      this.conversation.undo();
      throw error;
    }
    const { token_ids, implementations, legs, stats } = turn;
    this.last = stats;
    this.conversation.add("assistant", text);
    const stopped = controller.signal.aborted;
    if (this.#json) {
      this.#io.print(JSON.stringify({ type: "answer", text, token_ids, implementations, stopped, stats }));
      return;
    }
    this.#io.write("\n");
    this.#io.note(dim(this.#io, `${stopped ? "(stopped) " : ""}${statsLine(stats)} · ${legs}`));
  }

  /** One turn: the tokens after those of the conversation, also where an abort ends them. */
  async #generate(streamer: TextStreamer, signal: AbortSignal): Promise<Turn> {
    const ids = this.conversation.tokens();
    if (ids.length === 0) throw new InvalidArgument("Cannot answer: the line has no tokens");
    using input_ids = Tensor.from([ids], { dtype: "int64" });
    const recording = new Recording(this.model, streamer);
    try {
      using _ = await this.session.generate({
        input_ids,
        ...Object.fromEntries(this.sampling),
        // Whatever the model's own configuration says, an answer is one text.
        num_beams: 1,
        num_return_sequences: 1,
        tokenizer: this.#loaded.tokenizer,
        streamer: recording,
        signal,
      });
    } catch (error) {
      if (!signal.aborted || error !== signal.reason) throw error;
    }
    const { reused, restarted } = this.session;
    if (restarted !== null) this.say("notice", `All turns were read again: ${restarted}`);
    return {
      token_ids: recording.steps.map((step) => step[0]!),
      implementations: recording.implementations,
      legs: recording.legs,
      stats: recording.stats(ids.length, { reused }),
    };
  }
}

/** Whether a line is a command that is done at once while an answer is written. */
function isLive(line: string): boolean {
  try {
    return actionOf(line).live;
  } catch {
    return false;
  }
}
