import { describe, expect, test } from 'vitest';
import { toSvg } from '../lib/notebook/render.js';
import { rooflineFigure, waterfallFigure } from '../lib/plot/analysis.js';
import { gpuFigures } from '../lib/plot/gpu.js';
import { colorOf, describeRuns, type Figure, logAxis, wrap } from '../lib/plot/look.js';
import {
  layerErrorFigure,
  qualitySizeFigure,
  rougeByLengthFigure,
  rougeHeatmap,
  sizedQualities,
} from '../lib/plot/quality.js';
import {
  costFigure,
  costPerMillionTokens,
  latencyFigure,
  memoryFigure,
  throughputFigure,
} from '../lib/plot.js';
import { makeRun, makeSamples } from './runFixture.js';

const uncached = makeRun({
  label: 'f32, uncached',
  weights: 'f32',
  cache: false,
  samples: makeSamples([10_000, 10_100, 9_900]),
  memory: { weightBytes: 500e6, cacheBytes: 0, peakRssBytes: 1.9e9 },
});
const cached = makeRun({
  label: 'INT8 + cache',
  samples: { ...makeSamples([1000, 1010, 2000]), promptTokens: [5, 20, 200], rougeL: [1, 0.9, 0.5] },
  promptTokens: 5,
  quality: { samples: 3, against: 'reference answers', rougeL: 0.8 },
  memory: { weightBytes: 125e6, cacheBytes: 75e6, arenaBytes: 9e6 },
});
const elsewhere = makeRun({
  label: 'PyTorch',
  target: 'pytorch',
  machine: {
    id: 'bbbbbbbbbbbb',
    cpu: 'Intel(R) Xeon(R) CPU @ 2.4GHz',
    cores: 8,
    memoryBytes: 1e9,
    os: 'linux',
  },
});
const missing = [{ label: 'PyTorch', reason: 'no Python with torch here' }];

/** The parts of a figure that tests look at. */
interface Parts {
  readonly data: readonly {
    readonly type: string;
    readonly name: string;
    readonly x: number[];
    readonly y: number[];
    readonly z: (number | null)[][];
    readonly text: string[][];
    readonly zmin: number;
    readonly measure: string[];
    readonly error_y: { readonly array: number[]; readonly arrayminus: number[] };
    readonly marker: { readonly pattern: { readonly shape: string[] } };
  }[];
  readonly layout: {
    readonly barmode: string;
    readonly title: { readonly text: string; readonly subtitle: { readonly text: string } };
    readonly xaxis: { readonly categoryarray: string[]; readonly range: number[]; readonly type?: string };
    readonly yaxis: { readonly title: { readonly text: string } };
    readonly annotations?: readonly { readonly text: string; readonly x: number; readonly y: number }[];
  };
}
const parts = (figure: Figure) => figure as unknown as Parts; // Plotly's schema is not typed here
const notes = (figure: Figure): string[] => (parts(figure).layout.annotations ?? []).map(({ text }) => text);
const subtitle = (figure: Figure): string => parts(figure).layout.title.subtitle.text.replaceAll('<br>', ' ');

describe("a GPU's figures", () => {
  const gpuRun = (label: string, ms: number, changes = {}) =>
    makeRun({
      label,
      samples: { ...makeSamples([ms, 2 * ms, 3 * ms], 32, 51), firstTokenMs: [ms / 5, ms / 5, ms / 5] },
      memory: { weightBytes: 7e9, cacheBytes: 1e6, gpuBytes: 7.5e9 },
      ...changes,
    });
  const runs = [
    gpuRun('gpt2 int8 fast', 100),
    gpuRun('gpt2 f16 PyTorch', 400, { target: 'pytorch' }),
    gpuRun('gpt2 int8 fast depth 8000', 200),
    gpuRun('gpt2 int8 fast x8', 200, { batch: 8 }),
    ...['int8 fast', 'f16 PyTorch'].map((name) =>
      gpuRun(`gpt2 ${name} prompt 2048`, 900, { samples: makeSamples([900], 2048, 2) }),
    ),
  ];

  test('a bar a configuration of the same work, without the name that the subtitle has', () => {
    const figures = gpuFigures(runs);
    expect([...figures.keys()]).toEqual([
      'gpt2-tokens-per-second',
      'gpt2-memory',
      'gpt2-first-token-32',
      'gpt2-first-token-2048',
    ]);
    const [speed, memory, , deep] = [...figures.values()].map((figure) => parts(figure).data[0]!);
    expect(speed!.x).toEqual(['int8 fast', 'f16 PyTorch']);
    expect(speed!.y.map(Math.round)).toEqual([278, 69]); // 50 tokens in 200 - 20 and 800 - 80 ms
    expect(memory!.y).toEqual([7.5, 7.5]);
    expect(deep!.y).toEqual([180, 180]);
    expect(subtitle(figures.get('gpt2-first-token-2048')!)).toContain('prompts of up to 2048 tokens');
  });

  test('nothing to compare: no figure; without the memory of one, no bar of it', () => {
    expect(gpuFigures([runs[0]!]).size).toBe(0);
    const unknown = gpuRun('gpt2 other', 100, { memory: { weightBytes: 1, cacheBytes: 1 } });
    expect([...gpuFigures([runs[0]!, unknown]).keys()]).not.toContain('gpt2-memory');
  });

  test('they can be drawn', async () => {
    for (const figure of gpuFigures(runs).values()) expect(await toSvg(figure)).toContain('f16 PyTorch');
  });
});

