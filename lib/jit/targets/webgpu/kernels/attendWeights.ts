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

/** Scores of a chunk, which threads have just stored. */
interface Scores {
  readonly k: KernelBuilder;
  readonly features: Features;
  readonly spec: AttendSpec;
  readonly scores: ArrayRef; // elements of spec.together numbers
  /** Positions that have one. */
  readonly length: Expr;
  /** The largest that this thread made, by head. */
  readonly largest: readonly Expr[];
}

export function attendWeights(stored: Scores): AttendWeights {
  const { k, features, spec } = stored;
  const isApart = hasKnownSubgroups(features) && features.minSubgroupSize % (spec.headDim / 4) === 0;
  k.barrier();
  return isApart ? weightsBySubgroup(stored) : weightsInMemory(stored);
}

/** A position's weights, by head: 0 past the end. */
function weightsOf({ k, spec }: Scores, score: Expr, isInside: Expr, most: readonly Expr[]): Expr[] {
  return most.map((one, head) =>
    k.let('own', isInside.select(attendExp(spec, headOf(score, head).sub(one)), 0)),
  );
}

/** All threads make all weights together, in the scores' place. */
function weightsInMemory(stored: Scores): AttendWeights {
  const { k, features, spec, scores, length, largest } = stored;
  const most = reduceWorkgroup(k, features, 'max', ...largest).map((one) => k.let('most', one));
  const visit = (position: Expr): void => {
    const score = k.let('score', scores.at(position));
    k.store(scores, position, joinHeads(weightsOf(stored, score, position.lt(length), most)));
  };
  k.for('position', k.localIndex, literal('u32', paddedChunk(spec)), visit, k.threads);
  k.barrier();
  return { most, weigh: (positions) => positions.map((position) => k.let('weight', scores.at(position))) };
}

/** Threads with the same positions are of one subgroup: each makes one of their weights and hears of the others. */
function weightsBySubgroup(stored: Scores): AttendWeights {
  const { k, features, spec, scores, length } = stored;
  const size = features.minSubgroupSize;
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
      return weightsOf(stored, score, k.let('isInside', position.lt(length)), most);
    });
    return positions.map((_, u) => {
      const from = first.add(u % vectors);
      const weights = own[Math.floor(u / vectors)]!;
      return joinHeads(weights.map((weight) => k.let('weight', weight.subgroup('subgroupShuffle', from))));
    });
  };
  return { most, weigh };
}
