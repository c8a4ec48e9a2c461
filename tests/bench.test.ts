// bench/*: settings, the plan, the bars and their table; nothing is measured here but what a missing peer says.
import { describe, expect, test } from 'vitest';
import { compileProbe } from '../bench/bandwidth.js';
import { BARS, judge, type Measured, type Outcome } from '../bench/bars.js';
import { narrowed, readSettings } from '../bench/bench.js';
import { Contender } from '../bench/contender.js';
import { FULL, planOf, QUICK } from '../bench/plan.js';
import type { Timing } from '../bench/protocol.js';
import { barsTable, figuresTable, profileTable } from '../bench/table.js';

const places = { folder: 'model', python: undefined, peers: undefined };

/** One run of 100 ms to the first token, then `tokenMs` each. */
function timing(tokenMs: number, more: Partial<Timing> = {}): Timing {
  return { firstTokenMs: 100, totalMs: 100 + 127 * tokenMs, newTokens: 128, ...more };
}

function outcome(measured: Record<string, Measured>): Outcome {
  const facts = { name: 'int8', weightBytes: 124e6, cacheBytesPerToken: 73728 };
  return {
    measured: new Map(Object.entries(measured)),
    facts: new Map([
      ['gpt2/int8/2', facts],
      ['gpt2/f32/2', { ...facts, weightBytes: 496e6 }],
    ]),
    sizes: FULL,
  };
}

const only = (against: string, ours: string) =>
  BARS.filter((bar) => bar.against === against && bar.ours === ours);

describe('settings', () => {
  test('five rounds of both models unless told', () => {
    expect(readSettings([], {})).toMatchObject({ rounds: 5, models: ['gpt2', 'smollm2'], quick: false });
    expect(readSettings(['--quick'], {})).toMatchObject({ rounds: 1, models: ['gpt2'] });
    expect(readSettings(['--peers', '/a'], { RESPONSE_TIME_PEERS: '/b' }).peers).toBe('/a');
    expect(readSettings([], { RESPONSE_TIME_PEERS: '/b' }).peers).toBe('/b');
  });

  test.each([
    [['--rounds', '0'], '--rounds: expected a whole number of at least 1, received 0'],
    [['--models', 'gpt3'], '--models: expected gpt2, smollm2 or both, received gpt3'],
    [['--fast'], "Unknown option '--fast'"],
  ])('%j is refused', (parameters, message) => {
    expect(() => readSettings(parameters, {})).toThrow(message);
  });
});

describe('the plan', () => {
  test.each([FULL, QUICK])('gives every measurement a contender, and no id twice', (sizes) => {
    for (const model of ['gpt2', 'smollm2'] as const) {
      const { contenders, measurements } = planOf(model, places, model, sizes);
      const ids = contenders.map(({ id }) => id);
      for (const { contender } of measurements) expect(ids).toContain(contender);
      expect(new Set(measurements.map(({ id }) => id)).size).toBe(measurements.length);
    }
  });

  test('measures all that the bars compare', () => {
    const measurements = (['gpt2', 'smollm2'] as const).flatMap(
      (model) => planOf(model, places, model, FULL).measurements,
    );
    const run = timing(10, { gigabytesPerSecond: 25 });
    const all = outcome(Object.fromEntries(measurements.map(({ id }) => [id, [run]])));
    expect(judge(all).filter(({ verdict }) => verdict === 'missing')).toEqual([]);
  });

  test('peers that are not here are missing, with what makes them', () => {
    const { contenders } = planOf('gpt2', places, 'gpt2', FULL);
    expect(contenders.filter(({ start }) => 'missing' in start).map(({ id }) => id)).toEqual([
      'gpt2/pytorch',
      'gpt2/llama-Q8_0',
      'gpt2/llama-Q4_0',
    ]);
  });

  test('--only keeps what it names and the bandwidth', () => {
    const { contenders, measurements } = narrowed(planOf('gpt2', places, 'gpt2', FULL), 'int4');
    expect(contenders.map(({ id }) => id)).toEqual(['bandwidth', 'gpt2/int4/1', 'gpt2/int4/2']);
    expect(measurements).toHaveLength(4);
  });
});

