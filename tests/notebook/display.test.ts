import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import {
  check,
  checks,
  exercise,
  exercises,
  interruptSignal,
  NotYet,
  progressBar,
  show,
  showFigure,
} from '../../lib/notebook/display.js';
import { setSession } from '../../lib/notebook/session.js';

let text = '';
const sent: Readonly<Record<string, unknown>>[] = [];
const { signal } = new AbortController();
setSession({ display: (data) => void sent.push(data), signal });

beforeEach(() => {
  text = '';
  sent.length = 0;
  vi.spyOn(console, 'log').mockImplementation((line) => {
    text += `${line}\n`;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

test('show sends aligned text only', () => {
  show([{ name: 'a', bytes: 1 }], 'Sizes');
  expect(sent).toEqual([{ 'text/plain': 'Sizes\nname  bytes\n----  -----\na         1' }]);
});

test('showFigure sends one bundle: PNG, the interactive figure as plain JSON, text, and no HTML', async () => {
  await showFigure({
    data: [{ type: 'bar', x: ['a', 'b'], y: Float32Array.of(1, 2) }],
    layout: { title: { text: 'Two <b>bars</b>' } },
  });
  expect(sent).toHaveLength(1);
  expect(Object.keys(sent[0]!)).toEqual(['image/png', 'application/vnd.plotly.v1+json', 'text/plain']);
  expect(Buffer.from(String(sent[0]!['image/png']), 'base64').subarray(1, 4).toString()).toBe('PNG');
  expect(sent[0]).toMatchObject({
    'application/vnd.plotly.v1+json': { data: [{ y: [1, 2] }] },
    'text/plain': '[figure: Two bars]',
  });
});

test('check prints and records what passes', () => {
  check('error', 0.5, { atMost: 0.501 });
  check('ratio', 4, { atLeast: 3, atMost: 5 });
  check('tokens', [1, 2], { equals: [1, 2] });
  expect(text).toBe('PASS error: 0.5 <= 0.501\nPASS ratio: 4 >= 3 and <= 5\nPASS tokens: [1, 2] = [1, 2]\n');
  expect(checks().map(({ name, passed }) => [name, passed])).toEqual([
    ['error', true],
    ['ratio', true],
    ['tokens', true],
  ]);
});

test('check throws after printing and recording what fails, unless soft', () => {
  expect(() => check('error', 2, { atMost: 1 })).toThrow('Check failed: error: expected <= 1, received 2');
  expect(text).toBe('FAIL error: 2, expected <= 1\n');
  expect(checks()[0]).toEqual({ name: 'error', value: 2, expected: '<= 1', passed: false });
  check('same text', 'a', { equals: 'b', soft: true });
  check('not a number', Number.NaN, { atMost: 1, soft: true });
  expect(text).toMatch(/FAIL same text: a, expected = b\nFAIL not a number: NaN, expected <= 1\n$/);
  check('another', 1, { atLeast: 2, soft: 'why it may' });
  expect(text).toMatch(/FAIL another: 1, expected >= 2 \(why it may\)\n$/);
  expect(() => check('nothing', 1, {})).toThrow(TypeError);
  expect(() => check('text', '1', { atMost: 1 })).toThrow(TypeError);
});

test('an exercise is not yet done, passes, or fails with a reason, and never stops the notebook', async () => {
  const isSix = (answer: number) => answer === 6 || `expected 6, received ${answer}`;
  await exercise('starter', () => undefined, isSix);
  await exercise('thrown', () => Promise.reject(new NotYet('begin with the scales')), isSix);
  await exercise('right', async () => 6, isSix);
  await exercise('wrong', () => 7, isSix);
  await exercise(
    'bare',
    () => 7,
    () => false,
  );
  await exercise('broken', () => Promise.reject(new RangeError('odd')), isSix);
  expect(text.split('\n')).toEqual([
    'Exercise starter: not yet: fill in the cell above and run both again',
    'Exercise thrown: not yet: begin with the scales',
    'Exercise right: passes',
    'Exercise wrong: FAIL: expected 6, received 7',
    'Exercise bare: FAIL: received 7',
    'Exercise broken: FAIL: odd',
    '',
  ]);
  expect(exercises().map(({ outcome }) => outcome)).toEqual([
    'not yet',
    'not yet',
    'passes',
    'FAIL',
    'FAIL',
    'FAIL',
  ]);
});

test('when the solutions are run, an exercise that does not pass is an error', async () => {
  vi.stubEnv('RESPONSE_TIME_SOLVED', '1');
  await exercise(
    'right',
    () => 1,
    () => true,
  );
  await expect(
    exercise(
      'wrong',
      () => 1,
      () => false,
    ),
  ).rejects.toThrow('Exercise wrong: FAIL');
  await expect(
    exercise(
      'starter',
      () => undefined,
      () => true,
    ),
  ).rejects.toThrow('Exercise starter: not yet');
});

test('a progress bar overwrites its line and ends it', () => {
  let written = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    written += chunk;
    return true;
  });
  const bar = progressBar('samples', 4);
  for (let done = 1; done <= 4; done++) bar.update(done);
  bar.end();
  const versions = written.split('\r').map((version) => version.trimEnd());
  expect(versions[1]).toBe('samples [######..................] 1/4');
  expect(versions.at(-2)).toBe('samples [########################] 4/4');
  expect(versions.at(-1)).toMatch(/^samples: 4 of 4 in \d+\.\d s$/);
  expect(written.match(/\n/g)).toHaveLength(1);
});

test("a cell's signal is the kernel's", () => {
  expect(interruptSignal()).toBe(signal);
});
