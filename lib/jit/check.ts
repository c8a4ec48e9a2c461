// lib/jit/check.ts: graph -> nothing, or an error that says which Node is wrong. Run after each pass in tests and with
// RT_DEBUG=3, so that a broken pass is named where it breaks.

import { sizeOf } from '../tensor.js';
import type { Epilogue, Graph, Node, Program, StructuredNode, Value } from './graph.js';
import { isScalarNode } from './graph.js';
import type { ValueType } from './infer.js';
import { bracket, broadcastShapes, checkScalarArgs, inferNode, scalarType, viewFits } from './infer.js';
import { print } from './print.js';

/**
 * Verifies a graph: each value written once and before it is read, shapes and types as the operations give them, views
 * inside their operands, Weights in the list, Scans' carries unchanged in shape.
 * @param after what made the graph, for the message
 * @throws Error that names the Node, with the whole graph as text
 */
export function checkGraph(graph: Graph, after = 'trace'): void {
  try {
    checkLevel(graph, graph.weights.length);
  } catch (error) {
    throw new Error(`after ${after}: ${(error as Error).message}\n${print(graph)}`);
  }
}

function checkLevel(graph: Graph, weights: number): void {
  const written = new Set<Value>();
  const write = (value: Value, by: string): void => {
    if (written.has(value)) throw new Error(`${by}: %${value.id} is written twice`);
    written.add(value);
  };
  for (const input of graph.inputs) write(input, 'inputs');
  for (const node of graph.nodes) {
    for (const [i, input] of node.inputs.entries()) {
      if (!written.has(input)) throw new Error(`${node.op}: input ${i} is read before it is written`);
    }
    for (const output of node.outputs) write(output, node.op);
    checkNode(node, weights);
  }
  for (const [i, output] of graph.outputs.entries())
    if (!written.has(output)) throw new Error(`return: output ${i} is not written`);
}

function checkNode(node: Node, weights: number): void {
  if (isScalarNode(node)) {
    const types = node.inputs.map((input) => input.dtype);
    checkScalarArgs(node.op, types);
    const [output] = node.outputs;
    const dtype = scalarType(node.op, types, output!.dtype);
    sameType(node, output!, { dtype, shape: broadcastShapes(...node.inputs.map((input) => input.shape)) });
    return;
  }
  const types = inferNode(node);
  if (types.length !== node.outputs.length)
    throw new Error(`${node.op}: expected ${types.length} outputs, found ${node.outputs.length}`);
  for (const [i, output] of node.outputs.entries()) sameType(node, output, types[i]!);
  checkDetails(node, weights);
}

function sameType(node: Node, value: Value, type: ValueType): void {
  if (value.dtype === type.dtype && bracket(value.shape) === bracket(type.shape)) return;
  const found = `${value.dtype}${bracket(value.shape)}`;
  throw new Error(`${node.op}: expected ${type.dtype}${bracket(type.shape)}, found ${found}`);
}

function checkDetails(node: StructuredNode, weights: number): void {
  switch (node.op) {
    case 'Elementwise': {
      const [output] = node.outputs;
      for (const [i, view] of node.attrs.views.entries()) {
        if (!viewFits(view, output!.shape, sizeOf(node.inputs[i]!.shape)))
          throw new Error(`Elementwise: the view of input ${i} leaves it`);
      }
      if (node.attrs.views.length !== node.inputs.length)
        throw new Error(`Elementwise: ${node.attrs.views.length} views of ${node.inputs.length} inputs`);
      checkProgram(
        node.attrs.program,
        node.inputs.map((input) => input.dtype),
      );
      return;
    }
    case 'BatchMatMul':
      checkEpilogue(node, node.attrs.epilogue, node.outputs[0]!);
      return;
    case 'Linear':
      checkLinear(node, weights);
      return;
    case 'Embed':
    case 'WeightTensor':
      if (node.attrs.weight >= weights)
        throw new Error(`${node.op}: there is no weight ${node.attrs.weight}`);
      return;
    case 'Scan':
      checkScan(node, weights);
      return;
    default:
  }
}

function checkLinear(node: StructuredNode<'Linear'>, weights: number): void {
  const { products, epilogues } = node.attrs;
  const used = epilogues.flatMap((epilogue) => epilogue.products);
  if ([...used].sort((a, b) => a - b).some((product, i) => product !== i) || used.length !== products.length)
    throw new Error(`Linear: each of ${products.length} products is used once, found ${used}`);
  for (const { weight } of products)
    if (weight >= weights) throw new Error(`Linear: there is no weight ${weight}`);
  for (const [i, epilogue] of epilogues.entries()) checkEpilogue(node, epilogue, node.outputs[i]!);
}

function checkEpilogue(node: Node, epilogue: Epilogue, output: Value): void {
  for (const { input, view } of epilogue.operands) {
    if (!viewFits(view, output.shape, sizeOf(node.inputs[input]!.shape)))
      throw new Error(`${node.op}: the epilogue's view of input ${input} leaves it`);
  }
  checkProgram(epilogue.program, [
    ...epilogue.products.map(() => 'f32' as const),
    ...epilogue.operands.map(({ input }) => node.inputs[input]!.dtype),
  ]);
}

function checkProgram(program: Program, inputs: readonly Value['dtype'][]): void {
  for (const [at, instruction] of program.entries()) {
    if (instruction.op === 'Input') {
      if (inputs[instruction.index] !== instruction.dtype)
        throw new Error(
          `program: input ${instruction.index} is ${inputs[instruction.index]}, read as ${instruction.dtype}`,
        );
      continue;
    }
    if (instruction.op === 'Literal') continue;
    if (instruction.args.some((arg) => arg >= at)) throw new Error(`program: step ${at} reads a later one`);
    const types = instruction.args.map((arg) => program[arg]!.dtype);
    checkScalarArgs(instruction.op, types);
    const dtype = scalarType(instruction.op, types, instruction.dtype);
    if (dtype !== instruction.dtype)
      throw new Error(`program: step ${at} gives ${dtype}, says ${instruction.dtype}`);
  }
}

function checkScan(node: StructuredNode<'Scan'>, weights: number): void {
  const { carry, until, body } = node.attrs;
  if (body.inputs.length !== node.inputs.length)
    throw new Error(`Scan: ${node.inputs.length} inputs for a body of ${body.inputs.length}`);
  for (const [i, input] of body.inputs.entries()) sameType(node, input, node.inputs[i]!);
  for (const [i, output] of body.outputs.slice(0, carry).entries()) sameType(node, output, node.inputs[i]!);
  if (until) sameType(node, body.outputs.at(-1)!, { dtype: 'bool', shape: [] });
  checkLevel(body, weights);
}
