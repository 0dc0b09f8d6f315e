/**
 * Assisted decoding: tokens are guessed ahead and checked together in one forward. What is generated is distributed as
 * without guesses; only how many forwards it takes depends on them.
 *
 * Method: speculative decoding (Leviathan et al. 2023, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318). A token x
 * that was drawn with probability q(x) is accepted with probability min(1, p(x) / q(x)), else one is drawn from what p
 * has above q. Greedy decoding accepts what it would have chosen.
 *
 * @module
 */
import { argmax } from "../ops/reduce.ts";
import { reshape, slice } from "../ops/shape.ts";
import { randomGenerator } from "../random.ts";
import { tidy } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import type { Decoding, Request, Strategy } from "./decoding.ts";
import { type Draft, type Drafter, type MakeDrafter, Rewinding, type Weights } from "./drafts.ts";
import type { ForwardOutput } from "../models/inputs.ts";
import { checkChosen } from "./sample.ts";
import { argmaxOf, draw, weightsOf } from "./sampling.ts";

/** The strategy that checks the drafts of a drafter. It decodes one row. */
export function assisted(make: MakeDrafter, request: Request): Strategy {
  return async (decoding) => {
    using drafter = make(request, decoding.processors);
    // The numbers that plain sampling would use.
    const random = randomGenerator(decoding.settings.seed, 0);
    using rewinding = new Rewinding(decoding.cache);
    const drafts = { proposed: 0, accepted: 0, forwards: 0 };
    try {
      for (let done = false; !done;) {
        // The prompt is computed by itself: it must not be taken back with a draft.
        const first = drafts.forwards++ === 0;
        const draft = first ? { tokens: [], drawn: [] } : await draftOf(decoding, drafter);
        if (draft.tokens.length > 0) rewinding.mark();
        const before = decoding.rows[0]!.length;
        done = await advance(decoding, draft, random);
        const kept = decoding.rows[0]!;
        drafts.proposed += draft.tokens.length;
        drafts.accepted += draft.tokens.filter((token, i) => kept[before + i] === token).length;
        rewinding.keep(decoding.rows[0]!.length - 1);
      }
      await complete(decoding);
      return { rows: decoding.rows, drafts };
    } finally {
      rewinding.keep(decoding.rows[0]!.length - 1);
    }
  };
}

async function draftOf(decoding: Decoding, drafter: Drafter): Promise<Draft> {
  const row = decoding.rows[0]!;
  // The forward gives one token more than the draft has.
  const most = Math.min(drafter.most, decoding.settings.max_length - row.length - 1);
  return most > 0 ? await drafter.propose(row, most) : { tokens: [], drawn: [] };
}

/** Computes a draft and appends what is accepted of it and one token more. Returns whether the row has ended. */
async function advance(decoding: Decoding, draft: Draft, random: () => number): Promise<boolean> {
  const count = draft.tokens.length + 1;
  const output = await decoding.forward({ ahead: [draft.tokens], keep: count });
  const { logits, ...rest } = output;
  using all = logits;
  const collected: Tensor[] = Object.values(rest).flatMap((value) => Array.isArray(value) ? value : []);
  try {
    const checker = await Checker.of(decoding, all);
    for (let i = 0;; i++) {
      const { token, accepted } = checker.check(i, draft, random);
      record(decoding, output, checker, i, count);
      if (await decoding.advance([token])) return true;
      if (!accepted) return false;
    }
  } finally {
    for (const t of collected) t[Symbol.dispose]();
  }
}

/** Decides about the tokens of one draft. */
class Checker {
  private constructor(
    readonly decoding: Decoding,
    readonly width: number,
    /** The most probable token at every place, or null where scores are needed. */
    readonly best: readonly number[] | null,
    /** Scores (count, V), processed up to the place that is checked. */
    readonly scores: Float32Array,
  ) {}

