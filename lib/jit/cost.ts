// lib/jit/cost.ts: a Node -> the arithmetic it does and the bytes it has to move, from its shapes alone.

import { sizeOf } from '../tensor.js';
import type { Graph, Program, StructuredNode, Value, WeightFormat } from './graph.js';
import { valueBytes } from './steps.js';

export interface Cost {
  readonly flops: number;
  /** Read and written once each; a cache only as far as it is full is not known here: counted whole. */
  readonly bytes: number;
}

function valuesBytes(values: readonly Value[]): number {
  return values.reduce((sum, value) => sum + valueBytes(value), 0);
}

/** Operations of a program: inputs and literals cost nothing. */
function programFlops(program: Program): number {
  return program.filter((instruction) => 'args' in instruction).length;
}

/** Bytes of a Weight of this format, its scales included. */
export function formatBytes(format: WeightFormat): number {
  const elements = sizeOf(format.shape);
  if (format.kind === 'float') return elements * (format.dtype === 'f32' ? 4 : 2);
  const { granularity } = format;
  const packed = format.kind === 'int8' ? elements : Math.ceil(elements / 2);
  if (granularity.per === 'tensor') return packed + 4;
  const channels = format.shape[granularity.axis] ?? 1;
  const along = elements / Math.max(1, channels);
  const groups = granularity.per === 'group' ? Math.ceil(along / granularity.size) : 1;
  return packed + 4 * channels * groups;
}

/** Cost of one run of a Node; of a Scan, all its rounds. */
export function costOf(node: StructuredNode, graph: Graph): Cost {
  const moved = valuesBytes(node.inputs) + valuesBytes(node.outputs);
  const [output] = node.outputs;
  const elements = output ? sizeOf(output.shape) : 0;
  switch (node.op) {
    case 'Elementwise':
      return { flops: elements * programFlops(node.attrs.program), bytes: moved };
    case 'BatchMatMul': {
      const [a] = node.inputs as [Value];
      const depth = a.shape.at(node.attrs.transposeA ? -2 : -1)!;
      return { flops: elements * (2 * depth + programFlops(node.attrs.epilogue.program)), bytes: moved };
    }
    case 'Linear':
      return linearCost(node, graph, moved);
    case 'Embed':
      return { flops: 0, bytes: valuesBytes(node.inputs) + 2 * valueBytes(output!) };
    case 'Norm':
      return { flops: 8 * elements, bytes: moved };
    case 'Softmax':
    case 'Rotary':
      return { flops: 6 * elements, bytes: moved };
    case 'CacheAppend':
      return { flops: 0, bytes: 2 * valueBytes(node.inputs[1]!) };
    case 'CachedAttention':
    case 'Attention': {
      const [q, keys] = node.inputs as [Value, Value];
      return { flops: 4 * sizeOf(q.shape) * keys.shape.at(-2)!, bytes: moved };
    }
    case 'Reduce':
    case 'Cumulative':
      return { flops: sizeOf(node.inputs[0]!.shape), bytes: moved };
    case 'Scan': {
      const round = graphCost(node.attrs.body, graph);
      return { flops: node.attrs.length * round.flops, bytes: node.attrs.length * round.bytes };
    }
    default:
      return { flops: 0, bytes: moved };
  }
}

function linearCost(node: StructuredNode<'Linear'>, graph: Graph, moved: number): Cost {
  const [x] = node.inputs as [Value];
  const inDim = x.shape.at(-1)!;
  const rows = sizeOf(x.shape.slice(0, -1));
  let weightBytes = 0;
  let flops = 0;
  for (const { weight, transposed, columns } of node.attrs.products) {
    const { format } = graph.weights[weight]!;
    const outDim = format.shape[transposed ? 0 : 1]!;
    const width = columns ? columns.end - columns.begin : outDim;
    weightBytes += (formatBytes(format) * width) / Math.max(1, outDim);
    flops += 2 * rows * inDim * width;
  }
  for (const [i, { program }] of node.attrs.epilogues.entries())
    flops += sizeOf(node.outputs[i]!.shape) * programFlops(program);
  return { flops, bytes: moved + weightBytes };
}

function graphCost(level: Graph, root: Graph): Cost {
  return level.nodes.reduce(
    (sum, node) => {
      if (node.op === 'Reshape' || node.op === 'Constant' || node.op === 'WeightTensor') return sum;
      const cost = costOf(node as StructuredNode, root);
      return { flops: sum.flops + cost.flops, bytes: sum.bytes + cost.bytes };
    },
    { flops: 0, bytes: 0 },
  );
}
