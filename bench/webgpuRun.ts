// bench/webgpuRun.ts: what the GPU's benches do with a measured Run: a line of its figures, a file of its label.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { checkRun, type Run } from 'response-time/results';
import { decodeTokensPerSecond } from 'response-time/results/compare';

export function describeRun(run: Run): string {
  const { label, summary, memory } = run;
  const bytes = memory.gpuBytes === undefined ? '' : `, ${(memory.gpuBytes / 1e9).toFixed(2)} GB`;
  return `${label}: ${decodeTokensPerSecond(run).toFixed(1)} tok/s in decode, first token ${summary.firstTokenMs.p50.toFixed(2)} ms${bytes}`;
}

/** Writes FOLDER/LABEL.run.json. @param commit for the record, where git is not there */
export function keepRun(run: Run, folder: string, commit: string | undefined): Run {
  const file = join(folder, `${run.label.replaceAll(/[^\w.-]+/g, '-')}.run.json`);
  const kept = checkRun({ ...withTfjs(run), ...(commit === undefined ? {} : { commit }) }, file);
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, `${JSON.stringify(kept, null, 1)}\n`);
  return kept;
}

/** A bundle has no folder of tfjs whose version could be read. */
function withTfjs(run: Run): Run {
  if (run.runtime.name !== 'node') return run;
  const packages = { '@tensorflow/tfjs-core': tf.version_core, ...run.runtime.packages };
  return { ...run, runtime: { ...run.runtime, packages } };
}
