// lib/cli/progress.ts: how far a long step is: a bar on a terminal, plain lines where stderr is a file. Steps that
// are done at once stay silent.

import { SingleBar } from 'cli-progress';
import { onTuning } from '../jit/tuneProgress.js';
import { note, type Terminal } from './terminal.js';
import { formatBytes } from './units.js';

export interface Progress {
  /** @param done, total in the step's unit; a total of 0 means unknown */
  update(done: number, total: number): void;
  /** Ends the step. Always call it, in `finally`. */
  stop(): void;
}

/** A bar that flashes up and goes only disturbs. */
const BAR_AFTER_MS = 400;
const LINE_AFTER_MS = 2_000;

/**
 * Begins a step that may take long.
 * @param label what is done: 'Loading gpt2'
 * @param describe the figures behind the bar; by default 'done of total'
 */
export function startProgress(
  terminal: Terminal,
  label: string,
  describe: (done: number, total: number) => string = (done, total) => `${done} of ${total}`,
): Progress {
  return terminal.errors.isTTY ? barProgress(terminal, label, describe) : lineProgress(terminal, label);
}

/** Shows how far a GPU's kernels are timed, which happens when something is first compiled for it. */
export function showTuning(terminal: Terminal): void {
  let progress: Progress | undefined;
  onTuning((done, total) => {
    progress ??= startProgress(
      terminal,
      'Timing kernels on this GPU, once',
      (at) => `${at} of ${total} products`,
    );
    progress.update(done, total);
    if (done < total) return;
    progress.stop();
    progress = undefined;
  });
}

function barProgress(
  terminal: Terminal,
  label: string,
  describe: (done: number, total: number) => string,
): Progress {
  const begun = performance.now();
  let bar: SingleBar | null = null;
  return {
    update(done, total) {
      if (!bar && performance.now() - begun < BAR_AFTER_MS) return;
      if (!bar) {
        bar = new SingleBar({
          format: `${label} [{bar}] {percentage}% | {figures} | {eta_formatted} left`,
          stream: terminal.errors,
          barsize: 24,
          clearOnComplete: true,
          gracefulExit: false, // Ctrl-C is the command's
        });
        bar.start(total, done, { figures: describe(done, total) });
      }
      bar.setTotal(total);
      bar.update(done, { figures: describe(done, total) });
    },
    stop: () => bar?.stop(),
  };
}

function lineProgress(terminal: Terminal, label: string): Progress {
  const begun = performance.now();
  let saidAtMs = 0;
  return {
    update(done, total) {
      const elapsedMs = performance.now() - begun;
      // The pauses double: a run of hours leaves a dozen lines.
      if (elapsedMs < Math.max(LINE_AFTER_MS, 2 * saidAtMs)) return;
      saidAtMs = elapsedMs;
      note(terminal, total > 0 ? `${label}: ${Math.floor((100 * done) / total)} %` : `${label} ...`);
    },
    stop() {
      if (saidAtMs === 0) return;
      note(terminal, `${label}: ${((performance.now() - begun) / 1000).toFixed(1)} s`);
    },
  };
}

/** Figures behind the bar of a step that is measured in bytes. */
export function bytesOf(done: number, total: number): string {
  return `${formatBytes(done)} of ${formatBytes(total)}`;
}
