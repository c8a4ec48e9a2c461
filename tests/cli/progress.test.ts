// How far long steps are, on a terminal's stderr that is a file.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { showTuning } from '../../lib/cli/progress.js';
import type { Terminal } from '../../lib/cli/terminal.js';
import { onTuning, tellTuning } from '../../lib/jit/tuneProgress.js';

let lines = '';
const stream = (isTTY: boolean, write: (text: string) => boolean) => ({ isTTY, write });
const terminal = {
  output: stream(false, () => true),
  errors: stream(false, (text: string) => {
    lines += text;
    return true;
  }),
} as unknown as Terminal;

beforeEach(() => {
  lines = '';
  vi.useFakeTimers({ toFake: ['performance'] });
});
afterEach(() => {
  onTuning(() => {});
  vi.useRealTimers();
});

test('a GPU whose kernels are timed for seconds says how far it is, and when it is done', () => {
  showTuning(terminal);
  for (let done = 0; done <= 4; done++) {
    tellTuning(done, 4);
    vi.advanceTimersByTime(1500);
  }
  expect(lines).toMatch(/^Timing kernels on this GPU, once: 50 %\n/);
  expect(lines).toMatch(/once: 6\.0 s\n$/);
});

test('one that is quick says nothing, and the next one begins anew', () => {
  showTuning(terminal);
  for (let turn = 0; turn < 2; turn++) {
    tellTuning(0, 1);
    vi.advanceTimersByTime(1500);
    tellTuning(1, 1);
  }
  expect(lines).toBe('');
});