describe('tokens per second', () => {
  test('a bar a Run, whiskers from p5 to p95, the ratio where it may be taken', () => {
    const figure = throughputFigure([uncached, cached, elsewhere], { baseline: uncached, missing });
    const [bars] = parts(figure).data;
    expect(bars?.y.map((value) => Number(value.toFixed(3)))).toEqual([1.5, 11.222, 23.585]);
    const [middle, minus, plus] = [bars!.y[1]!, bars!.error_y.arrayminus[1]!, bars!.error_y.array[1]!];
    expect(middle - minus).toBeCloseTo(7.5 + 0.1 * (15 / 1.01 - 7.5), 6); // percentile 5 of 7.5, 14.85, 15
    expect(middle + plus).toBeCloseTo(15 / 1.01 + 0.9 * (15 - 15 / 1.01), 6);
    expect(notes(figure)).toEqual([
      '<b>1.50</b>',
      '<b>11.2</b><br>7.48x',
      '<b>23.6</b>', // another machine: no ratio
      '<b>missing</b><br>no Python with<br>torch here',
    ]);
  });

  test('another machine is hatched and named, a missing one keeps its place', () => {
    const figure = throughputFigure([uncached, elsewhere], { missing });
    expect(parts(figure).data[0]?.marker.pattern.shape).toEqual(['', '/']);
    expect(parts(figure).layout.xaxis.categoryarray).toEqual([
      'f32, uncached',
      'PyTorch (on Intel<br>Xeon, 8 cores)',
      'PyTorch',
    ]);
    expect(parts(figure).layout.xaxis.range).toEqual([-0.6, 2.6]);
  });

  test('two Runs of one label do not fall onto one bar', () => {
    expect(new Set(parts(throughputFigure([cached, cached])).data[0]?.x).size).toBe(2);
  });
});

test('memory: parts are stacked, what no Run has is left out, the process stands apart', () => {
  const figure = memoryFigure([uncached, cached], { missing });
  expect(parts(figure).layout.barmode).toBe('stack');
  expect(parts(figure).data.map(({ name, y }) => [name, y])).toEqual([
    ['weights', [500, 125]],
    ['key/value cache', [0, 75]],
    ['arena (planned buffers)', [0, 9]],
    ['whole process (peak resident size)', [1900, null]],
  ]);
  expect(parts(figure).data.at(-1)?.type).toBe('scatter');
  expect(notes(figure)).toContain('<b>209</b>');
  const large = memoryFigure([{ ...uncached, memory: { weightBytes: 14.5e9, cacheBytes: 0 } }]);
  expect(parts(large).layout.yaxis.title.text).toBe('GB');
});

test('latency: every sample is a step, p50, p95 and p99 are marked and named', () => {
  const figure = latencyFigure([uncached, cached], { missing });
  expect(parts(figure).data[1]).toMatchObject({ x: [1000, 1000, 1010, 2000], y: [0, 1 / 3, 2 / 3, 1] });
  expect(parts(figure).data[1]?.name).toBe('INT8 + cache: p50 1010, p95 1901, p99 1980 ms');
  expect(parts(figure).data[3]?.x[1]).toBeCloseTo(1901, 6);
  expect(parts(figure).data[3]?.y).toEqual([0.5, 0.95, 0.99]);
  expect(notes(figure)).toEqual(['p50', 'p95', 'p99']);
  expect(subtitle(figure)).toMatch(/Missing: PyTorch \(no Python with torch here\)/);
  const first = parts(latencyFigure([cached], { of: 'firstTokenMs' }));
  expect(first.data[0]?.x.at(-1)).toBe(400);
  const quick = makeRun({ samples: makeSamples([100, 100]) });
  expect(parts(latencyFigure([uncached, quick])).layout.xaxis.type).toBe('log');
  expect(parts(figure).layout.xaxis.type).toBeUndefined();
});

