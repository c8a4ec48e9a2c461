// lib/jit/print.ts: graph -> text, as in snapshots and bug reports:
//
//   graph(%0: f32[1,64], %1: f32[64,192])
//     %2: f32[1,192] = BatchMatMul(%0, %1)
//     return %2
//
// Values are numbered from 0 in the order in which they appear, whatever their ids are.

import { sizeOf } from '../tensor.js';
import type {
  Epilogue,
  Graph,
  Instruction,
  LinearProduct,
  Node,
  Program,
  Value,
  View,
  WeightFormat,
} from './graph.js';
import { broadcastView, isScalarNode } from './graph.js';
import { bracket } from './infer.js';

/** The text of a graph; a Scan's body is indented below it. */
export function print(graph: Graph): string {
  return new Printer(graph).text();
}

/** A program as one expression, such as 'Mul(in0, Sigmoid(in0))'; a register that is read twice is named. */
export function printProgram(program: Program): string {
  const reads = new Array<number>(program.length).fill(0);
  for (const instruction of program)
    if ('args' in instruction) for (const arg of instruction.args) reads[arg]!++;
  const lines: string[] = [];
  const text = program.map(() => '');
  for (const [at, instruction] of program.entries()) {
    const expression = instructionText(instruction, text);
    const named = reads[at]! > 1 && 'args' in instruction;
    text[at] = named ? `t${lines.length}` : expression;
    if (named) lines.push(`t${lines.length} = ${expression}`);
  }
  return [...lines, text.at(-1)].join('; ');
}

function instructionText(instruction: Instruction, text: readonly string[]): string {
  if (instruction.op === 'Input') return `in${instruction.index}`;
  if (instruction.op === 'Literal') return literalText(instruction.value);
  const op = instruction.op === 'Cast' ? `Cast<${instruction.dtype}>` : instruction.op;
  return `${op}(${instruction.args.map((arg) => text[arg]).join(', ')})`;
}

/** A f32 as the shortest decimal that says it, which seven digits do. */
function literalText(value: number): string {
  return String(Number(value.toPrecision(7)));
}

class Printer {
  readonly #graph: Graph;
  readonly #names = new Map<Value, string>();

  constructor(graph: Graph) {
    this.#graph = graph;
  }

  text(): string {
    return [`graph(${this.#signature(this.#graph)})`, ...this.#body(this.#graph, '  ')].join('\n');
  }

  #signature(graph: Graph): string {
    return graph.inputs.map((input) => this.#declare(input)).join(', ');
  }

  #body(graph: Graph, indent: string): string[] {
    const lines = graph.nodes.flatMap((node) => this.#node(node, indent));
    return [...lines, `${indent}return ${graph.outputs.map((output) => this.#name(output)).join(', ')}`];
  }

  #declare(value: Value): string {
    return `${this.#name(value)}: ${value.dtype}${bracket(value.shape)}`;
  }

