// lib/cli/quantize.ts: `response-time quantize`: a checkpoint -> a smaller one in a new folder, and what that cost.

import { copyFile, readdir, rename, rm, rmdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { makeFolder } from '../folders.js';
import { type LayerReport, quantizeCheckpoint, reportBytes, type Scheme, schemeNames } from '../quantize.js';
import { alignColumns, decimal } from '../results/compare.js';
import { machineFacts, projectCommit } from '../results/machine.js';
import { resolveModel } from './models.js';
import { bytesOf, startProgress } from './progress.js';
import { print, type Terminal } from './terminal.js';
import { formatBytes } from './units.js';

interface QuantizeArguments {
  readonly scheme: Scheme['name'];
  readonly group: '32' | '64' | '128';
  readonly keep: readonly string[];
  readonly layers?: true;
  readonly json?: true;
}

const HELP = `
Schemes (all symmetric, weights only; norms, biases and position embeddings are kept)
  int8          one scale per output channel                    about 1/4 of float32, 1/2 of float16
  int8-tensor   one scale per tensor, as the original project   the same size, larger errors
  int8-group    one scale per group of inputs                   a little larger, smaller errors
  int4          one scale per group of inputs                   about 1/8 of float32, 1/4 of float16
Tensors are read, quantized and written one at a time: a model larger than memory will do. FOLDER appears when it is
complete, with config.json and the tokenizer's files beside the weights; use it as MODEL anywhere.

Examples
  $ response-time quantize tiny-gpt2 /tmp/tiny-int8 --scheme int8
  $ response-time quantize gpt2 /tmp/gpt2-int4 --scheme int4 --group 32 --layers
  $ response-time quantize gpt2 /tmp/gpt2-mixed --scheme int8 --keep "h.*.attn.*"      attention stays as it is
`;

/** Adds the command to the program. */
export function addQuantize(program: Command, terminal: Terminal): void {
  program
    .command('quantize')
    .summary('write a smaller checkpoint')
    .description('Quantizes a checkpoint into a new folder and reports sizes and errors.')
    .argument('<model>', 'folder, embedded model or preset')
    .argument('<folder>', 'new folder')
    .addOption(
      new Option('--scheme <name>', 'how weights are rounded')
        .choices(schemeNames.filter((name) => name !== 'stored'))
        .makeOptionMandatory(),
    )
    .addOption(
      new Option('--group <size>', 'inputs that share a scale, in int8-group and int4')
        .choices(['32', '64', '128'])
        .default('64'),
    )
    .option('--keep <pattern...>', "parameters that stay as stored, * for any characters: 'h.*.attn.*'", [])
    .option('--layers', 'report each tensor, not only the sums')
    .option('--json', 'print the report as one JSON object')
    .addHelpText('after', HELP)
    .action((model: string, folder: string, options: QuantizeArguments) =>
      runQuantize(terminal, model, folder, options),
    );
}

async function runQuantize(
  terminal: Terminal,
  name: string,
  target: string,
  options: QuantizeArguments,
): Promise<void> {
  const source = resolveModel(name);
  const folder = resolve(target);
  const scheme: Scheme = {
    name: options.scheme,
    groupSize: Number(options.group) as 32 | 64 | 128,
    keep: options.keep,
  };
  const began = performance.now();
  const report = await appearWhole(folder, async (partial) => {
    const layers = await quantizeInto(terminal, source, partial, scheme);
    await copyCompanions(source, partial);
    return layers;
  });
  const seconds = (performance.now() - began) / 1000;
  const peakRssBytes = process.resourceUsage().maxRSS * 1024;
  const sizes = reportBytes(report);
  if (options.json) {
    const made = { createdAt: new Date().toISOString(), commit: projectCommit(), machine: machineFacts() };
    print(
      terminal,
      JSON.stringify({
        ...made,
        model: name,
        folder: target,
        scheme,
        seconds,
        peakRssBytes,
        ...sizes,
        layers: report,
      }),
    );
    return;
  }
  if (options.layers) print(terminal, `${layerTable(report)}\n`);
  print(
    terminal,
    `${folder}: ${sizeLine(sizes)}${worstLine(report)}; ${seconds.toFixed(1)} s, at most ` +
      `${formatBytes(peakRssBytes)} of memory`,
  );
}

/** Fills a folder under another name and renames it: whoever sees it sees all of it. */
async function appearWhole<Result>(
  folder: string,
  fill: (partial: string) => Promise<Result>,
): Promise<Result> {
  const held = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  if (held.length > 0) throw new Error(`${folder}: expected a new or empty folder, found ${held[0]} in it`);
  const partial = `${folder}.${process.pid}.tmp`;
  try {
    await makeFolder(partial);
    const result = await fill(partial);
    await rmdir(folder).catch(() => {}); // an empty one; rename replaces it on POSIX alone
    await rename(partial, folder);
    return result;
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}

async function quantizeInto(
  terminal: Terminal,
  source: string,
  folder: string,
  scheme: Scheme,
): Promise<LayerReport[]> {
  const { openCheckpoint } = await import('../checkpoint.js');
  const { readArchitecture } = await import('../model.js');
  const { weightMap } = await readArchitecture(source);
  const checkpoint = await openCheckpoint(source);
  const progress = startProgress(terminal, 'Quantizing', bytesOf);
  try {
    return await quantizeCheckpoint(checkpoint, weightMap, folder, scheme, {
      signal: terminal.signal,
      onProgress: progress.update,
    });
  } finally {
    progress.stop();
    await checkpoint.close();
  }
}

/** What belongs to a model beside its weights; index files would point to weights that are not there. */
const COMPANIONS = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
] as const;

async function copyCompanions(source: string, folder: string): Promise<void> {
  for (const name of COMPANIONS) {
    await copyFile(join(source, name), join(folder, name)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
    });
  }
}

function sizeLine({ bytes, f32Bytes, f16Bytes }: ReturnType<typeof reportBytes>): string {
  const times = (other: number) => `${(other / bytes).toFixed(2)}x smaller than`;
  return (
    `${formatBytes(bytes)}, ${times(f32Bytes)} float32 (${formatBytes(f32Bytes)}), ` +
    `${times(f16Bytes)} float16 (${formatBytes(f16Bytes)})`
  );
}

function worstLine(report: readonly LayerReport[]): string {
  const rounded = report.filter(({ kind }) => kind !== 'float');
  if (rounded.length === 0) return '; nothing was rounded';
  const worst = rounded.reduce((a, b) => (a.snrDb < b.snrDb ? a : b));
  return `; most noise in ${worst.path}: ${worst.snrDb.toFixed(1)} dB`;
}

function layerTable(report: readonly LayerReport[]): string {
  return alignColumns([
    ['parameter', 'kind', 'kB', 'largest error', 'mean error', 'SNR dB'],
    ...report.map(({ path, kind, bytes, maxError, meanError, snrDb }) => [
      path,
      kind,
      decimal(bytes / 1000),
      maxError.toExponential(2),
      meanError.toExponential(2),
      Number.isFinite(snrDb) ? snrDb.toFixed(1) : '-',
    ]),
  ]);
}