test('latency: of a thousand samples the line keeps 250 steps, all of them right', () => {
  const many = makeRun({ samples: makeSamples(Array.from({ length: 999 }, (_, i) => 999 - i)) });
  const { x, y } = parts(latencyFigure([many])).data[0]!;
  expect(x).toHaveLength(251);
  expect([x[0], y[0], x.at(-1), y.at(-1)]).toEqual([x[1], 0, 999, 1]);
  for (const [i, value] of x.entries()) if (i > 0) expect(y[i]).toBe(Number(value) / 999);
});

test('cost: dollars an hour over tokens an hour; no price is missing, not free', () => {
  expect(costPerMillionTokens(1000, 3.6)).toBeCloseTo(1, 12);
  const figure = costFigure([uncached, cached], {
    dollarsPerHour: (run) => (run === cached ? undefined : 3.6),
    source: 'list price',
  });
  expect(parts(figure).data[0]?.y[0]).toBeCloseTo(1000 / 1.5, 6);
  expect(notes(figure)).toEqual(['<b>$667</b>', '<b>missing</b><br>no price given']);
  expect(subtitle(figure)).toMatch(/^At \$3.6 an hour \(list price\)/);
});

test('ROUGE heat map: means by prompt length, empty where nothing was measured', () => {
  const figure = rougeHeatmap([cached, uncached], missing);
  const [map] = parts(figure).data;
  expect(map?.x).toEqual(['1 to 8', '17 to 32', '129 to 256']);
  expect(map?.z).toEqual([
    [1, 0.9, 0.5],
    [null, null, null],
    [null, null, null],
  ]);
  expect(map?.text[0]).toEqual(['1.000<br>n = 1', '0.900<br>n = 1', '0.500<br>n = 1']);
  expect(map?.zmin).toBe(0.5);
  expect(notes(figure)).toEqual(['<b>missing</b>: not scored', '<b>missing</b>: no Python with torch here']);
});

test('quality against size', () => {
  const points = sizedQualities([uncached, cached], 'rougeL');
  expect(points).toEqual([{ label: 'INT8 + cache', weightBytes: 125e6, quality: 0.8, weights: 'int8' }]);
  const figure = qualitySizeFigure(
    [{ label: 'f32', weightBytes: 500e6, quality: 0.9, weights: 'f32' }, ...points],
    'ROUGE-L',
    'tiny',
  );
  expect(parts(figure).data.map(({ name, x, y }) => [name, x[0], y[0]])).toEqual([
    ['INT8 + cache: 0.800, 125 MB', 125, 0.8],
    ['f32: 0.900, 500 MB', 500, 0.9],
  ]);
});

test('error by layer keeps the order of the model and leaves out layers without error', () => {
  const layers = [
    { path: 'wte.embedding', error: 0.01 },
    { path: 'h.0.attn.c_attn.kernel', error: 0 },
    { path: 'model.layers.11.mlp.up_proj.kernel', error: 0.02 },
  ];
  const figure = parts(layerErrorFigure([{ label: 'INT8', weights: 'int8', layers }], 'error', 'tiny'));
  expect(figure.data[0]?.x).toEqual(['wte', '0 attn.c_attn', '11 mlp.up_proj']);
  expect(figure.data[0]?.y).toEqual([0.01, null, 0.02]);
  expect(figure.layout.xaxis.categoryarray).toEqual(figure.data[0]?.x);
});

test('waterfall: states become differences and end where the last state is', () => {
  const steps = [
    { label: 'eager', value: 100 },
    { label: '+ cache', value: 20 },
    { label: 'oops', value: 25 },
  ];
  const figure = waterfallFigure(steps, 'ms per token', 'tiny.');
  expect(parts(figure).data[0]?.y).toEqual([100, -80, 5, 25]);
  expect(parts(figure).data[0]?.measure).toEqual(['absolute', 'relative', 'relative', 'total']);
  expect(notes(figure)).toEqual(['100', '−80.0', '+5.00', '25.0']);
  expect(parts(figure).layout.annotations?.map(({ y }) => y)).toEqual([100, 100, 25, 25]);
  expect(() => waterfallFigure(steps.slice(0, 1), 'ms', '')).toThrow(/two or more, received 1/);
});

