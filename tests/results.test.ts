import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  comparable,
  decimal,
  formatComparison,
  formatRuns,
  incomparable,
  ratio,
} from '../lib/results/compare.js';
import { writeTextAtomically } from '../lib/results/files.js';
import { percentile, statistics } from '../lib/results/statistics.js';
import { checkRun, newRunId, type Run, readRun, readRuns, summarize, writeRun } from '../lib/results.js';
import { built } from './built.js';
import { makeRun, makeSamples } from './runFixture.js';

// A disk that is full as soon as `full` is set: the real file system otherwise.
const disk = vi.hoisted(() => ({ full: false }));
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  const open: typeof real.open = async (...parameters) => {
    const handle = await real.open(...parameters);
    if (!disk.full) return handle;
    handle.writeFile = async () => {
      await handle.write('half of the rec');
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    };
    return handle;
  };
  return { ...real, open };
});

const scratch = mkdtempSync(join(tmpdir(), 'results-'));
afterAll(() => rmSync(scratch, { recursive: true }));
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(scratch, 'folder-'));
});

describe('statistics', () => {
  test('percentiles are those of numpy.percentile', () => {
    // numpy.percentile([15, 20, 35, 40, 50], [0, 5, 40, 50, 95, 99, 100])
    const values = [35, 15, 50, 40, 20];
    const percents = [0, 5, 40, 50, 95, 99, 100];
    const expected = [15, 16, 29, 35, 48, 49.6, 50];
    percents.forEach((percent, i) => {
      expect(percentile(values, percent)).toBeCloseTo(expected[i]!, 12);
    });
    expect(percentile([7], 99)).toBe(7);
    expect(values[0]).toBe(35); // the caller's list stays unsorted
  });

  test('mean and sample standard deviation', () => {
    // numpy.std([2, 4, 4, 4, 5, 5, 7, 9], ddof=1) = 2.13809
    expect(statistics([2, 4, 4, 4, 5, 5, 7, 9])).toMatchObject({ mean: 5, min: 2, p50: 4.5, max: 9 });
    expect(statistics([2, 4, 4, 4, 5, 5, 7, 9]).std).toBeCloseTo(2.138089935299395, 12);
    expect(statistics([3]).std).toBe(0);
  });

  test('what cannot be summed up is refused', () => {
    expect(() => statistics([])).toThrow(/expected at least one/);
    expect(() => statistics([1, Number.NaN])).toThrow(/received NaN at 1/);
    expect(() => percentile([1], 101)).toThrow(/0 to 100, received 101/);
  });

  test('percentiles never leave the values nor their order', () => {
    const finite = fc.double({ min: -1e6, max: 1e6, noNaN: true });
    fc.assert(
      fc.property(fc.array(finite, { minLength: 1, maxLength: 50 }), (values) => {
        const { min, p50, p95, p99, max } = statistics(values);
        const ascending = [Math.min(...values), min, p50, p95, p99, max, Math.max(...values)];
        ascending.slice(1).forEach((value, i) => {
          expect(value).toBeGreaterThanOrEqual(ascending[i]! - 1e-9);
        });
      }),
      { numRuns: 200 },
    );
  });
});

