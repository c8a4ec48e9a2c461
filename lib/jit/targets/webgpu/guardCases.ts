// lib/jit/targets/webgpu/guardCases.ts: a plan -> small graphs that use the same kinds of kernels, each with its inputs: an
// operation, the types and the Weight's format make a kind, shapes do not.

import { sizeOf, type Weight } from '../../../tensor.js';
import type {
  Attributes,
  ElementType,
  ElementValues,
  Graph,
  Instruction,
  Program,
  StructuredNode,
  Value,
  WeightFormat,
} from '../../graph.js';
import { broadcastView, formatOf, newValue, plainEpilogue } from '../../graph.js';
import type { KernelStep, Plan, Step } from '../../steps.js';

/** A graph to run on the adapter and on the interpreter. */
export interface GuardCase {
  /** What was run before need not be run again. */
  readonly kind: string;
  /** Products one behind another, whose errors come together; default 1. */
  readonly stages?: number;
  readonly graph: Graph;
  readonly inputs: readonly ElementValues[];
}

/** Cases for all kinds of kernels in a plan, each kind once. */
export function guardCases(plan: Plan): GuardCase[] {
  const found = new Map<string, GuardCase>();
  const visit = (step: Step): void => {
    if (step.kind === 'scan') step.steps.forEach(visit);
    if (step.kind !== 'kernel') return;
    for (const made of casesOf(step, plan)) if (!found.has(made.kind)) found.set(made.kind, made);
  };
  plan.steps.forEach(visit);
  return [...found.values()];
}

/** Numbers in -2..2 that look random and are the same each time. */
export function numbers(count: number, seed: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => 2 * Math.sin((i + 1) * 12.9898 * (seed + 1)));
}

function integers(count: number, below: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => (i * 7 + 3) % below);
}

type NodeParts = Pick<StructuredNode, 'op' | 'attrs'>;

/** A graph of one Node over fresh inputs. */
function caseOf(
  kind: string,
  { op, attrs }: NodeParts,
  inputs: readonly (readonly [shape: readonly number[], values: ElementValues, dtype?: ElementType])[],
  outputs: readonly (readonly [dtype: ElementType, shape: readonly number[]])[],
  weight?: Weight,
): GuardCase {
  const values = inputs.map(([shape, given, dtype]) =>
    newValue(dtype ?? (given instanceof Float32Array ? 'f32' : 'i32'), shape),
  );
  const results = outputs.map(([dtype, shape]) => newValue(dtype, shape));
  // The parts belong together by construction, which the union of all Nodes cannot say.
  const node = { op, attrs, inputs: values, outputs: results } as unknown as StructuredNode;
  return { kind, graph: graphOf(values, [node], results, weight), inputs: inputs.map(([, given]) => given) };
}

function graphOf(
  inputs: readonly Value[],
  nodes: readonly StructuredNode[],
  outputs: readonly Value[],
  weight?: Weight,
): Graph {
  const weights = weight ? [{ format: formatOf(weight), path: 'guard', weight }] : [];
  return { inputs, nodes, outputs, weights };
}

/** A Weight of a format, with another shape. */
export function weightLike(format: WeightFormat, shape: readonly [number, number]): Weight {
  const size = sizeOf(shape);
  if (format.kind === 'float') {
    const { dtype } = format;
    const values = numbers(size, 3);
    if (dtype === 'f32') return { kind: 'float', dtype, shape, bytes: new Uint8Array(values.buffer) };
    // Sign and some bits of exponent and fraction: numbers between 2^-7 and 2 in either type.
    const words = Uint16Array.from(integers(size, 8191), (bits, i) =>
      dtype === 'f16' ? ((i & 1) << 15) | (0x2000 + bits) : ((i & 1) << 15) | (0x3c00 + (bits & 0x3ff)),
    );
    return { kind: 'float', dtype, shape, bytes: new Uint8Array(words.buffer) };
  }
  const { granularity } = format;
  const groups = granularity.per === 'group' ? Math.ceil(shape[1 - granularity.axis]! / granularity.size) : 1;
  const count = granularity.per === 'tensor' ? 1 : groups * shape[granularity.axis]!;
  const scales = numbers(count, 5).map((value) => (Math.abs(value) + 0.1) / 64);
  if (format.kind === 'int8')
    return {
      kind: 'int8',
      shape,
      scales,
      granularity,
      bytes: Int8Array.from(integers(size, 255), (v) => v - 127),
    };
  if (granularity.per !== 'group') throw new Error('guard: int4 has a scale a group');
  const bytes = Uint8Array.from(
    integers(Math.ceil(size / 2), 225),
    (v) => ((v % 15) + 1) | ((Math.floor(v / 15) + 1) << 4),
  );
  return { kind: 'int4', shape, scales, granularity, bytes };
}

export function formatText(format: WeightFormat): string {
  if (format.kind === 'float') return format.dtype;
  const { granularity } = format;
  const size = granularity.per === 'group' ? ` ${granularity.size}` : '';
  const axis = granularity.per === 'tensor' ? '' : ` axis ${granularity.axis}`;
  return `${format.kind} ${granularity.per}${size}${axis}`;
}

