// lib/diagnose.ts: why do the outputs differ? Hidden states of a model under test against golden ones from PyTorch
// -> the first layer that differs, and its likely cause, found by trying each usual mistake on that layer alone.
import * as tf from '@tensorflow/tfjs-core';
import { allocate, type CacheStep, disposeCache, openStep } from './cache.js';
import { forwardInput } from './forward.js';
import { cacheSpecOf, hiddenStates, type ModelConfig, type Network } from './models/layers.js';
import {
  float32Values,
  floatWeight,
  mapWeights,
  type ParamTree,
  type Weight,
  weightEntries,
} from './tensor.js';

/** Hidden states by name, in order: 'hidden.0' (embedding) to 'hidden.N' (block N), 'final_norm', 'logits'. */
export type States = ReadonlyMap<string, Float32Array>;

export type Cause =
  | 'none'
  | 'embedding'
  | 'transpose'
  | 'missing bias'
  | 'mask'
  | 'norm epsilon'
  | 'forward code'
  | 'final norm'
  | 'head'
  | 'unknown';

export interface LayerDifference {
  readonly name: string;
  /** Largest difference, as a share of the largest golden magnitude. */
  readonly error: number;
  readonly agrees: boolean;
}

export interface Diagnosis {
  readonly layers: readonly LayerDifference[];
  /** The first state that differs; null if none does. */
  readonly first: string | null;
  readonly cause: Cause;
  /** The parameter at fault, where it is one. */
  readonly path: string | null;
  /** One sentence: what is wrong, and how it was found. */
  readonly verdict: string;
}

export interface DiagnoseOptions {
  /** The network as it should be, or with some of its configuration changed, to try a mistake. */
  readonly reference: (change?: Partial<ModelConfig>) => Network;
  /** The network under test, where it is not the reference. */
  readonly subject?: Network;
  readonly params: ParamTree;
  readonly tokens: readonly number[];
  readonly golden: States;
  /** Largest error that counts as agreement, as a share of the largest golden magnitude. */
  readonly tolerance?: number;
}

/**
 * Runs the model under test and finds where, and why, it leaves the golden states.
 * @throws RangeError if golden lacks a state or one has another size (names it)
 */
export function diagnose(options: DiagnoseOptions): Diagnosis {
  const { reference, subject = reference(), params, tokens, golden, tolerance = 1e-5 } = options;
  const states = observeStates(subject, params, tokens);
  const layers = [...states].map(([name, values]): LayerDifference => {
    const error = largestError(name, values, golden);
    return { name, error, agrees: error <= tolerance };
  });
  const first = layers.find(({ agrees }) => !agrees)?.name ?? null;
  const explain = (): Omit<Diagnosis, 'layers' | 'first'> => {
    if (first === null) return finding('none', null, `all ${layers.length} states agree within ${tolerance}`);
    if (first === 'hidden.0') return explainEmbedding(params);
    if (first === 'final_norm') return explainFinalNorm(options, golden, tolerance);
    if (first === 'logits')
      return finding(
        'head',
        null,
        'the hidden states agree, so the head is at fault: is it tied, and is it transposed to [dim, vocab]?',
      );
    return explainBlock(options, states, Number(first.slice('hidden.'.length)) - 1, tolerance);
  };
  return { layers, first, ...explain() };
}

/** The states of a network over one row of tokens. */
export function observeStates(network: Network, params: ParamTree, tokens: readonly number[]): States {
  const states = new Map<string, Float32Array>();
  tf.tidy(() => {
    const cache = allocate(cacheSpecOf(network.config, tokens.length), 1);
    const note = (name: string, tensor: tf.Tensor) =>
      states.set(name, tensor.dataSync().slice() as Float32Array);
    const { hidden } = hiddenStates(network, params, forwardInput([tokens], [0]), cache, note);
    note('logits', network.head(params, hidden));
  });
  return states;
}

function finding(cause: Cause, path: string | null, verdict: string): Omit<Diagnosis, 'layers' | 'first'> {
  return { cause, path, verdict };
}

function explainEmbedding(params: ParamTree): Omit<Diagnosis, 'layers' | 'first'> {
  const zero = [...weightEntries(params)].find(
    ([path, weight]) => path.endsWith('embedding') && isZero(weight),
  );
  return zero
    ? finding('embedding', zero[0], `${zero[0]} is all zeros: it was not read from the checkpoint`)
    : finding(
        'embedding',
        null,
        'the embedding itself differs: check the token ids, the positions (do they start at 0?) and the tables',
      );
}

function explainFinalNorm(
  { reference, params }: DiagnoseOptions,
  golden: States,
  tolerance: number,
): Omit<Diagnosis, 'layers' | 'first'> {
  const { config } = reference();
  for (const epsilon of otherEpsilons(config.epsilon)) {
    const error = tf.tidy(() => {
      const x = stateTensor(golden, `hidden.${config.layers}`, config.dim);
      return largestError(
        'final_norm',
        reference({ epsilon }).finalNorm(params, x).dataSync() as Float32Array,
        golden,
      );
    });
    if (error <= tolerance) return epsilonFinding(config.epsilon, epsilon);
  }
  return finding(
    'final norm',
    null,
    'the blocks agree, so the final norm is at fault: check its scale, its bias and its place',
  );
}