describe('a record', () => {
  test('is read back as it was written', async () => {
    const run = makeRun({
      id: newRunId('INT8 + cache', '2026-01-31T12:00:00.000Z'),
      quality: { samples: 5, against: 'reference answers', rougeL: 0.98, perplexity: 12 },
      compile: { compilations: 1, compileMs: 80 },
      deviation: { reference: 'PyTorch float32', largest: 1e-6 },
      checks: [{ name: 'same text', passed: true, value: 1, expected: '= 1' }],
      samples: { ...makeSamples([10, 20]), perTokenMs: [[1, 2], [3]], rougeL: [1, 0.5] },
    });
    const file = await writeRun(run, join(folder, 'new', 'deep'));
    expect(file).toMatch(/20260131T120000Z-int8-cache-\w{4}\.run\.json$/);
    expect(await readRun(file)).toEqual(run);
    expect(readdirSync(join(folder, 'new', 'deep'))).toHaveLength(1);
  });

  test.each<[string, string, unknown, RegExp]>([
    ['a missing field', 'label', undefined, /label: expected a text, found nothing/],
    ['a misspelt field', 'lable', 'x', /lable: expected one of .*label.*, found "key lable"/],
    ['text for a number', 'batch', '1', /batch: expected a whole number >= 1, found "1"/],
    ['NaN, which JSON writes as null', 'samples.latencyMs.2', null, /latencyMs\[2\]: expected a number >= 0/],
    ['a negative time', 'samples.firstTokenMs.0', -1, /firstTokenMs\[0\]: expected a number >= 0, found -1/],
    ['an unknown target', 'target', 'cuda', /target: expected "eager" or .*"pytorch", found "cuda"/],
    ['a local time', 'createdAt', '31.1.2026', /createdAt: expected a UTC time/],
    ['a sample too few', 'samples.newTokens', [1, 2], /samples.newTokens: expected 5 entries/],
    ['no sample', 'samples.latencyMs', [], /samples.latencyMs: expected at least one sample/],
    ['a flattering summary', 'summary.latencyMs.p99', 1, /p99: expected 697.6, as its samples give, found 1/],
    ['ROUGE in per cent', 'quality', { samples: 1, against: 'x', rougeL: 98 }, /rougeL: .* <= 1, found 98/],
    ['a list for an object', 'machine', [], /machine: expected an object/],
    ['another schema', 'schemaVersion', 2, /schemaVersion: expected 1, found 2; measure again/],
    ['a schema version as text', 'schemaVersion', '1', /schemaVersion: expected 1, found "1"/],
  ])('with %s is refused with file and place', async (_, path, value, message) => {
    const run = structuredClone(makeRun());
    setAt(run, path.split('.'), value);
    const file = join(folder, 'broken.run.json');
    writeFileSync(file, JSON.stringify(run));
    await expect(readRuns(folder)).rejects.toThrow(message);
    await expect(readRun(file)).rejects.toThrow(file);
  });

  test('that is no JSON, or absent, is refused with the file', async () => {
    writeFileSync(join(folder, 'cut.run.json'), JSON.stringify(makeRun()).slice(0, 100));
    await expect(readRuns(folder)).rejects.toThrow(/cut\.run\.json: expected JSON/);
    await expect(readRun(join(folder, 'none.run.json'))).rejects.toThrow(/none\.run\.json.*could not read/);
    for (const value of [null, 3, 'run', []]) {
      expect(() => checkRun(value, 'here')).toThrow(/here: record: expected an object/);
    }
  });

  test('any mutation of a value is refused or still a record', () => {
    const paths = leaves(makeRun());
    fc.assert(
      fc.property(fc.constantFrom(...paths), fc.jsonValue(), (path, value) => {
        const run = structuredClone(makeRun());
        setAt(run, path, value);
        try {
          checkRun(run, 'mutated');
        } catch (error) {
          expect((error as Error).message).toMatch(/^mutated: [\s\S]+: expected [\s\S]+, found [\s\S]+/);
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('a folder of records', () => {
  test('is read with the folders in it, oldest first; other files do not count', async () => {
    await writeRun(makeRun({ id: 'late', createdAt: '2026-02-01T00:00:00Z' }), folder);
    await writeRun(makeRun({ id: 'early', createdAt: '2026-01-01T00:00:00Z' }), join(folder, 'machine'));
    writeFileSync(join(folder, 'checks.json'), '{}');
    writeFileSync(join(folder, 'late.run.json.123.tmp'), '{ "half');
    expect((await readRuns(folder)).map(({ id }) => id)).toEqual(['early', 'late']);
  });

  test('that does not exist is empty; a file in its place is an error', async () => {
    expect(await readRuns(join(folder, 'none'))).toEqual([]);
    writeFileSync(join(folder, 'file'), '');
    await expect(readRuns(join(folder, 'file'))).rejects.toThrow(/file: expected a folder of results/);
  });
});

describe('writing', () => {
  test('on a full disk says so and leaves nothing', async () => {
    await writeRun(makeRun({ id: 'before', label: 'old' }), folder);
    disk.full = true;
    await expect(writeRun(makeRun({ id: 'before', label: 'new' }), folder)).rejects.toThrow(
      /before\.run\.json: could not write, the disk is full: free some space/,
    );
    disk.full = false;
    expect(readdirSync(folder)).toEqual(['before.run.json']);
    expect((await readRuns(folder))[0]?.label).toBe('old');
  });

  test.skipIf(process.platform === 'win32')(
    'a pipe or a device is not replaced (no such paths on Windows)',
    async () => {
      const pipe = join(folder, 'out.json');
      spawnSync('mkfifo', [pipe]);
      await expect(writeTextAtomically(pipe, '[]')).rejects.toThrow(
        /out\.json: could not write, it is a device or a pipe/,
      );
      expect(statSync(pipe).isFIFO()).toBe(true);
    },
  );

  test('without permission says so and leaves nothing', () => {
    chmodSync(scratch, 0o755);
    chmodSync(folder, 0o555);
    const script = `import { writeRun } from ${JSON.stringify(built('results'))};
      await writeRun(${JSON.stringify(makeRun())}, ${JSON.stringify(folder)}).catch((error) => console.log(error.message));`;
    // The superuser may write anywhere: as another user, then.
    const user = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
    const { stdout } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
      encoding: 'utf8',
      cwd: '/',
      ...user,
    });
    chmodSync(folder, 0o755);
    expect(stdout).toMatch(/fixture\.run\.json: could not write, no permission to write there: choose/);
    expect(readdirSync(folder)).toEqual([]);
  });

  test('into a path that leads through a file, or of a record that does not fit, leaves nothing', async () => {
    writeFileSync(join(folder, 'file'), 'mine');
    await expect(writeRun(makeRun(), join(folder, 'file', 'x'))).rejects.toThrow(/is a file, not a folder/);
    await expect(writeRun({ ...makeRun(), batch: 0 }, folder)).rejects.toThrow(/batch: expected/);
    await expect(writeRun(makeRun({ id: '../escape' }), folder)).rejects.toThrow(/run id: expected letters/);
    mkdirSync(join(folder, 'fixture.run.json'));
    await expect(writeRun(makeRun(), folder)).rejects.toThrow(/fixture\.run\.json: could not write/);
    expect(readdirSync(folder).sort()).toEqual(['file', 'fixture.run.json']);
    expect(readFileSync(join(folder, 'file'), 'utf8')).toBe('mine');
  });
});

describe('comparing', () => {
  const slow = makeRun({ label: 'slow', samples: makeSamples([1000, 1000]) });
  const fast = makeRun({ label: 'fast', samples: makeSamples([250, 250]) });

  test('a ratio of two Runs of one machine and one piece of work', () => {
    expect(ratio(fast, slow)).toEqual({ value: 4, sideBySide: true });
    expect(ratio(fast, { ...slow, session: 'yesterday' })).toEqual({ value: 4, sideBySide: false });
    expect(ratio(slow, fast, (run) => run.memory.gpuBytes)).toEqual({ missing: 'not measured in both' });
    expect(comparable(fast, slow)).toBe(true);
  });

  test.each<[string, Partial<Run>, RegExp]>([
    [
      'another host of the same make',
      { machine: { ...slow.machine, id: 'bbbbbbbbbbbb' } },
      /two machines \(id/,
    ],
    [
      'another processor',
      { machine: { ...slow.machine, cpu: 'Other CPU' } },
      /cpu Example CPU and Other CPU/,
    ],
    ['another model', { model: { ...slow.model, name: 'tiny-gpt2' } }, /two models \(gpt2 and tiny-gpt2\)/],
    ['fewer tokens', { newTokens: 3 }, /different work \(newTokens 15 and 3\)/],
  ])('%s gives no ratio, with the reason', (_, change, reason) => {
    const other = { ...slow, ...change };
    expect(incomparable(fast, other)).toMatch(reason);
    expect(ratio(fast, other)).toMatchObject({ missing: expect.stringMatching(reason) });
  });

  test('tables', () => {
    const real = makeRun({
      label: 'f32',
      model: { ...slow.model, name: 'tiny', randomWeights: false },
      quality: { samples: 2, against: 'reference answers', rougeL: 0.9 },
      memory: { weightBytes: 15_400_000, cacheBytes: 1 },
      samples: makeSamples([0.5, 0.5]),
    });
    expect(formatRuns([slow, real])).toMatchInlineSnapshot(`
      "configuration  model                  weights  runs on    cache  tokens  samples  tok/s  first ms  p50 ms  p95 ms  p99 ms  weights MB  RSS MB  ROUGE-L
      slow           gpt2 (random weights)  int8     tfjs wasm  yes      5+15        2   15.0       200    1000    1000    1000         125     900        -
      f32            tiny                   int8     tfjs wasm  yes      5+15        2  30000     0.100   0.500   0.500   0.500        15.4       -    0.900"
    `);
    expect(formatRuns([])).toMatch(/No results yet/);
    const elsewhere = { ...slow, machine: { ...slow.machine, cpu: 'Other CPU' } };
    expect(formatComparison([slow, real], [elsewhere])).toMatchInlineSnapshot(`
      "configuration  model  your tok/s  committed tok/s  ratio
      slow           gpt2         15.0             15.0  - measured on two machines (cpu Example CPU and Other CPU)"
    `);
    expect(formatComparison([fast], [slow])).toMatch(/4\.00x$/);
    expect(formatComparison([real], [slow])).toMatch(/^None of your runs/);
  });

  test('three digits that count', () => {
    expect([0, 0.1234, 1.234, 12.34, 123.4, 1234.5].map(decimal)).toEqual([
      '0',
      '0.123',
      '1.23',
      '12.3',
      '123',
      '1235',
    ]);
  });

  test('the summary counts all tokens and all time', () => {
    const samples = { ...makeSamples([1000, 3000]), newTokens: [10, 50] };
    expect(summarize(samples).tokensPerSecond).toBe(15);
  });
});

type Path = readonly string[];

function leaves(value: unknown, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [path];
  return Object.entries(value).flatMap(([key, child]) => leaves(child, [...path, key]));
}

function setAt(target: object, path: Path, value: unknown): void {
  const parent = path.slice(0, -1).reduce((at, key) => (at as Record<string, object>)[key]!, target);
  (parent as Record<string, unknown>)[path.at(-1)!] = value;
}
