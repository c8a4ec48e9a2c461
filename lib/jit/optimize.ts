// lib/jit/optimize.ts: traced graph -> graph of kernels, by the passes in their order.

import { checkGraph } from './check.js';
import { debug, debugLevel } from './debug.js';
import type { Graph } from './graph.js';
import { bindConstants } from './passes/bindConstants.js';
import { foldConstants } from './passes/foldConstants.js';
import { fuseAttention } from './passes/fuseAttention.js';
import { fuseElementwise } from './passes/fuseElementwise.js';
import { fuseEpilogue } from './passes/fuseEpilogue.js';
import { fuseNorm } from './passes/fuseNorm.js';
import { fuseSoftmax } from './passes/fuseSoftmax.js';
import { hoistInvariant } from './passes/hoistInvariant.js';
import { joinLinears } from './passes/joinLinears.js';
import { mergeEqual } from './passes/mergeEqual.js';
import { ownFills } from './passes/ownFills.js';
import { removeDead } from './passes/removeDead.js';
import type { Pass } from './passes/rewrite.js';
import { selectEarly } from './passes/selectEarly.js';
import { print } from './print.js';

/** A pass that leaves nothing behind that only what it replaced has read: later passes count readers. */
function cleaned(name: string, run: (graph: Graph) => Graph): Pass {
  return { name, run: (graph) => removeDead(run(graph)) };
}

/** All passes, in the order in which they run. The last group needs the kernel level that fuseElementwise makes. */
export const passes: readonly Pass[] = [
  { name: 'removeDead', run: removeDead },
  cleaned('mergeEqual', mergeEqual),
  cleaned('hoistInvariant', hoistInvariant),
  cleaned('foldConstants', foldConstants),
  { name: 'bindConstants', run: bindConstants },
  cleaned('fuseNorm', fuseNorm),
  cleaned('fuseSoftmax', fuseSoftmax),
  cleaned('fuseAttention', fuseAttention),
  cleaned('selectEarly', selectEarly),
  cleaned('fuseElementwise', fuseElementwise),
  cleaned('fuseEpilogue', fuseEpilogue),
  cleaned('joinLinears', joinLinears),
  cleaned('ownFills', ownFills),
];

/** Passes without which a graph cannot run on every target. */
const required: ReadonlySet<string> = new Set(['fuseElementwise']);

export interface OptimizeOptions {
  /** Stop after this pass. */
  readonly after?: string | undefined;
  /** Run only the passes that a target cannot do without. */
  readonly fuse?: boolean | undefined;
  /** Verify the graph after each pass; always with RT_DEBUG=3. */
  readonly check?: boolean | undefined;
}

/**
 * Runs the passes.
 * @throws RangeError if there is no pass named `after` (lists them)
 */
export function optimize(graph: Graph, { after, fuse = true, check = false }: OptimizeOptions = {}): Graph {
  if (after !== undefined && !passes.some((pass) => pass.name === after))
    throw new RangeError(
      `pass: expected one of ${passes.map((pass) => pass.name).join(', ')}, received ${after}`,
    );
  const checked = check || debugLevel() >= 3;
  if (checked) checkGraph(graph);
  let held = graph;
  for (const pass of passes) {
    if (!fuse && !required.has(pass.name)) continue;
    held = pass.run(held);
    if (checked) checkGraph(held, pass.name);
    debug(3, () => `--- after ${pass.name}\n${print(held)}`);
    if (pass.name === after) break;
  }
  return held;
}