/** Tries each usual mistake on one block alone, fed with the golden state before it. */
function explainBlock(
  { reference, params, golden: goldenStates }: DiagnoseOptions,
  observed: States,
  layer: number,
  tolerance: number,
): Omit<Diagnosis, 'layers' | 'first'> {
  const { config } = reference();
  const expected = `hidden.${layer + 1}`;
  const run = (network: Network, tree: ParamTree, mask?: MaskMistake) =>
    runBlock(network, tree, layer, goldenStates, mask);
  const agrees = (output: Float32Array, target: States) =>
    largestError(expected, output, target) <= tolerance;

  if (agrees(run(reference(), params), goldenStates)) {
    // These parameters give the golden state with the reference code: the code under test is wrong. Which mistake
    // gives what it gave? It was fed a state that agrees within the tolerance only, so some slack is needed.
    const reproduces = (output: Float32Array) => largestError(expected, output, observed) <= 10 * tolerance;
    for (const mask of ['everything', 'itself'] as const) {
      if (reproduces(run(reference(), params, mask))) return maskFinding(layer, mask);
    }
    for (const epsilon of otherEpsilons(config.epsilon)) {
      if (reproduces(run(reference({ epsilon }), params))) return epsilonFinding(epsilon, config.epsilon);
    }
    return finding(
      'forward code',
      null,
      `block ${layer}'s parameters are right and its code is not: compare it with the reference line by line`,
    );
  }
  for (const [path, weight] of layerWeights(params, layer)) {
    if (weight.shape.length !== 2 || weight.shape[0] !== weight.shape[1]) continue;
    if (agrees(run(reference(), replaceWeight(params, path, transposeSquare(weight))), goldenStates)) {
      return finding('transpose', path, `${path} is transposed: turned around, block ${layer} agrees`);
    }
  }
  for (const epsilon of otherEpsilons(config.epsilon)) {
    if (agrees(run(reference({ epsilon }), params), goldenStates))
      return epsilonFinding(config.epsilon, epsilon);
  }
  const zero = layerWeights(params, layer).find(([path, weight]) => path.endsWith('.bias') && isZero(weight));
  if (zero)
    return finding(
      'missing bias',
      zero[0],
      `${zero[0]} is all zeros, which no trained bias is: it was not read from the checkpoint`,
    );
  return finding(
    'unknown',
    null,
    `block ${layer} differs and no usual mistake explains it: compare its parameters with the checkpoint's`,
  );
}

function maskFinding(layer: number, mask: MaskMistake) {
  const sees =
    mask === 'everything'
      ? 'later tokens too: the causal mask is missing'
      : 'its own token only: earlier keys and values are lost';
  return finding('mask', null, `in block ${layer} each query sees ${sees}`);
}

function epsilonFinding(used: number, right: number) {
  return finding('norm epsilon', null, `the norm's epsilon is ${used}: with ${right} the state agrees`);
}

function otherEpsilons(epsilon: number): number[] {
  return [1e-5, 1e-6, 1e-12, 1e-8, 1e-3].filter((other) => other !== epsilon);
}

type MaskMistake = 'everything' | 'itself';

function runBlock(
  network: Network,
  params: ParamTree,
  layer: number,
  golden: States,
  mask?: MaskMistake,
): Float32Array {
  return tf.tidy(() => {
    const { config } = network;
    const x = stateTensor(golden, `hidden.${layer}`, config.dim);
    const query = x.shape[1];
    const { start, count } = forwardInput([new Array<number>(query).fill(0)], [0]);
    const cache = allocate(cacheSpecOf(config, query), 1);
    const step: CacheStep = openStep(cache, start, count, query);
    if (mask === 'everything') step.mask = null;
    if (mask === 'itself')
      step.mask = tf.reshape(tf.mul(tf.sub(1, tf.eye(query)), -1e9), [1, 1, query, query]);
    const output = network.block(params, layer, x, step).dataSync().slice() as Float32Array;
    disposeCache(cache);
    return output;
  });
}

/** A state as a tensor [1, query, dim]. */
function stateTensor(states: States, name: string, dim: number): tf.Tensor3D {
  const values = states.get(name);
  if (!values)
    throw new RangeError(`golden states: expected ${name}, found ${[...states.keys()].join(', ')}`);
  return tf.tensor3d(values, [1, values.length / dim, dim]);
}

function largestError(name: string, values: Float32Array, golden: States): number {
  const expected = golden.get(name);
  if (!expected)
    throw new RangeError(`golden states: expected ${name}, found ${[...golden.keys()].join(', ')}`);
  if (expected.length !== values.length) {
    throw new RangeError(
      `golden ${name}: expected ${values.length} values, found ${expected.length}; other tokens?`,
    );
  }
  let error = 0;
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    const difference = Math.abs(values[i]! - expected[i]!);
    if (!(difference <= error)) error = difference; // NaN counts as a difference
    largest = Math.max(largest, Math.abs(expected[i]!));
  }
  return Number.isNaN(error) ? Number.POSITIVE_INFINITY : error / (largest || 1);
}

/** Weights of one block: those under a path whose number is the layer. */
function layerWeights(params: ParamTree, layer: number): [string, Weight][] {
  return [...weightEntries(params)].filter(([path]) => path.split('.')[1] === String(layer));
}

function replaceWeight(params: ParamTree, path: string, replacement: Weight): ParamTree {
  return mapWeights(params, (weight, place) => (place === path ? replacement : weight));
}

function transposeSquare(weight: Weight): Weight {
  const size = weight.shape[0]!;
  const values = float32Values(weight);
  return floatWeight(
    Float32Array.from(values, (_, i) => values[(i % size) * size + Math.floor(i / size)]!),
    weight.shape,
  );
}

function isZero(weight: Weight): boolean {
  return float32Values(weight).every((value) => value === 0);
}
