// lib/jit/targets/wasm/context.ts: what a kernel's code needs of the program around it: addresses, shared functions,
// constant data and scratch memory. A kernel is one function(begin, end) over its units of work; which thread does which
// units is the driver's business and never changes a result: a unit is always computed the same way.

import type { ElementValues } from '../../graph.js';
import type { Place } from '../../steps.js';
import {
  callExpr,
  FunctionBuilder,
  type FunctionCode,
  type FunctionReference,
  globalGet,
  type Local,
} from './builder.js';
import type { ModuleBuilder } from './encoder.js';
import { fastMath, type MathCall } from './math.js';
import { preciseMath } from './math64.js';
import { loads } from './memory.js';
import type { MultiplyAdd } from './multiplyAdd.js';
import { type Expr, makeNode, type Node } from './nodes.js';
import { i32 } from './scalars.js';

/** A Weight in memory as a kernel wants it: in panels, of [in, out] or [out, in], or whole as float32. */
export type WeightForm = 'straight' | 'transposed' | 'whole';

/** A kernel: code(begin, end) does the units of work begin to end - 1. */
export interface Kernel {
  readonly code: FunctionReference;
  readonly units: number;
  /** All threads may run it at once: it writes each element once, with its last value, and reads none of them. */
  readonly isRepeatable: boolean;
  /** What is done after all units, once the threads have met: repeatable, of so much work (see workOf). */
  readonly join?: { readonly code: FunctionReference; readonly units: number; readonly work: number };
}

/** One address of the table that a run fills in. */
export type TableEntry =
  | { readonly kind: 'input' | 'output'; readonly index: number }
  | { readonly kind: 'weight'; readonly index: number; readonly form: WeightForm };

/** Globals of the module, in this order; JavaScript sets them in each worker's instance before a run. */
export const GLOBALS = ['scratch', 'arena', 'data', 'table', 'control', 'thread', 'threads'] as const;
export type GlobalName = (typeof GLOBALS)[number];
/** Sets a global of this thread. */
export const globalSet = (name: GlobalName, value: Expr): Node =>
  makeNode(`global.set $${name}`, undefined, [0x24], [value], {
    kind: 'unsigned',
    value: GLOBALS.indexOf(name),
  });
/** Value of a global. */
export const globalValue = (name: GlobalName): Expr => globalGet(GLOBALS.indexOf(name), name);

export class KernelContext {
  private readonly functions = new Map<string, FunctionReference>();
  private counter = 0;
  /** Scratch that the hungriest kernel needs, for each thread. */
  scratchBytes = 0;
  /** What the table of addresses holds. */
  readonly table: TableEntry[] = [];
  private readonly entryPlaces = new Map<string, number>();
  /** Constant values and their offsets in the program's data. */
  readonly constants: { readonly values: ElementValues; readonly offset: number }[] = [];
  dataBytes = 0;

  constructor(
    readonly module: ModuleBuilder,
    private readonly planned: readonly ElementValues[],
    readonly multiplyAdd: MultiplyAdd,
  ) {}

  readonly addresses = {
    place: (place: Place): Expr => {
      switch (place.space) {
        case 'arena':
          return i32.add(globalValue('arena'), place.offset);
        case 'constant':
          return this.data(this.planned[place.index]!);
        case 'weight':
          return this.entry({ kind: 'weight', index: place.index, form: 'whole' });
        default:
          return this.entry({ kind: place.space, index: place.index });
      }
    },
    weight: (index: number, form: WeightForm): Expr => this.entry({ kind: 'weight', index, form }),
  };

  private entry(wanted: TableEntry): Expr {
    const key = `${wanted.kind} ${wanted.index} ${wanted.kind === 'weight' ? wanted.form : ''}`;
    const at = this.entryPlaces.get(key) ?? this.table.push(wanted) - 1;
    this.entryPlaces.set(key, at);
    return loads.i32(globalValue('table'), at * 4);
  }

  /** Address of constant values; the same array is kept once. */
  data(values: ElementValues): Expr {
    let constant = this.constants.find((each) => each.values === values);
    if (!constant) {
      constant = { values, offset: this.dataBytes };
      this.constants.push(constant);
      this.dataBytes += Math.ceil((values.byteLength + 1) / 64) * 64;
    }
    return i32.add(globalValue('data'), constant.offset);
  }

  /** Starts a kernel's function: (begin, end) count its units. */
  kernel(name: string): { readonly f: FunctionBuilder; readonly begin: Local; readonly end: Local } {
    const f = new FunctionBuilder(`${name}_${this.counter++}`);
    return { f, begin: f.param('i32', 'begin'), end: f.param('i32', 'end') };
  }

  finish(f: FunctionBuilder, units: number, isRepeatable = true): Kernel {
    return { code: this.module.add(f.finish()), units, isRepeatable };
  }

  /** A function that several kernels call, made once for a key. */
  shared(key: string, make: (name: string) => FunctionCode): FunctionReference {
    const known = this.functions.get(key);
    if (known) return known;
    const reference = this.module.add(make(key));
    this.functions.set(key, reference);
    return reference;
  }

  /** Address of `bytes` of this thread's scratch; a kernel's own until it ends. */
  scratch(bytes: number): Expr {
    this.scratchBytes = Math.max(this.scratchBytes, Math.ceil(bytes / 64) * 64);
    return globalValue('scratch');
  }

  /** Calls a mathematical function of vectors, by its name in math.ts or math64.ts. */
  readonly math: MathCall = (name, ...values) => {
    const make = fastMath(this.math)[name] ?? preciseMath[name];
    if (!make) throw new Error(`wasm: no function ${name}`);
    return callExpr(this.shared(name, make), ...values);
  };
}
