// Refreshes what the repository shows of a run of the course: npm run publish
// Runs all notebooks -> the executed notebooks in notebooks/, their records in results/reference/course, and the
// figures in README.md. Quiet machine, please: every figure of these that it writes is measured here and now.
// `--readme-only` measures nothing: README.md and the pictures of the GPU's Runs anew from the records that are there.
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readEvaluation } from 'response-time/cluster/figures';
import { runCourse } from 'response-time/notebook/course';
import { toPng, toSvg } from 'response-time/notebook/render';
import { projectRoot, referenceResultsFolder, resultsFolder } from 'response-time/paths';
import { gpuFigures } from 'response-time/plot/gpu';
import { readRuns } from 'response-time/results';
import { decodeTokensPerSecond } from 'response-time/results/compare';

const root = projectRoot();
const latest = resultsFolder();
const published = join(referenceResultsFolder(), 'course');
const gpuFolder = join(referenceResultsFolder(), 'webgpu-h200');

/** Copies the files of a folder that fit a pattern into another, which holds no others of that kind before. */
async function replaceFiles(from, to, pattern) {
  await mkdir(to, { recursive: true });
  for (const name of await readdir(to)) if (pattern.test(name)) await rm(join(to, name));
  for (const name of await readdir(from))
    if (pattern.test(name)) await copyFile(join(from, name), join(to, name));
}

function table(header, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
}

const number = (value, digits = 3) => (value >= 100 ? value.toFixed(0) : value.toPrecision(digits));
const megabytes = (bytes) => `${number(bytes / 1e6)} MB`;

/** One table a group of Runs that were measured in turns, in one go. */
function sessionTable(runs) {
  const [{ model, machine, promptTokens, newTokens, samples }] = runs;
  const weights = model.randomWeights ? 'random weights: speed and memory only' : 'trained weights, embedded';
  const title =
    `**${model.name}** (${number(model.parameters / 1e6)} million parameters, ${weights}), up to ${promptTokens} prompt ` +
    `and ${newTokens} new tokens, ${samples.latencyMs.length === 1 ? 'one sample' : `${samples.latencyMs.length} samples in turns`}, on ${machine.cpu}, ${machine.cores} cores:`;
  const rows = runs.map(({ label, backend, target, weights: scheme, summary, memory, quality }) => [
    label,
    target === 'eager' ? `tfjs ${backend}, op by op` : target,
    scheme,
    number(summary.tokensPerSecond),
    number(summary.firstTokenMs.p50),
    number(summary.latencyMs.p50),
    number(summary.latencyMs.p95),
    megabytes(memory.weightBytes),
    quality?.rougeL?.toFixed(3) ?? '',
  ]);
  const header = [
    'configuration',
    'runs on',
    'weights',
    'tokens/s',
    'first token ms',
    'p50 ms',
    'p95 ms',
    'bytes of weights',
    'ROUGE-L',
  ];
  return `${title}\n\n${table(header, rows)}`;
}

/** The large evaluation of scripts/alpaca.sh: what quantizing changes in a real model, and how fast each is. */
function evaluationTable({ model, samples, newTokens, answerTokens, reference, texts, runs }) {
  const whole = runs.filter(({ samples: { latencyMs } }) => latencyMs.length === samples);
  const { cpu, cores } = whole[0].machine;
  const title =
    `**${model}** (a real model, trained weights), ${samples} samples of Alpaca, up to ${newTokens} new tokens, on ${cpu}, ` +
    `${cores} cores; perplexity and divergence of ${answerTokens === null ? 'all' : `the first ${answerTokens}`} tokens of ` +
    `the reference answers, against ${reference} ([all figures](results/reference/alpaca-smollm2.json)):`;
  const rows = texts.map(({ label, weightBytes, toAnswers, toReference, answers }) => {
    const { summary } = whole.find((run) => run.label === label);
    return [
      label,
      megabytes(weightBytes),
      number(summary.tokensPerSecond),
      number(summary.firstTokenMs.p50),
      ...[summary.latencyMs.p50, summary.latencyMs.p95, summary.latencyMs.p99].map((ms) => number(ms)),
      toAnswers.rougeL.toFixed(3),
      toReference.rougeL.toFixed(3),
      answers.perplexity.toFixed(3),
      label === reference ? '' : answers.klMean.toFixed(4),
      label === reference ? '' : `${(100 * answers.sameTopToken).toFixed(1)} %`,
    ];
  });
  const header = [
    ...['configuration', 'weights', 'tokens/s', 'first token ms', 'p50 ms', 'p95 ms', 'p99 ms'],
    ...['ROUGE-L to answers', 'to float32', 'perplexity', 'KL mean', 'same top token'],
  ];
  return `${title}\n\n${table(header, rows)}`;
}