function casesOf(step: KernelStep, plan: Plan): GuardCase[] {
  const { node } = step;
  switch (node.op) {
    case 'Elementwise':
      return scalarCases(node.attrs.program);
    case 'Linear':
      return [
        ...node.attrs.epilogues.flatMap(({ program }) => scalarCases(program)),
        ...linearCases(node, plan),
      ];
    case 'BatchMatMul':
      return [...scalarCases(node.attrs.epilogue.program), matMulCase(node.attrs)];
    case 'Embed': {
      const { format } = plan.weights[node.attrs.weight]!;
      const ids = Int32Array.of(0, 5, 69, 3);
      const parts: NodeParts = { op: 'Embed', attrs: { weight: 0 } };
      const weight = weightLike(format, [70, 64]);
      return [caseOf(`Embed ${formatText(format)}`, parts, [[[4], ids]], [['f32', [4, 64]]], weight)];
    }
    case 'Reduce': {
      const { kind } = node.attrs;
      const { dtype } = node.inputs[0]!;
      const make = (n: number): GuardCase => {
        const values = dtype === 'f32' ? numbers(3 * n, 2) : integers(3 * n, 11);
        const attrs = { kind, first: 1, last: 1 };
        const result = kind.startsWith('Arg') ? 'i32' : dtype;
        return caseOf(`Reduce ${kind} ${dtype} ${n}`, { op: 'Reduce', attrs }, [[[3, n], values, dtype]], [[result, [3]]]); // biome-ignore format: short
      };
      return [make(20), make(150)];
    }
    case 'Norm': {
      const { kind, scaled, biased } = node.attrs;
      const sides = [scaled, biased].filter(Boolean).map((_, i) => [[96], numbers(96, i + 4)] as const);
      return [
        caseOf(
          `Norm ${kind} ${sides.length}`,
          node,
          [[[3, 96], numbers(288, 1)], ...sides],
          [['f32', [3, 96]]],
        ),
      ];
    }
    case 'Softmax':
      return [caseOf(`Softmax ${node.attrs.log}`, node, [[[3, 90], numbers(270, 1)]], [['f32', [3, 90]]])];
    case 'TopK': {
      const outputs = [['f32', [3, 5]], ['i32', [3, 5]]] as const; // biome-ignore format: short
      return [caseOf('TopK', { op: 'TopK', attrs: { k: 5 } }, [[[3, 90], numbers(270, 1)]], outputs)];
    }
    case 'Cumulative': {
      const attrs = { ...node.attrs, axis: 1 };
      const { kind, exclusive, reverse } = attrs;
      const name = `Cumulative ${kind} ${exclusive} ${reverse}`;
      const values = numbers(36, 1).map((value) => value / 2);
      return [caseOf(name, { op: 'Cumulative', attrs }, [[[2, 9, 2], values]], [['f32', [2, 9, 2]]])];
    }
    case 'Rotary': {
      const frequencies = Array.from({ length: 16 }, (_, i) => 1e4 ** (-i / 16));
      const attrs = { ...node.attrs, inverseFrequencies: frequencies };
      const name = `Rotary ${attrs.layout}`;
      const inputs = [[[2, 2, 1, 32], numbers(128, 1)], [[2, 1], Int32Array.of(7, 4001)]] as const; // biome-ignore format: short
      return [caseOf(name, { op: 'Rotary', attrs }, inputs, [['f32', [2, 2, 1, 32]]])];
    }
    case 'CachedAttention':
      return [1, 5].map((query) => cachedAttentionCase(node.attrs, query));
    case 'Attention':
      return [attentionCase(node.attrs)];
    default:
      return []; // what only moves numbers is told by every model's first token
  }
}

/** Every scalar operation of a program by itself, on numbers of all sizes. */
function scalarCases(program: Program): GuardCase[] {
  return program.flatMap((instruction): GuardCase[] => {
    if (!('args' in instruction)) return [];
    const { op, args, dtype } = instruction;
    const types = args.map((arg) => program[arg]!.dtype);
    const inputs: Program = types.map((type, index): Instruction => ({ op: 'Input', index, dtype: type }));
    const own: Program = [...inputs, { op, args: types.map((_, i) => i), dtype }];
    const count = 64;
    const given = types.map((type, i) => {
      const values = type === 'f32' ? scalarInputs(op, count, i) : integers(count, type === 'bool' ? 2 : 11);
      return [[count], type === 'f32' || i === 0 ? values : values.map((v) => v + (type === 'bool' ? 0 : 1)), type] as const; // biome-ignore format: short
    });
    const view = broadcastView([count], [count]);
    const attrs: Attributes['Elementwise'] = { views: types.map(() => view), program: own };
    return [
      caseOf(`${op} ${types.join(' ')} ${dtype}`, { op: 'Elementwise', attrs }, given, [[dtype, [count]]]),
    ];
  });
}

const positive = new Set(['Log', 'Sqrt', 'Rsqrt', 'Pow', 'Log1p', 'Acosh']);
const small = new Set(['Asin', 'Acos', 'Atanh']);

