// A small plan, and configurations that take no time but say how long they took.

import { sampleKeys } from '../../lib/benchmark/store.js';
import type { Configuration } from '../../lib/benchmark.js';
import { type ClusterPlan, makeClusterPlan } from '../../lib/cluster/plan.js';

/** Token ids of the plan's prompts. */
export const prompts = Array.from({ length: 7 }, (_, i) => [i + 1, 2, 3]);

export function smallPlan(change: Partial<ClusterPlan> = {}): ClusterPlan {
  const repeats = change.repeats ?? 1;
  const keys = sampleKeys(prompts, repeats);
  const {
    kind: _,
    schemaVersion: __,
    fingerprint: ___,
    ...content
  } = {
    shards: 3,
    model: { name: 'tiny', folder: '/models/tiny', digest: 'abc' },
    configurations: ['A', 'B'],
    reference: null,
    answerTokens: null,
    ...{ newTokens: 3, promptTokens: 32, repeats, ignoreEos: false, backend: 'cpu', dataset: 'small.json' },
    samples: prompts.map((_, i) => ({
      keys: keys[i]!,
      instruction: `q${i}`,
      input: '',
      output: `answer ${i}`,
    })),
    ...change,
  } as ClusterPlan;
  return makeClusterPlan(content);
}

/** Answers `answer I` to prompt I, right in A, and in B with one word more. @param onRun sees each prompt's number */
export function fake(
  label: string,
  onRun: (sample: number) => void | Promise<void> = () => {},
): Configuration<readonly number[]> {
  return {
    label,
    model: { name: 'tiny', source: 'embedded', family: 'gpt2', parameters: 10, randomWeights: false },
    ...{ weights: 'f32', backend: 'cpu', target: 'eager', mode: 'eager', cache: true, newTokens: 3 },
    run: async (promptIds) => {
      const sample = promptIds[0]! - 1;
      await onRun(sample);
      const totalMs = 30 + sample;
      return {
        promptIds,
        newIds: [1, 2, 3],
        text: `answer ${sample}${label === 'B' ? ' more' : ''}`,
        ...{ firstTokenMs: 10, perTokenMs: [10, 10 + sample], totalMs, cacheBytes: 24 },
      };
    },
    memory: () => ({ weightBytes: 40 }),
  };
}

export const both = [fake('A'), fake('B')];
