import { expect, test } from 'vitest';
import { progressLine, type ShardProgress } from '../../lib/cluster/progress.js';

const progress: ShardProgress = {
  ...{ shard: 3, shards: 8, phase: 'measuring', done: 12, total: 125 },
  ...{ tokensPerSecond: 34.16, remainingMs: 250_000, lastError: null },
};

test('one line: done of total, speed, time left, last error', () => {
  expect(progressLine(progress)).toBe(
    'shard 3 of 8, measuring: 12/125 (9 %), 34.2 tok/s, 4 min left, last error: none',
  );
  expect(progressLine({ ...progress, remainingMs: null, lastError: 'prompt: too long' })).toBe(
    'shard 3 of 8, measuring: 12/125 (9 %), 34.2 tok/s, time left unknown, last error: prompt: too long',
  );
});

test.each([
  [45_000, '45 s left'],
  [119_000, '2 min left'],
  [12_000_000, '3 h 20 min left'],
])('%d ms is %s', (remainingMs, words) => {
  expect(progressLine({ ...progress, remainingMs })).toContain(words);
});
