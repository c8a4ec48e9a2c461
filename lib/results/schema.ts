// lib/results/schema.ts: what a Run's fields must be, one by one.
// unknown JSON value -> the same value, typed; else an InvalidValue that says where.

import type {
  CheckResult,
  Deviation,
  Machine,
  Memory,
  ModelFacts,
  Quality,
  Run,
  RunFacts,
  Runtime,
  Samples,
  Summary,
} from '../results.js';
import type { Statistics } from './statistics.js';
import {
  type Check,
  count,
  dictionary,
  flag,
  list,
  moment,
  number,
  object,
  oneOf,
  optional,
  orNull,
  text,
} from './validate.js';

/** Rises when a record's meaning changes; a reader refuses any other. */
export const SCHEMA_VERSION = 1;

export const TARGETS = ['eager', 'reference', 'wasm', 'webgpu', 'pytorch'] as const;

const size = count(0);
const milliseconds = number(0);
const share = number(0, 1);
const spread = object<Statistics>({
  mean: milliseconds,
  std: milliseconds,
  min: milliseconds,
  p50: milliseconds,
  p95: milliseconds,
  p99: milliseconds,
  max: milliseconds,
});
const heldBytes = { weightBytes: size, arenaBytes: optional(size), gpuBytes: optional(size) };
const factFields = {
  commit: orNull(text),
  label: text,
  machine: object<Machine>({
    id: text,
    cpu: text,
    cores: count(1),
    memoryBytes: size,
    os: text,
    gpu: optional(text),
  }),
  runtime: object<Runtime>({ name: oneOf('node', 'python'), version: text, packages: dictionary(text) }),
  model: object<ModelFacts>({
    name: text,
    source: text,
    family: text,
    parameters: count(1),
    randomWeights: flag,
  }),
  weights: text,
  backend: text,
  target: oneOf(...TARGETS),
  mode: text,
  cache: flag,
  newTokens: count(1),
  batch: count(1),
  compile: orNull(
    object<{ readonly compilations: number; readonly compileMs: number }>({
      compilations: count(0),
      compileMs: milliseconds,
    }),
  ),
  checks: list(object<CheckResult>({ name: text, passed: flag, value: number(), expected: text })),
  notes: list(text),
};
/** Checks a JSON value that says it is the facts of a Run. */
export const checkFacts: Check<RunFacts> = object<RunFacts>({
  ...factFields,
  memory: object<RunFacts['memory']>(heldBytes),
});
/** Checks all fields of a Run; whether they fit each other is checkRun's. */
export const checkFields: Check<Run> = object<Run>({
  ...factFields,
  schemaVersion: oneOf(SCHEMA_VERSION),
  id: text,
  session: text,
  createdAt: moment,
  promptTokens: count(1),
  samples: object<Samples>({
    latencyMs: list(milliseconds),
    firstTokenMs: list(milliseconds),
    promptTokens: list(count(1)),
    newTokens: list(count(1)),
    perTokenMs: optional(list(list(milliseconds))),
    rougeL: optional(list(share)),
    machineIds: optional(list(text)),
  }),
  summary: object<Summary>({ latencyMs: spread, firstTokenMs: spread, tokensPerSecond: number(0) }),
  memory: object<Memory>({ ...heldBytes, cacheBytes: size, peakRssBytes: optional(size) }),
  quality: orNull(
    object<Quality>({
      samples: count(1),
      against: text,
      rouge1: optional(share),
      rouge2: optional(share),
      rougeL: optional(share),
      exactMatch: optional(share),
      perplexity: optional(number(1)),
      sameTopToken: optional(share),
      klMean: optional(number()),
      klP99: optional(number()),
    }),
  ),
  deviation: orNull(object<Deviation>({ reference: text, largest: number(0) })),
});
