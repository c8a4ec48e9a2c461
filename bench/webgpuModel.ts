// bench/webgpuModel.ts: a model's shape -> a model of random Weights in memory: no file, and all Weights are cut from one
// pool of random numbers, so that 7 billion of them take seconds. For speed and memory on a GPU; its answers mean nothing.

import { allocate } from 'response-time/cache';
import { buildTree, expandRules } from 'response-time/convert';
import { eager } from 'response-time/forward';
import { architectureOf, type Model } from 'response-time/model';
import { cacheSpecOf, everyLogitsOf, forwardOf } from 'response-time/models/layers';
import { type Scheme, schemeLayout } from 'response-time/quantize';
import { type RandomShapeName, randomShape } from 'response-time/randomModel';
import {
  type Int4Weight,
  type Shape,
  sizeOf,
  type Weight,
  weightBytes,
  weightEntries,
} from 'response-time/tensor';

/** Bytes from which Weights are cut. */
class Pool {
  readonly #bytes: Uint8Array;
  #next = 0;

  constructor(bytes: number, fill: (words: Uint16Array) => void) {
    const block = new Uint16Array(2 ** 20);
    fill(block);
    this.#bytes = new Uint8Array(bytes + 2 ** 22);
    const source = new Uint8Array(block.buffer);
    for (let at = 0; at < this.#bytes.length; at += source.length)
      this.#bytes.set(source.subarray(0, this.#bytes.length - at), at);
  }

  /** Bytes from another place each time. */
  take(bytes: number): Uint8Array {
    this.#next = (this.#next + 4096 * 37) % 2 ** 22;
    const begin = Math.min(this.#next, this.#bytes.length - bytes);
    return this.#bytes.subarray(begin - (begin % 64), begin - (begin % 64) + bytes);
  }
}

/** Float16 numbers of about a normal distribution's size. */
function fillHalves(words: Uint16Array): void {
  for (let i = 0; i < words.length; i++) {
    const exponent = 15 - 6 - Math.floor(Math.random() * 3); // 2^-6 to 2^-8
    words[i] = (Math.random() < 0.5 ? 0x8000 : 0) | (exponent << 10) | Math.floor(Math.random() * 1024);
  }
}

/** Float32 numbers between -1/32 and 1/32. */
function fillFloats(words: Uint16Array): void {
  const floats = new Float32Array(words.buffer);
  for (let i = 0; i < floats.length; i++) floats[i] = (Math.random() - 0.5) / 16;
}

function fillBytes(words: Uint16Array): void {
  for (let i = 0; i < words.length; i++) words[i] = Math.floor(Math.random() * 65536);
}

function ones(shape: Shape, value: number): Weight {
  const values = new Float32Array(sizeOf(shape)).fill(value);
  return { kind: 'float', dtype: 'f32', shape, bytes: new Uint8Array(values.buffer) };
}

/**
 * A model of this shape whose Weights are random, as `scheme` would store them; 'stored' means float16.
 * @param layers fewer than the model has, to try things out; undefined: all
 */
export function randomModelInMemory(name: RandomShapeName, scheme: Scheme, layers?: number): Model {
  const shape = randomShape(name);
  const map = layers === undefined ? shape.map : { ...shape.map, layers };
  const fewer = layers === undefined ? {} : { num_hidden_layers: layers, n_layer: layers };
  const json = { ...shape.config, ...fewer };
  const architecture = architectureOf(json, 'config.json');
  const rules = expandRules(map);
  const dtype = scheme.name === 'f32' ? 'f32' : 'f16';
  const floatBytes = dtype === 'f32' ? 4 : 2;
  const most = floatBytes * Math.max(...rules.map(({ shape }) => sizeOf(shape)));
  const floats = new Pool(most, dtype === 'f32' ? fillFloats : fillHalves);
  const hasIntegers = scheme.name !== 'stored' && scheme.name !== 'f32';
  const pool = hasIntegers ? new Pool(most, fillBytes) : floats;
  const weightOf = (path: string, shape: Shape): Weight => {
    if (shape.length < 2) return ones(shape, path.endsWith('bias') ? 0 : 1);
    const layout = schemeLayout(path, shape, dtype, scheme);
    if (layout.kind === 'float')
      return { kind: 'float', dtype, shape, bytes: floats.take(floatBytes * sizeOf(shape)) };
    const { granularity } = layout;
    const axis = granularity.per === 'tensor' ? 1 : granularity.axis;
    const inDim = shape[1 - axis]!;
    const groups = granularity.per === 'group' ? Math.ceil(inDim / granularity.size) : 1;
    const scales = new Float32Array(granularity.per === 'tensor' ? 1 : shape[axis]! * groups);
    // What random integers have for a standard deviation, times the root of what is summed.
    scales.fill(1 / ((layout.kind === 'int4' ? 4.6 : 74) * Math.sqrt(inDim)));
    if (layout.kind === 'int4') {
      const { granularity: own } = layout as Pick<Int4Weight, 'granularity'>;
      return {
        kind: 'int4',
        shape,
        bytes: pool.take(Math.ceil(sizeOf(shape) / 2)),
        scales,
        granularity: own,
      };
    }
    const bytes = pool.take(sizeOf(shape));
    return {
      ...{ kind: 'int8', shape, scales, granularity },
      bytes: new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length),
    };
  };
  const params = buildTree(rules.map(({ target, shape }) => [target, weightOf(target, shape)] as const));
  const weights = Array.from(weightEntries(params), ([, weight]) => weight);
  const { config, network } = architecture;
  const forwardFunction = forwardOf(network);
  return {
    ...architecture,
    ...{ name, scheme, tokenizer: null, eosIds: [], folder: '', params, forwardFunction },
    forward: eager(forwardFunction),
    everyLogits: everyLogitsOf(network),
    ...{ vocabSize: config.vocabSize, maxPositions: config.maxPositions, randomWeights: true },
    newCache: (capacity) => allocate(cacheSpecOf(config, capacity), 1),
    weights: scheme.name === 'stored' ? 'f16' : scheme.name,
    weightBytes: weights.reduce((sum, weight) => sum + weightBytes(weight), 0),
    parameterCount: weights.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
    dispose: () => {},
  };
}
