// What compiled programs can read of a target's memory at most: the roof of notebook 04's figures.

import * as tf from '@tensorflow/tfjs-core';
import { jit, type TargetName } from '../jit/jit.js';

/**
 * Measures how fast a target reads its memory: a CPU's with all threads, a GPU's in one kernel.
 * @returns 10^9 bytes a second; null of a target that has no such measure
 */
export async function measureMemoryGBps(target: TargetName): Promise<number | null> {
  const probe = jit((x: tf.Tensor) => tf.add(x, 1), { target, name: 'probe' }); // any program: profiling measures
  const input = tf.tensor1d([0]);
  try {
    await probe.profile(input);
    return probe.explain().bandwidthGBps;
  } finally {
    input.dispose();
    probe.dispose();
  }
}
