// bench/webgpuRun.ts: what the GPU's benches do with a measured Run: a line of its figures, a file of its label.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkRun, type Run } from 'response-time/results';

/** Tokens a second after the first one, of all texts together: medians of whole generations. */
export function decodeSpeed({ samples, batch }: Pick<Run, 'samples' | 'batch'>): number {
  const speeds = samples.latencyMs.map((latency, i) => {
    return (1000 * (samples.newTokens[i]! - batch)) / (latency - samples.firstTokenMs[i]!);
  });
  return speeds.sort((a, b) => a - b)[speeds.length >> 1]!;
}

export function describeRun(run: Run): string {
  const { label, summary, memory } = run;
  const bytes = memory.gpuBytes === undefined ? '' : `, ${(memory.gpuBytes / 1e9).toFixed(2)} GB`;
  return `${label}: ${decodeSpeed(run).toFixed(1)} tok/s in decode, first token ${summary.firstTokenMs.p50.toFixed(2)} ms${bytes}`;
}

/** Writes FOLDER/LABEL.run.json. @param commit for the record, where git is not there */
export function keepRun(run: Run, folder: string, commit: string | undefined): Run {
  const file = join(folder, `${run.label.replaceAll(/[^\w.-]+/g, '-')}.run.json`);
  const kept = checkRun(commit === undefined ? run : { ...run, commit }, file);
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, `${JSON.stringify(kept, null, 1)}\n`);
  return kept;
}
