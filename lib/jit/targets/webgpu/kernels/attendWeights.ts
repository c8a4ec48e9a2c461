// lib/jit/targets/webgpu/kernels/attendWeights.ts: attention's scores in shared memory -> the weights that values are mixed
// by: e to the score, less the largest one's. Where subgroups allow it, each looks for the largest by itself and makes the
// weights of its own values, without a barrier.

import type { ArrayRef, KernelBuilder } from '../../../kernels/builder.js';
import type { Expr } from '../../../kernels/expression.js';
import { literal } from '../../../kernels/expression.js';
import type { Features } from '../../../kernels/kernel.js';
import { exp } from '../../../kernels/math.js';
import { reduceWorkgroup } from '../../../kernels/reduce.js';
import type { AttendProblem, AttendSpec } from './attendShape.js';
import { paddedChunk } from './attendShape.js';
import { hasKnownSubgroups } from './lanes.js';
import { headOf, joinHeads, type Weigh } from './mix.js';

interface AttendWeights {
  /** The largest score of each head. */
  readonly most: readonly Expr[];
  readonly weigh: Weigh;
}

/** e^x as precisely as a problem asks for. */
export function attendExp({ roughExp }: Pick<AttendProblem, 'roughExp'>, x: Expr): Expr {
  return roughExp ? x.unary('exp') : exp(x);
}

/** @param largest of the scores that this thread made, by head */
export function attendWeights(
  k: KernelBuilder,
  features: Features,
  spec: AttendSpec,
  scores: ArrayRef,
  length: Expr,
  largest: readonly Expr[],
): AttendWeights {
  const vectors = spec.headDim / 4;
  const isApart = hasKnownSubgroups(features) && features.minSubgroupSize % vectors === 0;
  k.barrier();
  return isApart
    ? weightsBySubgroup(k, features, spec, scores, length)
    : weightsInMemory(k, features, spec, scores, length, largest);
}

/** All threads make all weights together, in the scores' place. */
function weightsInMemory(
  k: KernelBuilder,
  features: Features,
  spec: AttendSpec,
  scores: ArrayRef,
  length: Expr,
  largest: readonly Expr[],
): AttendWeights {
  const most = reduceWorkgroup(k, features, 'max', ...largest).map((one) => k.let('most', one));
  const visit = (position: Expr): void => {
    const score = k.let('score', scores.at(position));
    const own = most.map((one, head) => {
      const weight = attendExp(spec, headOf(score, head).sub(one));
      return k.let('own', position.lt(length).select(weight, 0));
    });
    k.store(scores, position, joinHeads(own));
  };
  k.for('position', k.localIndex, literal('u32', paddedChunk(spec)), visit, k.threads);
  k.barrier();
  return { most, weigh: (positions) => positions.map((position) => k.let('weight', scores.at(position))) };
}

/** Threads with the same positions are of one subgroup: each makes one of their weights and hears of the others. */
function weightsBySubgroup(
  k: KernelBuilder,
  { minSubgroupSize: size }: Features,
  spec: AttendSpec,
  scores: ArrayRef,
  length: Expr,
): AttendWeights {
  const { together, headDim, chunk } = spec;
  const vectors = headDim / 4;
  const inSubgroup = k.builtin('subgroupLane');
  const last = paddedChunk(spec) - 1;
  const none = literal('f32', Number.NEGATIVE_INFINITY);
  const held = Array.from({ length: together }, () => k.variable('largest', none));
  const look = (position: Expr): void => {
    const score = k.let('score', scores.at(position.min(last)));
    for (const [head, { value }] of held.entries())
      k.set(held[head]!, value.max(position.lt(length).select(headOf(score, head), none)));
  };
  const steps = Math.ceil(chunk / size);
  if (steps <= 16) for (let i = 0; i < steps; i++) look(k.let('position', inSubgroup.add(i * size)));
  else k.for('position', inSubgroup, length, look, size);
  const most = held.map(({ value }) => k.let('most', value.subgroup('subgroupMax')));
  const weigh: Weigh = (positions, stride) => {
    const turn = k.let('turn', inSubgroup.rem(vectors));
    const first = k.let('first', inSubgroup.sub(turn));
    const own = Array.from({ length: Math.ceil(positions.length / vectors) }, (_, i) => {
      const position = k.let('position', positions[0].add(turn.add(i * vectors).mul(stride)));
      const score = k.let('score', scores.at(position.min(last)));
      const isInside = k.let('isInside', position.lt(length));
      return most.map((one, head) =>
        k.let('own', isInside.select(attendExp(spec, headOf(score, head).sub(one)), 0)),
      );
    });
    return positions.map((_, u) => {
      const from = first.add(u % vectors);
      const weights = own[Math.floor(u / vectors)]!;
      return joinHeads(weights.map((weight) => k.let('weight', weight.subgroup('subgroupShuffle', from))));
    });
  };
  return { most, weigh };
}
