// bench/contender.ts: starts a contender's process and talks to it, as protocol.ts says.
// command -> Contender, or the reason why it is missing: a peer that is not here never fails the bench.

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { type Facts, MARK, messageOf, type Timing, type Work } from './protocol.js';

export interface Command {
  readonly program: string;
  readonly parameters: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

export class Contender {
  facts: Facts = { name: '' };
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #answers: AsyncIterator<string>;
  #lastWords = '';

  private constructor({ program, parameters, environment }: Command) {
    this.#process = spawn(program, [...parameters], { env: { ...process.env, ...environment } });
    this.#process.on('error', (error) => {
      this.#lastWords = error.message;
    });
    this.#process.stdin.on('error', () => {}); // it ended: the next answer says so
    this.#process.stderr.on('data', (text) => {
      this.#lastWords = `${this.#lastWords}${text}`.slice(-4000);
    });
    this.#answers = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  /** Starts one and waits until it is loaded. @returns why it is missing, if it cannot run here */
  static async start(command: Command): Promise<Contender | { readonly missing: string }> {
    const contender = new Contender(command);
    try {
      const { facts } = (await contender.#next()) as { facts: Facts };
      contender.facts = facts;
      return contender;
    } catch (error) {
      await contender.stop();
      return { missing: messageOf(error) };
    }
  }

  /** @throws Error with what it said of the failure */
  async run(work: Work): Promise<Timing> {
    this.#process.stdin.write(`${JSON.stringify(work)}\n`);
    const { timing } = (await this.#next()) as { timing: Timing };
    return timing;
  }

  async #next(): Promise<object> {
    for (;;) {
      const { value, done } = await this.#answers.next();
      if (done) throw new Error(lastLine(this.#lastWords) || 'it ended without a word');
      if (!value.startsWith(MARK)) continue;
      const answer = JSON.parse(value.slice(MARK.length)) as { error?: string };
      if (answer.error !== undefined) throw new Error(answer.error);
      return answer;
    }
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.pid === undefined) return;
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.stdin.end();
    const timer = setTimeout(() => this.#process.kill('SIGKILL'), 5000);
    await ended;
    clearTimeout(timer);
  }
}

/** The line that names the error: Node prints its version last, Python the error. */
function lastLine(text: string): string {
  const lines = text.split('\n').map((line) => line.trim());
  return (
    lines.findLast((line) => /error|missing|expected|not found/i.test(line)) ?? lines.findLast(Boolean) ?? ''
  );
}