function scalarInputs(op: string, count: number, seed: number): Float32Array {
  const values = numbers(count, seed);
  if (small.has(op)) return values.map((value) => value / 2.1);
  if (op === 'Acosh') return values.map((value) => Math.abs(value) + 1);
  return positive.has(op) && seed === 0 ? values.map((value) => Math.abs(value) + 0.01) : values;
}

/** A product of one row, of some, and of many, with the norm before it where the plan has one there. */
function linearCases(node: StructuredNode<'Linear'>, plan: Plan): GuardCase[] {
  const { products } = node.attrs;
  const [{ weight, transposed }] = products as [Attributes['Linear']['products'][0]];
  const { format } = plan.weights[weight]!;
  const size = format.kind !== 'float' && format.granularity.per === 'group' ? format.granularity.size : 64;
  const inDim = Math.max(128, 2 * size);
  const outDim = 64;
  const shape = transposed ? ([outDim, inDim] as const) : ([inDim, outDim] as const);
  const made = weightLike(format, shape);
  const rows = node.inputs[0]!.shape.slice(0, -1).reduce((product, axis) => product * axis, 1);
  const norm = normBefore(node, plan);
  const name = `Linear ${formatText(format)} ${transposed ? 'transposed' : ''} ${norm?.attrs.kind ?? ''}`;
  const product = { weight: 0, transposed, columns: null };
  const attrs = { products: [product], epilogues: [plainEpilogue(0)] };
  const own = rows === 1 ? [1] : rows <= 8 ? [rows] : [17];
  return own.map((count) => {
    const x = newValue('f32', [count, inDim]);
    const normal = newValue('f32', [count, inDim]);
    const scale = newValue('f32', [inDim]);
    const y = newValue('f32', [count, outDim]);
    const kind = `${name} ${count}`;
    const values = [numbers(count * inDim, 1), numbers(inDim, 2)];
    if (!norm) {
      const linear = { op: 'Linear', attrs, inputs: [x], outputs: [y] } as const;
      return { kind, graph: graphOf([x], [linear], [y], made), inputs: values.slice(0, 1) };
    }
    const before = { ...norm.attrs, scaled: true, biased: false };
    const nodes: StructuredNode[] = [
      { op: 'Norm', attrs: before, inputs: [x, scale], outputs: [normal] },
      { op: 'Linear', attrs, inputs: [normal], outputs: [y] },
    ];
    return { kind, graph: graphOf([x, scale], nodes, [y], made), inputs: values };
  });
}

function normBefore(linear: StructuredNode<'Linear'>, plan: Plan): StructuredNode<'Norm'> | undefined {
  const levels = [
    plan.graph,
    ...plan.graph.nodes.flatMap((node) => (node.op === 'Scan' ? [node.attrs.body] : [])),
  ];
  for (const { nodes } of levels) {
    const found = nodes.find((node) => node.op === 'Norm' && node.outputs[0] === linear.inputs[0]);
    if (found?.op === 'Norm') return found;
  }
  return undefined;
}

function matMulCase({ transposeA, transposeB }: Attributes['BatchMatMul']): GuardCase {
  const attrs = { transposeA, transposeB, epilogue: plainEpilogue(0) };
  const [a, b] = [transposeA ? [2, 35, 6] : [2, 6, 35], transposeB ? [2, 9, 35] : [2, 35, 9]];
  const inputs = [[a, numbers(420, 1)], [b, numbers(630, 2)]] as const; // biome-ignore format: short
  return caseOf(`BatchMatMul ${transposeA} ${transposeB}`, { op: 'BatchMatMul', attrs }, inputs, [
    ['f32', [2, 6, 9]],
  ]);
}

function cachedAttentionCase({ window }: Attributes['CachedAttention'], query: number): GuardCase {
  const attrs = { scale: 0.2, window: window === null ? null : 40 };
  const inputs = [
    [[2, 4, query, 32], numbers(256 * query, 1)],
    [[2, 2, 96, 32], numbers(12288, 2)],
    [[2, 2, 96, 32], numbers(12288, 3)],
    [[2], Int32Array.of(70, 3)],
    [[2], Int32Array.of(query, 1)],
  ] as const;
  const name = `CachedAttention ${window === null ? 'all' : 'window'} ${query}`;
  return caseOf(name, { op: 'CachedAttention', attrs }, inputs, [['f32', [2, 4, query, 32]]]);
}

function attentionCase({ mask }: Attributes['Attention']): GuardCase {
  const view = mask && broadcastView([7, 7], [2, 7, 7]);
  const sides = mask ? ([[[7, 7], numbers(49, 4)]] as const) : [];
  const inputs = [1, 2, 3].map((seed) => [[2, 7, 16], numbers(224, seed)] as const);
  const parts: NodeParts = { op: 'Attention', attrs: { scale: 0.3, mask: view } };
  return caseOf(`Attention ${mask !== null}`, parts, [...inputs, ...sides], [['f32', [2, 7, 16]]]);
}
