// lib/jit/targets/wasm/kernels.ts: a step of the plan -> its kernel, by the operation's name.

import type { CopyStep, KernelStep, Plan } from '../../steps.js';
import { emitAttention, emitCachedAttention } from './attention.js';
import { emitCacheAppend, emitRotary } from './cache.js';
import type { Kernel, KernelContext } from './context.js';
import { emitElementwise } from './elementwise.js';
import { emitLinear } from './linear.js';
import { emitBatchMatMul } from './matmul.js';
import { emitConcat, emitCopy, emitEmbed, emitGather, emitGatherNd, emitScatterNd } from './moves.js';
import { emitCumulative, emitReduce } from './reduce.js';
import { emitNorm, emitSoftmax } from './rows.js';
import { emitTopK } from './topk.js';

type Emitter = (context: KernelContext, step: KernelStep, weights: Plan['weights']) => Kernel;

const emitters: { readonly [Name in KernelStep['node']['op']]: Emitter } = {
  Attention: emitAttention,
  BatchMatMul: emitBatchMatMul,
  CacheAppend: emitCacheAppend,
  CachedAttention: emitCachedAttention,
  Concat: emitConcat,
  Cumulative: emitCumulative,
  Elementwise: emitElementwise,
  Embed: emitEmbed,
  Gather: emitGather,
  GatherNd: emitGatherNd,
  Linear: emitLinear,
  Norm: emitNorm,
  Reduce: emitReduce,
  Rotary: emitRotary,
  ScatterNd: emitScatterNd,
  Softmax: emitSoftmax,
  TopK: emitTopK,
};

export function emitStep(
  context: KernelContext,
  step: KernelStep | CopyStep,
  weights: Plan['weights'],
): Kernel {
  return step.kind === 'copy' ? emitCopy(context, step) : emitters[step.node.op](context, step, weights);
}
