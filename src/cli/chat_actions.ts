/**
 * What lines of a chat do that begin with /.
 *
 * @module
 */
import type { DeviceName } from "../devices/device.ts";
import { InvalidArgument } from "../errors.ts";
import type { GenerationSession } from "../generation/session.ts";
import type { PreTrainedModel } from "../models/pretrained.ts";
import type { Conversation } from "./conversation.ts";
import { table } from "./io.ts";
import { implementation } from "./model.ts";
import { implementationOf, type Stats, statsLine } from "./recording.ts";
import { setting } from "./sampling.ts";

/** What the lines work on. */
export interface ChatState {
  readonly model: PreTrainedModel;
  readonly conversation: Conversation;
  /** What keeps the cache from turn to turn. */
  readonly session: GenerationSession;
  /** Options of `generate`. */
  readonly sampling: Map<string, unknown>;
  /** Speeds of the last answer. */
  readonly last: Stats | null;
  /** Whether an answer is being written. */
  readonly answering: boolean;
  /** Says something beside the answers: `text` to people, or `fields` as JSON. */
  say(type: string, text: string, fields?: Record<string, unknown>): void;
  /** Ends the chat. */
  leave(): void;
}

interface Action {
  /** What follows the name: required in <>, optional in []. */
  readonly takes?: string;
  readonly says: string;
  /** Whether it is done at once while an answer is written; else after it. */
  readonly live?: true;
  readonly run: (chat: ChatState, rest: string) => void | Promise<void>;
}

const ACTIONS: Readonly<Record<string, Action>> = {
  swap: {
    takes: "<name>",
    says: "compute attention with <name> from the next token on; <part>=<name> for a part",
    live: true,
    run: async (chat, rest) => {
      const from = implementationOf(chat.model);
      await chat.model.set_attn_implementation(implementation(rest));
      const to = implementationOf(chat.model);
      const when = chat.answering ? "token" : "answer";
      chat.say("swap", `attention: ${from} → ${to}, from the next ${when} on`, { from, to, from_next: when });
    },
  },
  device: {
    takes: "<name>",
    says: "compute on wasm or webgpu from the next token on",
    live: true,
    run: async (chat, rest) => {
      const { device } = await chat.model.to(rest as DeviceName);
      chat.say("device", `now on ${device}`, { device });
    },
  },
  attn: {
    says: "which implementation every layer uses, and why",
    live: true,
    run: (chat) => {
      const layers = chat.model.attention_report();
      const rows = layers.map((row) => [row.layer, row.implementation, row.device, row.why]);
      chat.say("attn", table(["layer", "implementation", "device", "why"], rows), { layers });
    },
  },
  stats: {
    says: "speeds and memory",
    live: true,
    run: (chat) => {
      const turns = chat.conversation.messages.length;
      const speeds = chat.last === null ? "no answer so far" : statsLine(chat.last);
      chat.say("stats", `${speeds} · ${turns} turns`, { stats: chat.last, turns });
    },
  },
  help: {
    says: "this list",
    live: true,
    run: (chat) => {
      const rows = Object.entries(ACTIONS).map(([name, { takes, says }]) =>
        [usage(name, takes), says] as const
      );
      chat.say("help", table(["line", "what it does"], rows), { commands: Object.fromEntries(rows) });
    },
  },
  set: {
    takes: "[name=value]",
    says: "set an option of generate, as temperature=0.7; nothing after = takes it back",
    run: (chat, rest) => {
      if (rest !== "") {
        const [option, value] = setting(rest);
        if (value === undefined) chat.sampling.delete(option);
        else chat.sampling.set(option, value);
      }
      const all = [...chat.sampling].map(([name, value]) => `${name}=${JSON.stringify(value)}`);
      chat.say("set", all.join(" "), { options: Object.fromEntries(chat.sampling) });
    },
  },
  system: {
    takes: "[text]",
    says: "what the conversation begins with; without a text, nothing",
    run: (chat, rest) => {
      chat.conversation.setSystem(rest);
      chat.say("system", rest === "" ? "no system text" : "system text set", {
        system: rest === "" ? null : rest,
      });
    },
  },
  reset: {
    says: "forget all turns",
    run: (chat) => {
      chat.conversation.reset();
      chat.session.reset();
      chat.say("reset", "all turns are forgotten", {});
    },
  },
  undo: {
    says: "take the last question and its answer back",
    run: (chat) => {
      if (!chat.conversation.undo()) throw new InvalidArgument("Cannot undo: there is nothing to take back");
      const turns = chat.conversation.messages.length;
      chat.say("undo", `taken back, ${turns} turns are left`, { turns });
    },
  },
  save: {
    takes: "<file>",
    says: "write the conversation as JSON",
    run: async (chat, file) => {
      await chat.conversation.save(file);
      const turns = chat.conversation.messages.length;
      chat.say("save", `${turns} turns written to ${file}`, { file, turns });
    },
  },
  load: {
    takes: "<file>",
    says: "go on with a conversation that was saved",
    run: async (chat, file) => {
      await chat.conversation.load(file);
      const turns = chat.conversation.messages.length;
      chat.say("load", `${turns} turns read from ${file}`, { file, turns });
    },
  },
  exit: { says: "leave, as does Ctrl-D", run: (chat) => chat.leave() },
};

/**
 * What a line that begins with / asks for.
 *
 * @throws {InvalidArgument} for an unknown name, or where something is missing or too much after it
 */
export function actionOf(line: string): { live: boolean; run(chat: ChatState): void | Promise<void> } {
  const [, name = "", after = ""] = /^\/(\S*)(.*)$/s.exec(line) ?? [];
  const rest = after.trim();
  if (!Object.hasOwn(ACTIONS, name)) {
    const known = Object.keys(ACTIONS).map((key) => `/${key}`).join(", ");
    throw new InvalidArgument(
      `Cannot do /${name}: expected one of ${known}; a text that begins with / is written with //`,
    );
  }
  const { takes = "", live = false, run } = ACTIONS[name]!;
  if (rest === "" ? takes.startsWith("<") : takes === "") {
    throw new InvalidArgument(`Cannot do ${line.trim()}: expected ${usage(name, takes)}`);
  }
  return { live, run: (chat) => run(chat, rest) };
}

function usage(name: string, takes = ""): string {
  return `/${name} ${takes}`.trim();
}
