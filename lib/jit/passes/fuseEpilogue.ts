// lib/jit/passes/fuseEpilogue.ts: graph -> graph, at the kernel level. What is done to a product element by element
// (bias, GELU, residual, silu(gate) * up) moves into the Linear or BatchMatMul that makes it; parts of a product that go
// different ways (Q, K, V of one kernel) become outputs of their own.

import { sizeOf } from '../../tensor.js';
import { sameShape } from '../build.js';
import type {
  Epilogue,
  Graph,
  Instruction,
  LinearProduct,
  Node,
  Program,
  StructuredNode,
  Value,
  View,
} from '../graph.js';
import { newValue } from '../graph.js';
import type { Links } from './rewrite.js';
import { linksOf, onEveryLevel, sortNodes } from './rewrite.js';
import { isPlain, reshapeThrough } from './views.js';

type Product = StructuredNode<'Linear' | 'BatchMatMul'>;
type Elementwise = StructuredNode<'Elementwise'>;

// More operands than this would crowd the product's accumulators out of the registers.
const maxOperands = 6;
const columnMultiple = 16; // panels of Weights: see LinearProduct.columns

/** Moves Elementwise Nodes into the products that they read. */
export function fuseEpilogue(graph: Graph): Graph {
  return onEveryLevel(graph, (level) => {
    // From the last to the first: of two products in one sum, the later one has both at hand.
    const whole = level.nodes.filter(isBareProduct).reverse().reduce(fuseReader, level);
    return whole.nodes.filter(isSingleLinear).reduce(fuseParts, whole);
  });
}

function isBareProduct(node: Node): node is Product {
  if (node.op === 'BatchMatMul') return node.attrs.epilogue.program.length === 1;
  return isSingleLinear(node) && node.attrs.epilogues[0]!.program.length === 1;
}

function isSingleLinear(node: Node): node is StructuredNode<'Linear'> {
  return node.op === 'Linear' && node.attrs.products.length === 1;
}

/** One reader of a product: which of its inputs the product is. */
interface Reader {
  readonly node: Elementwise;
  readonly input: number;
}

/** The graph with a product and its one reader fused, where that can be done. */
function fuseReader(graph: Graph, product: Product): Graph {
  if (!graph.nodes.includes(product)) return graph; // it went into another one as a gate
  const links = linksOf(graph);
  const [reader, ...others] = readersOf(product.outputs[0]!, links) ?? [];
  const fused = reader && others.length === 0 ? fuseWhole(product, reader, links) : undefined;
  return (fused && sortNodes(replaced(graph, fused))) ?? graph;
}

/** The graph with the parts of a product written to places of their own, where that can be done. */
function fuseParts(graph: Graph, product: StructuredNode<'Linear'>): Graph {
  const readers = readersOf(product.outputs[0]!, linksOf(graph)) ?? [];
  const fused = readers.length > 0 ? fuseColumns(product, readers) : undefined;
  return (fused && sortNodes(replaced(graph, fused))) ?? graph;
}

/** Elementwise Nodes that read a value, through Reshapes; undefined if anything else reads it. */
function readersOf(value: Value, links: Links): Reader[] | undefined {
  if (links.isOutput(value)) return undefined;
  const readers: Reader[] = [];
  for (const node of links.users(value)) {
    if (node.op === 'Reshape') {
      const further = readersOf(node.outputs[0]!, links);
      if (!further) return undefined;
      readers.push(...further);
    } else if (node.op === 'Elementwise') {
      const input = node.inputs.indexOf(value);
      if (node.inputs.indexOf(value, input + 1) >= 0) return undefined; // read in two ways
      readers.push({ node, input });
    } else return undefined;
  }
  return new Set(readers.map((reader) => reader.node)).size === readers.length ? readers : undefined;
}

/** Nodes to take out, and what comes in their place. */
interface Replacement {
  readonly out: readonly Node[];
  readonly nodes: readonly Node[];
}

function replaced(graph: Graph, { out, nodes }: Replacement): Graph {
  const gone = new Set(out);
  const last = graph.nodes.findLastIndex((node) => gone.has(node));
  const kept = graph.nodes.flatMap((node, at) => (at === last ? nodes : gone.has(node) ? [] : [node]));
  return { ...graph, nodes: kept };
}