/** README's figures: every session of the published Runs that compares something, and the large evaluation. */
async function figures() {
  const sessions = groupBy(await readRuns(published), ({ session, model }) => `${session} ${model.name}`);
  const evaluation = await readEvaluation(join(referenceResultsFolder(), 'alpaca-smollm2.json'));
  const course = [...sessions.values()].filter((runs) => runs.length > 2).map(sessionTable);
  return [...course, ...(evaluation ? [evaluationTable(evaluation)] : [])].join('\n\n');
}

/** One table of all Runs of the GPU, the longest model first; a time of a single token has no speed. */
function gpuTable(runs) {
  const all = (factOf) => [...new Set(runs.map(factOf).filter(Boolean))].join(', ');
  const versions = ['webgpu', '@tensorflow/tfjs-core', 'torch', 'transformers'].flatMap((name) => {
    const version = all(({ runtime }) => runtime.packages[name]);
    return version ? [`${name} ${version}`] : [];
  });
  const title =
    `**Random weights of the real shapes: speed and memory only.** On ${all(({ machine }) => machine.gpu)}; ` +
    `Node ${all(({ runtime }) => runtime.name === 'node' && runtime.version)}, ${versions.join(', ')}; ` +
    `commit ${all(({ commit }) => commit?.slice(0, 7))}, ${all(({ createdAt }) => createdAt.slice(0, 10))}. ` +
    `Medians of ${all(({ samples }) => String(samples.latencyMs.length))} after a warm-up, one process each, ` +
    `prompt + new tokens as stated ([records](results/reference/webgpu-h200)):`;
  const rows = [...runs]
    .sort(
      (a, b) =>
        b.model.parameters - a.model.parameters || a.promptTokens - b.promptTokens || a.batch - b.batch,
    )
    .map((run) => {
      const { label, promptTokens, newTokens, batch, summary, memory } = run;
      const isLong = newTokens > 2;
      return [
        label,
        `${promptTokens} + ${newTokens}${batch > 1 ? `, ${batch} texts` : ''}`,
        isLong ? number(decodeTokensPerSecond(run)) : '',
        number(summary.firstTokenMs.p50),
        isLong ? number((1000 * newTokens * batch) / summary.latencyMs.p50) : '',
        memory.gpuBytes ? `${number(memory.gpuBytes / 1e9)} GB` : '',
      ];
    });
  const header = [
    'configuration',
    'tokens',
    'tokens/s after the first',
    'first token ms',
    'whole request tokens/s',
  ];
  return `${title}\n\n${table([...header, 'GPU memory'], rows)}`;
}

/** Draws the GPU's figures beside its records. @returns speeds as pictures for README.md, the others as links */
async function gpuPictures(runs) {
  for (const name of await readdir(gpuFolder)) if (name.endsWith('.png')) await rm(join(gpuFolder, name));
  const figures = gpuFigures(runs);
  for (const [name, figure] of figures)
    await writeFile(join(gpuFolder, `${name}.png`), toPng(await toSvg(figure)));
  const link = (name) => `[${name.replaceAll('-', ' ')}](results/reference/webgpu-h200/${name}.png)`;
  const isSpeed = (name) => name.endsWith('-tokens-per-second');
  const pictures = [...figures.keys()].filter(isSpeed).map((name) => `!${link(name)}`);
  const others = [...figures.keys()].filter((name) => !isSpeed(name)).map(link);
  return [...pictures, ...(others.length > 0 ? [`More figures: ${others.join(', ')}.`] : [])];
}

