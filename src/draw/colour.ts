/**
 * The colours of numbers.
 *
 * @module
 */

/** Red, green and blue, 0 to 255. */
export type Colour = readonly [red: number, green: number, blue: number];

/** Coefficients of red, green and blue, from the constant to the sixth power. */
const VIRIDIS: readonly (readonly [number, number, number])[] = [
  [0.2777273272234177, 0.005407344544966578, 0.3340998053353061],
  [0.1050930431085774, 1.404613529898575, 1.384590162594685],
  [-0.3308618287255563, 0.214847559468213, 0.09509516302823659],
  [-4.634230498983486, -5.799100973351585, -19.33244095627987],
  [6.228269936347081, 14.17993336680509, 56.69055260068105],
  [4.776384997670288, -13.74514537774601, -65.35303263337234],
  [-5.435455855934631, 4.645852612178535, 26.3124352495832],
];

/**
 * The perceptually uniform scale viridis (Smith and van der Walt 2015), dark for 0 and bright for 1.
 *
 * Source: the polynomial fit by Matt Zucker, in the public domain (shadertoy.com/view/WlfXRN).
 */
export function viridis(t: number): Colour {
  const x = Math.min(1, Math.max(0, t));
  const channel = (i: 0 | 1 | 2) => {
    const value = VIRIDIS.reduceRight((sum, powers) => sum * x + powers[i], 0);
    return Math.round(255 * Math.min(1, Math.max(0, value)));
  };
  return [channel(0), channel(1), channel(2)];
}

/** What stands for a value that is no number: no colour of the scale is near it. */
export const NOT_A_NUMBER: Colour = [255, 0, 200];

/** From numbers to the colours between which they lie. */
export interface Scale {
  /** The number with the last colour. */
  readonly most: number;
  /** Whether a step of colour is a difference, or a factor: then the first colour is `most / 10⁴` and all below. */
  readonly kind: "linear" | "log";
}

/** Powers of ten of a logarithmic scale. */
const DECADES = 4;

/** The number with the first colour. */
export function leastOf({ most, kind }: Scale): number {
  return kind === "log" ? most / 10 ** DECADES : 0;
}

/** Where a value lies on a scale, 0 to 1. */
export function partOf(value: number, { most, kind }: Scale): number {
  if (!(most > 0)) return 0;
  const part = kind === "linear" ? value / most : 1 + Math.log10(Math.max(0, value) / most) / DECADES;
  return Math.min(1, Math.max(0, part));
}

/** The colour of a value on a scale. */
export function colourOf(value: number, scale: Scale): Colour {
  return Number.isNaN(value) ? NOT_A_NUMBER : viridis(partOf(value, scale));
}

/** `#rrggbb`. */
export function hex(colour: Colour): string {
  return `#${colour.map((x) => x.toString(16).padStart(2, "0")).join("")}`;
}

/** The nearest of the 216 colours of a terminal with 256. */
export function ansi256([r, g, b]: Colour): number {
  // The steps of the cube: 0, 95, 135, 175, 215, 255.
  const step = (x: number) => x < 48 ? 0 : x < 115 ? 1 : Math.floor((x - 35) / 40);
  return 16 + 36 * step(r) + 6 * step(g) + step(b);
}