  #name(value: Value): string {
    const name = this.#names.get(value) ?? `%${this.#names.size}`;
    this.#names.set(value, name);
    return name;
  }

  #node(node: Node, indent: string): string[] {
    const inputs = node.inputs.map((input, i) => this.#operand(node, input, i));
    const outputs = node.outputs.map((output) => this.#declare(output)).join(', ');
    const attrs = this.#attributes(node);
    const line = `${indent}${outputs} = ${node.op}(${inputs.join(', ')})${attrs ? ` { ${attrs} }` : ''}`;
    if (node.op !== 'Scan') return [line];
    const { body } = node.attrs;
    return [line, `${indent}  body(${this.#signature(body)})`, ...this.#body(body, `${indent}    `)];
  }

  /** An operand, with its view where that is not the plain one. */
  #operand(node: Node, input: Value, index: number): string {
    if (node.op !== 'Elementwise') return this.#name(input);
    return this.#name(input) + viewText(node.attrs.views[index]!, input, node.outputs[0]!);
  }

  #attributes(node: Node): string {
    if (isScalarNode(node)) return '';
    switch (node.op) {
      case 'Constant':
        return constantText(node.attrs.values);
      case 'Elementwise':
        return printProgram(node.attrs.program);
      case 'Linear': {
        const { products, epilogues } = node.attrs;
        const parts = products.map((product) => this.#product(product));
        return [...parts, ...epilogues.flatMap((each, i) => this.#epilogue(each, node, i))].join(', ');
      }
      case 'BatchMatMul': {
        const { transposeA, transposeB, epilogue } = node.attrs;
        const flags = [...(transposeA ? ['transposeA'] : []), ...(transposeB ? ['transposeB'] : [])];
        return [...flags, ...this.#epilogue(epilogue, node, 0)].join(', ');
      }
      case 'Embed':
      case 'WeightTensor':
        return this.#weight(node.attrs.weight);
      case 'Rotary':
        return `frequencies: ${node.attrs.inverseFrequencies.length}, scale: ${node.attrs.scale}`;
      case 'Scan':
        return `length: ${node.attrs.length}, carry: ${node.attrs.carry}${node.attrs.until ? ', until' : ''}`;
      default:
        return Object.entries(node.attrs)
          .map(([name, value]) => `${name}: ${attributeText(value)}`)
          .join(', ');
    }
  }

  #product({ weight, transposed, columns }: LinearProduct): string {
    const part = columns ? `[${columns.begin}:${columns.end}]` : '';
    return `${this.#weight(weight)}${transposed ? '^T' : ''}${part}`;
  }

  #weight(index: number): string {
    const slot = this.#graph.weights[index];
    return slot ? `w${index} ${formatText(slot.format)}` : `w${index}`;
  }

  #epilogue({ products, operands, program }: Epilogue, node: Node, index: number): string[] {
    if (program.length === 1) return [];
    const names = [
      ...products.map((product) => `product ${product}`),
      ...operands.map(({ input, view }) => {
        const value = node.inputs[input]!;
        return this.#name(value) + viewText(view, value, node.outputs[index]!);
      }),
    ];
    const text = names.reduce((held, _, i) => held.replaceAll(`in${i}`, `<${i}>`), printProgram(program));
    return [`epilogue: ${names.reduce((held, name, i) => held.replaceAll(`<${i}>`, name), text)}`];
  }
}

function viewText(view: View, value: Value, output: Value): string {
  const isWhole = value.shape.length <= output.shape.length && sameView(view, value, output);
  if (isWhole || (sizeOf(value.shape) === 1 && view.offset === 0)) return '';
  return `[${view.offset}; ${view.strides.join(',')}]`;
}

/** True if the view is the one that NumPy's broadcasting gives; strides of axes of length 1 do not matter. */
function sameView(view: View, value: Value, output: Value): boolean {
  const plain = broadcastView(value.shape, output.shape);
  const fits = value.shape.every((size, axis) => {
    const other = output.shape[axis + output.shape.length - value.shape.length];
    return size === 1 || size === other;
  });
  const strides = view.strides.every(
    (stride, axis) => output.shape[axis] === 1 || stride === plain.strides[axis],
  );
  return fits && strides && view.offset === 0;
}

function constantText(values: ArrayLike<number>): string {
  const shown = Array.from(values as ArrayLike<number>)
    .slice(0, 4)
    .map(literalText);
  return values.length > 4 ? `${shown.join(', ')}, ...` : shown.join(', ');
}

function formatText(format: WeightFormat): string {
  return `${format.kind === 'float' ? format.dtype : format.kind}${bracket(format.shape)}`;
}

function attributeText(value: unknown): string {
  if (Array.isArray(value)) return bracket(value as number[]);
  if (typeof value === 'number') return literalText(value);
  if (typeof value !== 'object' || value === null) return String(value);
  const { offset, strides } = value as View;
  return `[${offset}; ${strides.join(',')}]`;
}
