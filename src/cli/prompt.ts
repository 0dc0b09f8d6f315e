/**
 * The text a command works on.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { type Io, readAll } from "./io.ts";

/**
 * The prompt that was given; without one, or where it is `-`, what stdin holds.
 *
 * @throws {InvalidArgument} for one without text
 */
export async function promptOf(io: Io, given: string | undefined): Promise<string> {
  const prompt = given === undefined || given === "-" ? await readAll(io) : given;
  if (prompt === "") throw new InvalidArgument("Cannot use an empty prompt: expected some text");
  return prompt;
}
