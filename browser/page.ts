// browser/page.ts: the same library in a browser: choose a model, write a prompt, watch the tokens come.
// The page's parameters choose for you: ?model=tiny-gpt2&weights=int8&new=32&run=1 runs at once; with &report=1 the
// page sends what it measured to the server, for tests.
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { loadCompiled } from '../lib/compile/load.js';
import type { CompiledModel } from '../lib/compile.js';
import { type Generation, generate } from '../lib/generate.js';
import { closeTarget, type TargetName } from '../lib/jit/jit.js';
import type { Model } from '../lib/model.js';
import type { SchemeName } from '../lib/quantize.js';

const parameters = new URL(location.href).searchParams;

function element<Kind extends HTMLElement>(id: string): Kind {
  const found = document.getElementById(id);
  if (!found) throw new Error(`page: expected an element with the id ${id}`);
  return found as Kind;
}

const form = element<HTMLFormElement>('request');
const modelChoice = element<HTMLSelectElement>('model');
const weightsChoice = element<HTMLSelectElement>('weights');
const prompt = element<HTMLTextAreaElement>('prompt');
const newTokens = element<HTMLInputElement>('new');
const runButton = element<HTMLButtonElement>('run');
const stopButton = element<HTMLButtonElement>('stop');
const progress = element<HTMLProgressElement>('progress');
const status = element('status');
const answer = element('answer');
const facts = element<HTMLTableSectionElement>('facts');

/** The model that is loaded and compiled now. */
interface Loaded {
  readonly key: string;
  readonly model: Model;
  readonly compiled: CompiledModel;
  readonly loadMs: number;
}
let loaded: Loaded | undefined;
let stop = new AbortController();

const target = (parameters.get('target') ?? 'webgpu') as TargetName;

async function load(): Promise<Loaded> {
  const key = `${modelChoice.value} ${weightsChoice.value}`;
  if (loaded?.key === key) return loaded;
  await unload();
  const started = performance.now();
  status.textContent = 'Loading the weights';
  progress.hidden = false;
  const { model, compiled } = await loadCompiled(`/models/${modelChoice.value}`, {
    target,
    scheme: { name: weightsChoice.value as SchemeName },
    signal: stop.signal,
    onProgress: (done, total) => {
      progress.value = done / total;
    },
  });
  progress.hidden = true;
  loaded = { key, model, compiled, loadMs: performance.now() - started };
  return loaded;
}

async function unload(): Promise<void> {
  await loaded?.compiled.dispose();
  loaded?.model.dispose();
  loaded = undefined;
}

/** The prompt's tokens: as a conversation, where the model was trained on those. */
function promptIds({ tokenizer }: Model): number[] {
  if (!tokenizer) throw new Error('this model has no tokenizer.json beside its weights');
  if (!tokenizer.hasChatTemplate) return tokenizer.encode(prompt.value);
  const chat = tokenizer.renderChat([{ role: 'user', content: prompt.value }]);
  return tokenizer.encode(chat, { addSpecialTokens: false });
}

async function run(): Promise<void> {
  answer.textContent = '';
  const { model, compiled, loadMs } = await load();
  const ids = promptIds(model);
  status.textContent = 'Generating';
  const options = { maxNewTokens: Number(newTokens.value), signal: stop.signal };
  const tokens = generate(compiled, ids, options);
  let next = await tokens.next();
  while (!next.done) {
    answer.append(next.value.text);
    next = await tokens.next();
  }
  status.textContent = next.value.finish === 'aborted' ? 'Stopped' : 'Done';
  await show(model, compiled, next.value, loadMs);
}

async function show(
  model: Model,
  compiled: CompiledModel,
  generation: Generation,
  loadMs: number,
): Promise<void> {
  const { newIds, firstTokenMs, perTokenMs } = generation;
  const msPerToken = perTokenMs.reduce((sum, ms) => sum + ms, 0) / Math.max(1, perTokenMs.length);
  const { compileMs, kernels } = compiled.report();
  const measured = {
    model: model.name,
    weights: model.weights,
    target,
    adapter: await adapterName(),
    promptIds: generation.promptIds,
    newIds,
    text: generation.text,
    weightBytes: model.weightBytes,
    kernels,
    loadMs,
    compileMs,
    firstTokenMs,
    tokensPerSecond: 1000 / msPerToken,
  };
  const rows: [string, string][] = [
    ['GPU', measured.adapter],
    ['weights', `${(model.weightBytes / 1e6).toFixed(1)} MB, ${model.weights}`],
    ['loaded in', `${(loadMs / 1000).toFixed(1)} s`],
    ['compiled in', `${compileMs.toFixed(0)} ms, ${kernels} kernels a token`],
    ['first token', `${firstTokenMs.toFixed(0)} ms for ${generation.promptIds.length} tokens of prompt`],
    ['speed', `${measured.tokensPerSecond.toFixed(1)} tokens/s, ${msPerToken.toFixed(1)} ms a token`],
  ];
  facts.replaceChildren(...rows.map(([name, value]) => row(name, value)));
  await report(measured);
}

function row(name: string, value: string): HTMLTableRowElement {
  const line = document.createElement('tr');
  const [head, cell] = [document.createElement('th'), document.createElement('td')];
  head.textContent = name;
  cell.textContent = value;
  line.append(head, cell);
  return line;
}

async function adapterName(): Promise<string> {
  const { gpuName } = await import('../lib/gpu.js');
  const adapter = await navigator.gpu?.requestAdapter();
  return adapter ? gpuName(adapter.info) : 'none';
}

async function report(measured: object): Promise<void> {
  if (parameters.has('report')) await fetch('/report', { method: 'POST', body: JSON.stringify(measured) });
}

async function start(): Promise<void> {
  stop = new AbortController();
  runButton.disabled = true;
  stopButton.disabled = false;
  try {
    await run();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    status.textContent = stop.signal.aborted ? 'Stopped' : message;
    progress.hidden = true;
    await report({ error: message });
  } finally {
    runButton.disabled = false;
    stopButton.disabled = true;
  }
}

async function open(): Promise<void> {
  await tf.setBackend('cpu'); // holds the prompt's few ids; the target does the work
  const names = (await (await fetch('/models/?names')).json()) as string[];
  modelChoice.replaceChildren(...names.map((name) => new Option(name)));
  for (const [name, field] of [
    ['model', modelChoice],
    ['weights', weightsChoice],
    ['prompt', prompt],
    ['new', newTokens],
  ] as const) {
    const value = parameters.get(name);
    if (value !== null) field.value = value;
  }
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void start();
  });
  stopButton.addEventListener('click', () => stop.abort());
  addEventListener('pagehide', () => void unload().then(() => closeTarget(target)));
  runButton.disabled = false;
  if (parameters.has('run')) await start();
}

void open();