/** Notebooks that were executed on the GPU and rendered beside its records. @returns their line in README.md, if any */
async function gpuNotebooks() {
  const names = (await readdir(gpuFolder)).filter((name) => /^\d\d_.*\.html$/.test(name)).sort();
  const links = names.map((name) => {
    const notebook = name.replace('.html', '');
    return `[${notebook}](results/reference/webgpu-h200/${name}) ([on a CPU](notebooks/${notebook}.ipynb))`;
  });
  return links.length > 0 ? [`Notebooks that ran there, compiled for the GPU: ${links.join(', ')}.`] : [];
}

/** The compiled target beside its peers on a CPU; null where `npm run bench` has left no record. */
async function peersTable() {
  const text = await readFile(join(referenceResultsFolder(), 'bench-cpu.json'), 'utf8').catch(() => null);
  if (text === null) return null;
  const { createdAt, commit, machine, settings, bars, figures: measured } = JSON.parse(text);
  const { promptTokens, newTokens } = settings.sizes;
  const bandwidth = Math.max(...measured.map(({ gigabytesPerSecond = 0 }) => gigabytesPerSecond));
  const title =
    `On ${machine.cpu}, ${machine.cores} cores, which read ${number(bandwidth)} GB/s; commit ${commit.slice(0, 7)}, ` +
    `${createdAt.slice(0, 10)}; ${promptTokens} prompt and ${newTokens} new tokens, medians of ${settings.rounds} rounds in ` +
    "turns; GPT-2's shape with random weights (speed only), or SmolLM2 where it is named. Times as fast as the other " +
    '(first tokens and the added cache: times as long), whole requests and each token after the first ([all figures](results/reference/bench-cpu.json)):';
  const amount = (value, unit) =>
    value === null ? '-' : unit === '%' ? `${value.toFixed(0)} %` : `${value.toFixed(2)} ${unit}`;
  const rows = bars.map(({ against, ours, unit, atLeast, atMost, value, perToken, verdict }) => [
    against,
    ours,
    amount(value, unit),
    perToken === null || perToken === undefined ? '' : amount(perToken, unit),
    atLeast === undefined ? `<= ${atMost} ${unit}` : `>= ${atLeast} ${unit}`,
    verdict,
  ]);
  return `${title}\n\n${table(['against', 'ours', 'measured', 'a token', 'bar', ''], rows)}`;
}

/** As Map.groupBy, which Node 20 lacks. */
function groupBy(values, keyOf) {
  const groups = new Map();
  for (const value of values) groups.set(keyOf(value), [...(groups.get(keyOf(value)) ?? []), value]);
  return groups;
}

/** @param name of a pair of marks in README.md, between which the text goes */
function between(readme, name, text) {
  const block = new RegExp(`(<!-- ${name}:[^>]*-->\\n)[\\s\\S]*(<!-- /${name} -->)`);
  if (!block.test(readme))
    throw new Error(`README.md: expected the marks <!-- ${name}: ... --> and <!-- /${name} -->`);
  return readme.replace(block, (_, begin, end) => `${begin}\n${text}\n\n${end}`);
}

async function writeReadme() {
  const file = join(root, 'README.md');
  const gpuRuns = await readRuns(gpuFolder);
  const withFigures = between(await readFile(file, 'utf8'), 'figures', await figures());
  const gpu = [gpuTable(gpuRuns), ...(await gpuPictures(gpuRuns)), ...(await gpuNotebooks())];
  const withGpu = between(withFigures, 'gpu', gpu.join('\n\n'));
  const peers = await peersTable();
  await writeFile(file, peers ? between(withGpu, 'peers', peers) : withGpu);
}

if (!process.argv.includes('--readme-only')) {
  await rm(latest, { recursive: true, force: true });
  await runCourse();
  await replaceFiles(join(latest, 'notebooks'), join(root, 'notebooks'), /^\d\d_.*\.ipynb$/);
  await replaceFiles(latest, published, /\.run\.json$|^\d\d_.*\.json$/);
}
await writeReadme();
