// lib/jit/inPlace.ts: which operations write over an input instead of making a new output, and which values are no more
// than memory full of one number.

import type { Node, Value } from './graph.js';

/** The input whose memory an output takes over, if the operation works in place. */
export function updatedInput(node: Node, output: number): Value | undefined {
  if (node.op === 'Scan') return output < node.attrs.carry ? node.inputs[output] : undefined;
  return node.op === 'CacheAppend' || node.op === 'ScatterNd' ? node.inputs[0] : undefined;
}

/** The number that a Node fills its output with; undefined if it does anything else. */
export function filledWith(node: Node): number | undefined {
  if (node.op !== 'Elementwise' || node.attrs.program.length !== 1) return undefined;
  const [only] = node.attrs.program;
  return only!.op === 'Literal' ? only!.value : undefined;
}