/** All of a product goes through one expression of the same size. */
function fuseWhole(product: Product, { node, input }: Reader, links: Links): Replacement | undefined {
  const [own] = product.outputs as [Value];
  const [result] = node.outputs as [Value];
  const isWhole =
    isPlain(node.attrs.views[input]!, result.shape, sizeOf(own.shape)) && result.dtype === 'f32';
  if (!isWhole) return undefined;
  const gate = product.op === 'Linear' ? gateOf(product, node, input, links) : undefined;
  const taken = gate ? [input, gate.input] : [input];
  const epilogue = epilogueOf(node, taken, own.shape, product.inputs.length);
  if (!epilogue) return undefined;
  const output = sameShape(own.shape, result.shape) ? result : newValue('f32', own.shape);
  const naming = output === result ? [] : [nameNode(output, result)];
  const inputs = [...product.inputs, ...operandsOf(node, taken)];
  const fused = withEpilogue(product, gate?.product, epilogue, inputs, output);
  return { out: [product, node, ...(gate ? [gate.product] : [])], nodes: [fused, ...naming] };
}

function withEpilogue(
  product: Product,
  gate: StructuredNode<'Linear'> | undefined,
  epilogue: Epilogue,
  inputs: readonly Value[],
  output: Value,
): Product {
  if (product.op === 'BatchMatMul')
    return { ...product, inputs, outputs: [output], attrs: { ...product.attrs, epilogue } };
  const products = [...product.attrs.products, ...(gate ? gate.attrs.products : [])];
  return { ...product, inputs, outputs: [output], attrs: { products, epilogues: [epilogue] } };
}

/** Another product of the same x that only this expression reads, element for element: silu(gate) * up. */
function gateOf(
  product: StructuredNode<'Linear'>,
  node: Elementwise,
  input: number,
  links: Links,
): { product: StructuredNode<'Linear'>; input: number } | undefined {
  for (const [at, value] of node.inputs.entries()) {
    const other = bareLinear(value, links);
    if (at === input || !other || other === product || other.inputs[0] !== product.inputs[0]) continue;
    const [result] = node.outputs as [Value];
    const [own] = other.outputs as [Value];
    const isWhole = isPlain(node.attrs.views[at]!, result.shape, sizeOf(own.shape));
    const sameKind = sameShape(own.shape, product.outputs[0]!.shape);
    if (isWhole && sameKind && readersOf(own, links)?.length === 1) return { product: other, input: at };
  }
  return undefined;
}

function bareLinear(value: Value, links: Links): StructuredNode<'Linear'> | undefined {
  const node = links.producer(value);
  if (node?.op === 'Reshape') return bareLinear(node.inputs[0]!, links);
  return node?.op === 'Linear' && isBareProduct(node) ? node : undefined;
}

/** Several expressions each read some columns of a product: each becomes an output of its own. */
function fuseColumns(product: StructuredNode<'Linear'>, readers: readonly Reader[]): Replacement | undefined {
  const [own] = product.outputs as [Value];
  const width = own.shape.at(-1)!;
  const rows = sizeOf(own.shape.slice(0, -1));
  const products: LinearProduct[] = [];
  const epilogues: Epilogue[] = [];
  const outputs: Value[] = [];
  const naming: Node[] = [];
  const inputs = [...product.inputs];
  for (const { node, input } of readers) {
    const [result] = node.outputs as [Value];
    const part = columnsOf(node.attrs.views[input]!, result, rows, width);
    const overlaps = products.some(
      ({ columns }) => part && part.begin < columns!.end && columns!.begin < part.end,
    );
    if (!part || overlaps || result.dtype !== 'f32') return undefined;
    const shape = [...own.shape.slice(0, -1), part.end - part.begin];
    const after = epilogueOf(node, [input], shape, inputs.length);
    if (!after) return undefined;
    const epilogue = composed(columnsOfEpilogue(product.attrs.epilogues[0]!, part.begin), after);
    epilogues.push({ ...epilogue, products: [products.length] });
    products.push({ ...product.attrs.products[0]!, columns: part });
    inputs.push(...operandsOf(node, [input]));
    const output = sameShape(shape, result.shape) ? result : newValue('f32', shape);
    outputs.push(output);
    if (output !== result) naming.push(nameNode(output, result));
  }
  const fused: Node = { ...product, inputs, outputs, attrs: { products, epilogues } };
  return { out: [product, ...readers.map((reader) => reader.node)], nodes: [fused, ...naming] };
}

