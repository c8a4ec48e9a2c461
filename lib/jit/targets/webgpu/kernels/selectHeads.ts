// lib/jit/targets/webgpu/kernels/selectHeads.ts: a change of layout with what reads it alone (rotary positions, the write
// to a cache) as one dispatch: nothing is stored in between.

import { isMove } from '../../../passes/groupKernels.js';
import { moveHeads } from '../generic/heads.js';
import type { Selector } from '../select.js';
import { isOp, membersFrom } from './group.js';

/** A group of passes/groupKernels.ts that begins with a change of layout. */
export const selectHeads: Selector = (steps, at, context) => {
  const members = membersFrom(steps, at);
  const [move, ...rest] = members;
  if (members.length < 2 || !isOp(move, 'Elementwise') || !isMove(move.node)) return undefined;
  const rotary = isOp(rest[0], 'Rotary') ? rest[0] : null;
  const append = isOp(rest[rotary ? 1 : 0], 'CacheAppend') ? rest[rotary ? 1 : 0]! : null;
  if (1 + Number(rotary !== null) + Number(append !== null) !== members.length) return undefined;
  const input = { operand: context.input(move, 0), view: move.node.attrs.views[0]! };
  const output = context.output(append ?? rotary!);
  const { shape } = move.node.outputs[0]!;
  return { dispatches: moveHeads({ shape, input, rotary, append, output }, context), steps: members.length };
};