describe('the bars', () => {
  const peer = { 'gpt2/pytorch-generate/1': [timing(40)], 'gpt2/pytorch-generate/2': [timing(35)] };

  test('a ratio takes medians, and of a peer the better number of threads', () => {
    const found = outcome({ ...peer, 'gpt2/int8/2': [timing(99), timing(7), timing(5)] });
    const [bar] = judge(found, only('PyTorch fp32 generate()', 'INT8'));
    expect(bar).toMatchObject({ verdict: 'missed', perToken: 5 });
    expect(bar!.value).toBeCloseTo((100 + 127 * 35) / (100 + 127 * 7));
  });

  test('the share of the limit: bytes of weights and of the middle cache by the bandwidth', () => {
    const bandwidth = [timing(0, { gigabytesPerSecond: 25 })];
    const found = outcome({ 'gpt2/bandwidth/2': bandwidth, 'gpt2/int8/2': [timing(8)] });
    const [bar] = judge(found, only('limit of the read bandwidth', 'INT8'));
    expect(bar!.value).toBeCloseTo((100 * (124e6 + 192 * 73728)) / 25e6 / 8);
    expect(bar!.verdict).toBe('met');
  });

  test('the cost of depth: added time by the time of reading the added cache', () => {
    const found = outcome({
      'gpt2/bandwidth/2': [timing(0, { gigabytesPerSecond: 25 })],
      'gpt2/f32/2/depth16': [timing(20)],
      'gpt2/f32/2/depth1000': [timing(24)],
    });
    const [bar] = judge(found, only('reading the added cache, by depth', 'f32'));
    expect(bar!.value).toBeCloseTo(4 / ((984 * 73728) / 25e6));
    expect(bar!.verdict).toBe('missed');
  });

  test('a peer that is missing gives no figure, and the reason', () => {
    const found = outcome({
      'gpt2/int8/2': [timing(7, { threads: 2 })],
      'gpt2/llama-Q8_0/1': { missing: 'not installed' },
    });
    const bar = judge(found, only('node-llama-cpp Q8_0', 'INT8'));
    expect(bar).toMatchObject([{ value: null, verdict: 'missing', reason: 'not installed' }]);
    expect(barsTable(bar)).toMatchInlineSnapshot(`
      "against              ours  bar     measured  a token
      node-llama-cpp Q8_0  INT8  >= 1 x         -        -  missing: not installed"
    `);
    expect(figuresTable(found)).toMatchInlineSnapshot(`
      "measured           first token ms  a token ms  whole ms  new tokens  threads  runs
      gpt2/int8/2                 100.0        7.00       989         128        2  1
      gpt2/llama-Q8_0/1               -           -         -           -        -  missing: not installed"
    `);
  });

  test('a profile sums up to a token', () => {
    const kernels = [
      { kernel: 'Linear f32[1,768]', count: 12, ms: 3, bytes: 60e6 },
      { kernel: 'Norm f32[1,768]', count: 25, ms: 1, bytes: 1e6 },
    ];
    expect(profileTable(kernels, 25)).toMatchInlineSnapshot(`
      "kernel             a token  ms     of the time  MB      GB/s  of the bandwidth
      Linear f32[1,768]       12  3.000         75 %  60.000  20.0  80 %
      Norm f32[1,768]         25  1.000         25 %   1.000   1.0  4 %
      all                     37  4.000        100 %  61.000  15.3  61 %"
    `);
  });
});

test('a contender that cannot start is missing, with its own words', async () => {
  const parameters = ['--eval', 'throw new Error("libfast.so: not found")'];
  expect(await Contender.start({ program: process.execPath, parameters })).toEqual({
    missing: expect.stringContaining('libfast.so: not found'),
  });
  expect(await Contender.start({ program: '/no/such/program', parameters: [] })).toEqual({
    missing: expect.stringContaining('ENOENT'),
  });
});

test('the bandwidth probe reads every word of its part', () => {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const words = new Int32Array(memory.buffer).map((_, i) => i % 1000);
  new Int32Array(memory.buffer).set(words);
  // The first of four lanes: every fourth word.
  const expected = words.slice(64, 4096).reduce((sum, word, i) => sum + (i % 4 === 0 ? word : 0), 0);
  expect(compileProbe(memory)(256, 16384)).toBe(expected);
});
