// Refreshes what the repository shows of a run of the course: npm run publish
// Runs all notebooks -> the executed notebooks in notebooks/, their records in results/reference/course, and the
// figures in README.md. Quiet machine, please: every figure that it writes is measured here and now.
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readEvaluation } from 'response-time/cluster/figures';
import { runCourse } from 'response-time/notebook/course';
import { projectRoot, referenceResultsFolder, resultsFolder } from 'response-time/paths';
import { readRuns } from 'response-time/results';

const root = projectRoot();
const latest = resultsFolder();
const published = join(referenceResultsFolder(), 'course');

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

/** As Map.groupBy, which Node 20 lacks. */
function groupBy(values, keyOf) {
  const groups = new Map();
  for (const value of values) groups.set(keyOf(value), [...(groups.get(keyOf(value)) ?? []), value]);
  return groups;
}

async function writeReadme() {
  const file = join(root, 'README.md');
  const text = await readFile(file, 'utf8');
  const block = /(<!-- figures:[^>]*-->\n)[\s\S]*(<!-- \/figures -->)/;
  if (!block.test(text))
    throw new Error(`${file}: expected the marks <!-- figures: ... --> and <!-- /figures -->`);
  await writeFile(file, text.replace(block, `$1\n${await figures()}\n\n$2`));
}

if (!process.argv.includes('--readme-only')) {
  await rm(latest, { recursive: true, force: true });
  await runCourse();
  await replaceFiles(join(latest, 'notebooks'), join(root, 'notebooks'), /^\d\d_.*\.ipynb$/);
  await replaceFiles(latest, published, /\.run\.json$|^\d\d_.*\.json$/);
}
await writeReadme();