/** An epilogue for the columns from `begin` on. */
function columnsOfEpilogue(epilogue: Epilogue, begin: number): Epilogue {
  const operands = epilogue.operands.map(({ input, view }) => {
    return { input, view: { ...view, offset: view.offset + begin * view.strides.at(-1)! } };
  });
  return { ...epilogue, operands };
}

/** One epilogue after another: the second one's product is the first one's result. */
function composed(first: Epilogue, second: Epilogue): Epilogue {
  const operands = first.operands.length;
  const shift = first.program.length;
  const program = second.program.map((instruction): Instruction => {
    if (instruction.op === 'Input') {
      // Its own product's register is that of the first program's last step.
      if (instruction.index > 0) return { ...instruction, index: instruction.index + operands };
      return { op: 'Input', index: -1, dtype: 'f32' };
    }
    return 'args' in instruction
      ? { ...instruction, args: instruction.args.map((arg) => arg + shift) }
      : instruction;
  });
  return {
    products: first.products,
    operands: [...first.operands, ...second.operands],
    program: withoutPlaceholder([...first.program, ...program], shift - 1),
  };
}

/** Removes the step that stands for the first program's result, and reads that result instead. */
function withoutPlaceholder(program: Program, result: number): Program {
  const at = program.findIndex((instruction) => instruction.op === 'Input' && instruction.index === -1);
  if (at < 0) return program;
  const place = (register: number): number =>
    register === at ? result : register > at ? register - 1 : register;
  const rest = program.flatMap((instruction, i): Instruction[] => {
    if (i === at) return [];
    return ['args' in instruction ? { ...instruction, args: instruction.args.map(place) } : instruction];
  });
  return rest;
}

/** The columns that a view reads of [rows, width], if it reads those of every row in order. */
function columnsOf(
  view: View,
  result: Value,
  rows: number,
  width: number,
): { begin: number; end: number } | undefined {
  if (rows === 0) return undefined;
  const count = sizeOf(result.shape) / rows;
  const matrix = Number.isInteger(count) ? reshapeThrough(view, result.shape, [rows, count]) : undefined;
  if (matrix?.strides[1] !== 1 || (rows > 1 && matrix.strides[0] !== width)) return undefined;
  const begin = matrix.offset;
  const end = begin + count;
  const aligned = begin % columnMultiple === 0 && end % columnMultiple === 0;
  return aligned && end <= width && begin < width ? { begin, end } : undefined;
}

/** Inputs of an expression but for the products among them. */
function operandsOf(node: Elementwise, taken: readonly number[]): Value[] {
  return node.inputs.filter((_, at) => !taken.includes(at));
}

/**
 * The expression as an epilogue over `shape`.
 * @param taken inputs that are products, in the order of the products
 * @param firstOperand index that its first operand will have among the inputs of the fused Node
 * @returns undefined if an operand cannot be read in that shape, or there are too many
 */
function epilogueOf(
  node: Elementwise,
  taken: readonly number[],
  shape: readonly number[],
  firstOperand: number,
): Epilogue | undefined {
  const [result] = node.outputs as [Value];
  const rest = node.inputs.map((_, at) => at).filter((at) => !taken.includes(at));
  if (rest.length > maxOperands) return undefined;
  const operands: { input: number; view: View }[] = [];
  for (const at of rest) {
    const view = reshapeThrough(node.attrs.views[at]!, result.shape, shape);
    if (!view) return undefined;
    operands.push({ input: firstOperand + operands.length, view });
  }
  const order = [...taken, ...rest];
  const program: Program = node.attrs.program.map((instruction) =>
    instruction.op === 'Input' ? { ...instruction, index: order.indexOf(instruction.index) } : instruction,
  );
  return { products: taken.map((_, i) => i), operands, program };
}

function nameNode(from: Value, to: Value): Node {
  return { op: 'Reshape', inputs: [from], outputs: [to], attrs: {} };
}