  /** For logits (1, count, V). */
  static async of(decoding: Decoding, logits: Tensor): Promise<Checker> {
    const width = logits.shape[2]!;
    if (!decoding.settings.do_sample && decoding.processors.length === 0) {
      using best = argmax(logits);
      const tokens = Array.from(await best.data(), Number);
      await checkChosen(logits, tokens, decoding.rows[0]!.length === decoding.prompt_length);
      return new Checker(decoding, width, tokens, new Float32Array());
    }
    return new Checker(decoding, width, null, new Float32Array(await logits.data() as Float32Array));
  }

  /** The token at place `i`, and whether it is the draft's: only then the next place has a meaning. */
  check(i: number, draft: Draft, random: () => number): { token: number; accepted: boolean } {
    const guess = draft.tokens[i];
    const take = (token: number) => ({ token, accepted: token === guess });
    if (this.best !== null) return take(this.best[i]!);
    const scores = this.at(i);
    this.decoding.process(scores, 0);
    if (!this.decoding.settings.do_sample) return take(argmaxOf(scores));
    const target = weightsOf(scores);
    if (guess === undefined) return { token: draw(target.weights, target.total, random), accepted: false };
    const drawn = draft.drawn[i] ?? certain(guess, this.width);
    const [p, q] = [target.weights[guess]! / target.total, drawn.weights[guess]! / drawn.total];
    if (random() * q < p) return { token: guess, accepted: true };
    const rest = above(target, drawn);
    return { token: draw(rest.weights, rest.total, random), accepted: false };
  }

  /** Scores (V) at place `i`. */
  at(i: number): Float32Array {
    return this.scores.subarray(i * this.width, (i + 1) * this.width);
  }
}

/** What p has above q, not normalised. Where rounding leaves nothing, p. */
function above(p: Weights, q: Weights): Weights {
  const weights = p.weights.map((w, i) => Math.max(0, w / p.total - q.weights[i]! / q.total));
  const total = weights.reduce((sum, w) => sum + w, 0);
  return total > 0 ? { weights, total } : p;
}

function certain(token: number, width: number): Weights {
  const weights = new Float64Array(width);
  weights[token] = 1;
  return { weights, total: 1 };
}

/** Collects what is returned of place `i` of `count`, as a step that computed this place alone would give it. */
function record(decoding: Decoding, output: ForwardOutput, checker: Checker, i: number, count: number): void {
  const { recorder, cache } = decoding;
  const later = count - 1 - i;
  // The first step comes with the prompt.
  const first = decoding.rows[0]!.length === decoding.prompt_length;
  const rows = (t: Tensor, dim: number) => {
    const end = t.shape[dim]! - later;
    return slice(t, dim, first ? 0 : end - 1, end);
  };
  const attention = (t: Tensor) => {
    const own = rows(t, 2);
    return cache.is_compileable ? own : slice(own, 3, 0, t.shape[3]! - later);
  };
  const { attentions, hidden_states } = output;
  const made = tidy(() => {
    const logits = reshape(slice(output.logits!, 1, i, i + 1), [1, checker.width]);
    return {
      logits,
      ...(attentions === undefined ? {} : { attentions: attentions.map(attention) }),
      ...(hidden_states === undefined ? {} : { hidden_states: hidden_states.map((t) => rows(t, 1)) }),
    };
  });
  using logits = made.logits;
  recorder.add(logits, made);
  if (!recorder.wants("output_scores")) return;
  recorder.addScores(
    checker.best === null
      ? Tensor.from(checker.at(i), { shape: [1, checker.width] })
      : logits.view(logits.shape, logits.strides),
  );
}

/** Computes what a cache that was taken back lacks, so that it holds every token but the last. */
async function complete(decoding: Decoding): Promise<void> {
  const row = decoding.rows[0]!;
  if (decoding.cache.get_seq_length() >= row.length - 1) return;
  const last = row.pop()!;
  try {
    const { logits, attentions = [], hidden_states = [] } = await decoding.forward();
    for (const t of [logits, ...attentions, ...hidden_states]) t[Symbol.dispose]();
  } finally {
    row.push(last);
  }
}
