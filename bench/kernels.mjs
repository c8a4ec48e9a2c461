// bench/kernels.mjs: the matrix-vector products of one token of GPT-2 124M, compiled, by weight type: milliseconds, GB/s,
// and the share of the read bandwidth that was measured in the same run. Built library in, text out.
//
//   npm run build && node bench/kernels.mjs [types, such as f32,int8,int4] [rounds]

import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { bind, closeTarget, jit, scan, unbind } from 'response-time/jit';
import { measureReadGBps } from 'response-time/jit/targets/wasm/bandwidth';
import { linear, unembed } from 'response-time/ops';
import { quantizeParams } from 'response-time/quantize';
import { floatWeight, weightBytes, weightEntries } from 'response-time/tensor';

const DIM = 768;
const LAYERS = 12;
const VOCAB = 50257;
const WARM_UP = 100; // tokens until V8's optimizing tier has taken over, which compiles beside two busy threads

/** Uniform numbers of about the size of trained weights. */
function randomWeight(shape) {
  let state = 1;
  const values = Float32Array.from({ length: shape[0] * shape[1] }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state / 2 ** 31) * 0.05;
  });
  return floatWeight(values, shape);
}

function randomParams() {
  const layer = () => ({
    qkv: { kernel: randomWeight([DIM, 3 * DIM]) },
    out: { kernel: randomWeight([DIM, DIM]) },
    up: { kernel: randomWeight([DIM, 4 * DIM]) },
    down: { kernel: randomWeight([4 * DIM, DIM]) },
  });
  return { layers: Array.from({ length: LAYERS }, layer), head: { embedding: randomWeight([VOCAB, DIM]) } };
}

/** All products of a token, one after another; the sizes of the numbers are kept in bounds. */
function token(params, x) {
  let hidden = x;
  for (const { qkv, out, up, down } of params.layers) {
    const [q] = tf.split(linear(hidden, qkv.kernel), 3, -1);
    hidden = linear(linear(linear(q, out.kernel), up.kernel), down.kernel);
    hidden = tf.div(hidden, tf.add(tf.max(tf.abs(hidden)), 1e-6));
  }
  return { hidden, best: tf.argMax(unembed(hidden, params.head.embedding), -1) };
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

async function measure(params, rounds) {
  const stamps = [];
  const run = jit((p, x) =>
    scan(
      (c) => {
        const { hidden, best } = token(p, c);
        return { carry: hidden, output: best };
      },
      x,
      WARM_UP + rounds,
    ),
  );
  const result = await run.run([params, tf.ones([1, DIM])], {
    onRound: () => stamps.push(performance.now()),
  });
  const { threads } = run.report();
  tf.dispose(result);
  run.dispose();
  const gaps = stamps.slice(1).map((stamp, i) => stamp - stamps[i]);
  return { ms: median(gaps.slice(WARM_UP - 1)), threads };
}

await tf.setBackend('cpu');
const types = (process.argv[2] ?? 'f32,int8,int8-group,int4').split(',');
const rounds = Number(process.argv[3] ?? 53);
const readGBps = await measureReadGBps();
console.log(
  `read bandwidth: ${readGBps.toFixed(1)} GB/s (all threads), ${(await measureReadGBps(1)).toFixed(1)} (one)`,
);
console.log('type        ms a token   GB/s   share of read   threads');
for (const name of types) {
  const floats = randomParams();
  const params = name === 'f32' ? floats : quantizeParams(floats, { name, groupSize: 32 });
  const bytes = [...weightEntries(params)].reduce((sum, [, weight]) => sum + weightBytes(weight), 0);
  await bind(params, 'wasm');
  const { ms, threads } = await measure(params, rounds);
  await unbind(params, 'wasm');
  const gbps = bytes / ms / 1e6;
  const share = `${((100 * gbps) / readGBps).toFixed(0)} %`;
  console.log(
    `${name.padEnd(11)} ${ms.toFixed(2).padStart(10)} ${gbps.toFixed(1).padStart(6)} ${share.padStart(15)} ${String(threads).padStart(9)}`,
  );
}
await closeTarget('wasm');
