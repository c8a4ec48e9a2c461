// lib/jit/passes/expression.ts: scalar expressions over memory that is read through views, and how they grow: by an
// operation on top, or by being read in another layout. What becomes one Elementwise Node or epilogue.

import type { Shape } from '../../tensor.js';
import type { ElementType, Instruction, Program, ScalarOp, Value, View } from '../graph.js';
import { scalarFunction } from '../scalar.js';
import { broadcastThrough, plainView, sameView } from './views.js';

/** One operand: memory of `value`, read through `view` (over the expression's shape). */
export interface Leaf {
  readonly value: Value;
  readonly view: View;
}

/** What an element of `shape` is: the program over the leaves. Inputs of the program are indices of leaves. */
export interface Expression {
  readonly shape: Shape;
  readonly leaves: readonly Leaf[];
  readonly program: Program;
}

/** The expression that reads a value. */
export function leafExpression(value: Value): Expression {
  return {
    shape: value.shape,
    leaves: [{ value, view: plainView(value.shape) }],
    program: [{ op: 'Input', index: 0, dtype: value.dtype }],
  };
}

export function literalExpression(value: number, dtype: ElementType, shape: Shape): Expression {
  return { shape, leaves: [], program: [{ op: 'Literal', value, dtype }] };
}

/**
 * The expression with each leaf's view replaced.
 * @returns undefined if one of them has no replacement
 */
export function throughViews(
  { leaves, program }: Expression,
  shape: Shape,
  replace: (view: View) => View | undefined,
): Expression | undefined {
  const replaced: Leaf[] = [];
  for (const { value, view } of leaves) {
    const next = replace(view);
    if (!next) return undefined;
    replaced.push({ value, view: next });
  }
  return { shape, leaves: replaced, program };
}

export function broadcastExpression(expression: Expression, shape: Shape): Expression {
  // Every view can be broadcast.
  return throughViews(expression, shape, (view) => broadcastThrough(view, expression.shape, shape))!;
}

/** Puts expressions of one shape together; what they share is computed once. */
export class ProgramBuilder {
  readonly leaves: Leaf[] = [];
  readonly program: Instruction[] = [];
  readonly #known = new Map<string, number>();
  readonly #shape: Shape;

  constructor(shape: Shape) {
    this.#shape = shape;
  }

  /** Adds an expression of the builder's shape. @returns its register */
  include({ leaves, program }: Expression): number {
    const inputs = leaves.map((leaf) => this.#leaf(leaf));
    return this.splice(program, inputs);
  }

  /** Adds a program whose inputs are leaves of this builder by index, or registers where `registers` says so. */
  splice(
    program: Program,
    inputs: readonly number[],
    registers: ReadonlyMap<number, number> = new Map(),
  ): number {
    const places: number[] = [];
    for (const instruction of program) {
      if (instruction.op === 'Input') {
        const { index, dtype } = instruction;
        places.push(registers.get(index) ?? this.#push({ op: 'Input', index: inputs[index]!, dtype }));
      } else if (instruction.op === 'Literal') places.push(this.#push(instruction));
      else {
        const args = instruction.args.map((arg) => places[arg]!);
        places.push(this.apply(instruction.op, args, instruction.dtype));
      }
    }
    return places.at(-1)!;
  }

  /** Adds an operation on registers; on literals alone it is computed now. */
  apply(op: ScalarOp, args: readonly number[], dtype: ElementType): number {
    const operands = args.map((arg) => this.program[arg]!);
    const numbers = operands.flatMap((operand) => (operand.op === 'Literal' ? [operand.value] : []));
    if (numbers.length < operands.length)
      return this.#identity(op, args, dtype) ?? this.#push({ op, args, dtype });
    const [a, b, c] = numbers as [number, number, number];
    const value = scalarFunction(op, operands.at(-1)!.dtype, dtype)(a, b, c);
    return this.#push({ op: 'Literal', value, dtype });
  }

  /** x + 0 (of integers), x - 0, x * 1, x / 1: x itself, bit for bit. */
  #identity(op: ScalarOp, args: readonly number[], dtype: ElementType): number | undefined {
    const [a, b] = args as [number, number];
    const isNeutral = (register: number): boolean => {
      const operand = this.program[register];
      if (operand?.op !== 'Literal') return false;
      if (op === 'Mul' || op === 'Div') return operand.value === 1;
      return Object.is(operand.value, 0) && (op === 'Sub' || (op === 'Add' && dtype === 'i32'));
    };
    if (isNeutral(b)) return a;
    return (op === 'Add' || op === 'Mul') && isNeutral(a) ? b : undefined;
  }

  /** The finished expression, which ends with `register`. */
  finish(register: number): Expression {
    return prune({ shape: this.#shape, leaves: this.leaves, program: this.program }, register);
  }

  #leaf(leaf: Leaf): number {
    const found = this.leaves.findIndex(
      (other) => other.value === leaf.value && sameView(other.view, leaf.view, this.#shape),
    );
    return found >= 0 ? found : this.leaves.push(leaf) - 1;
  }

  #push(instruction: Instruction): number {
    const key = instructionKey(instruction);
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const register = this.program.push(instruction) - 1;
    this.#known.set(key, register);
    return register;
  }
}

/** Equal for instructions that do the same. */
function instructionKey(instruction: Instruction): string {
  if (instruction.op === 'Input') return `in${instruction.index}`;
  if (instruction.op !== 'Literal') return `${instruction.op}${instruction.dtype}(${instruction.args})`;
  const { value, dtype } = instruction;
  return `${dtype}${Object.is(value, -0) ? '-0' : value}`;
}

/** Leaves out instructions and leaves that `register` does not need, and puts it last. */
function prune({ shape, leaves, program }: Expression, register: number): Expression {
  const needed = new Set<number>([register]);
  for (let at = register; at >= 0; at--) {
    const instruction = program[at]!;
    if (needed.has(at) && 'args' in instruction) for (const arg of instruction.args) needed.add(arg);
  }
  const kept: Leaf[] = [];
  const places = new Map<number, number>();
  const result: Instruction[] = [];
  for (const at of [...needed].sort((a, b) => a - b)) {
    const instruction = program[at]!;
    const moved =
      instruction.op === 'Input'
        ? { ...instruction, index: kept.push(leaves[instruction.index]!) - 1 }
        : 'args' in instruction
          ? { ...instruction, args: instruction.args.map((arg) => places.get(arg)!) }
          : instruction;
    places.set(at, result.push(moved) - 1);
  }
  return { shape, leaves: kept, program: result };
}

/** An operation on expressions, broadcast to `shape`. */
export function combine(
  op: ScalarOp,
  args: readonly Expression[],
  dtype: ElementType,
  shape: Shape,
): Expression {
  const builder = new ProgramBuilder(shape);
  const registers = args.map((arg) => builder.include(broadcastExpression(arg, shape)));
  return builder.finish(builder.apply(op, registers, dtype));
}