test('roofline: the ridge is where bandwidth meets arithmetic; points are flops over bytes', () => {
  const point = { label: 'decode', flops: 2e9, bytes: 1e9, ms: 50 };
  const figure = parts(
    rooflineFigure([{ label: 'cpu', peakGflops: 100, bandwidthGBps: 25 }], [point], 'tiny'),
  );
  expect(figure.data[0]?.x[1]).toBe(4);
  expect(figure.data[0]?.y.slice(1)).toEqual([100, 100]);
  expect(figure.data[1]).toMatchObject({ name: 'decode: 40.0 GFLOP/s', x: [2], y: [40] });
});

describe('the common look', () => {
  test('the subtitle says model, weights, work, samples, machine and day, and what differs', () => {
    expect(describeRuns([uncached])).toBe(
      'gpt2 (random weights); weights f32; prompts of up to 5 tokens, 15 new; 3 samples each; Example, 2 cores; 2026-01-31',
    );
    expect(describeRuns([uncached, elsewhere])).toMatch(
      /weights f32 \/ int8;.*; 3 to 5 samples each; Example, 2 cores \/ Intel Xeon, 8 cores/,
    );
    for (const figure of [throughputFigure, memoryFigure, latencyFigure, rougeHeatmap]) {
      expect(() => figure([])).toThrow(/runs: expected at least one/);
    }
  });

  test('colours depend on the configuration alone and tell the main ones apart', () => {
    expect(colorOf(cached)).toBe(colorOf({ ...cached }));
    const colors = [
      uncached,
      cached,
      elsewhere,
      { ...cached, target: 'wasm' as const },
      { ...cached, weights: 'int4' },
    ];
    expect(new Set(colors.map(colorOf)).size).toBe(colors.length);
    expect(colorOf(cached)).toMatch(/^#[0-9a-f]{6}$/);
  });

  test('long texts are broken between words', () => {
    expect(wrap('one two three', 7)).toEqual(['one two', 'three']);
    expect(wrap('unbreakable', 3)).toEqual(['unbreakable']);
    expect(logAxis('ms', 8, 150)).toMatchObject({
      ticktext: ['1', '2', '5', '10', '20', '50', '100', '200', '500', '1000', '2000', '5000'],
    });
  });
});

test('every figure can be drawn, with its title and without holes', async () => {
  const figures = [
    throughputFigure([uncached, cached], { missing }),
    memoryFigure([uncached, cached], { missing }),
    latencyFigure([uncached, cached]),
    costFigure([cached], { dollarsPerHour: 1, source: 'list price' }),
    rougeHeatmap([cached], missing),
    qualitySizeFigure(sizedQualities([cached], 'rougeL'), 'ROUGE-L', 'tiny'),
    layerErrorFigure(
      [{ label: 'INT8', weights: 'int8', layers: [{ path: 'wte', error: 1 }] }],
      'error',
      'tiny',
    ),
    waterfallFigure(
      [
        { label: 'a', value: 2 },
        { label: 'b', value: 1 },
      ],
      'ms',
      'tiny',
    ),
    rooflineFigure(
      [{ label: 'cpu', peakGflops: 1, bandwidthGBps: 1 }],
      [{ label: 'k', flops: 1, bytes: 1, ms: 1 }],
      'tiny',
    ),
  ];
  for (const figure of figures) {
    const svg = await toSvg(figure);
    expect(svg).toContain(parts(figure).layout.title.text);
    expect(svg).not.toMatch(/[^a-z](NaN|undefined|Infinity)/);
  }
});

test('scores by prompt length, whatever the texts were compared with', () => {
  const { data, layout } = rougeByLengthFigure(
    [{ label: 'int8', promptTokens: [10, 12, 40], rougeL: [1, 0.5, 0.25] }],
    "against float32's texts.",
  );
  expect(data[0]).toMatchObject({ x: ['9 to 16', '33 to 64'], y: ['int8'], z: [[0.75, 0.25]], zmin: 0.2 });
  expect(JSON.stringify(layout)).toContain("Mean F-measure against float32's texts.");
});
