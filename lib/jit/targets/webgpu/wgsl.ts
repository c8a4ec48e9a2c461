// lib/jit/targets/webgpu/wgsl.ts: a kernel's description -> WGSL text. Pure: touches no GPU.
// Source: WebGPU Shading Language, W3C; subgroups and packed dot products by its language extensions.

import type { BinaryOp, Expr, ExprNode, ScalarType, Type, UnaryOp } from '../../kernels/expression.js';
import { lanesOf, scalarOf } from '../../kernels/expression.js';
import type { BufferArray, Kernel, KernelFunction, LocalArray, Statement } from '../../kernels/kernel.js';
import { forEachExpr, matrixThreads } from '../../kernels/kernel.js';
import type { MatrixLoad } from './matrices.js';
import { emulatedMatrix, isMatrixStatement, matrixHeader, matrixLine, matrixLoads } from './matrices.js';
import { wgslName } from './names.js';

export interface WgslOptions {
  /** The language extension subgroup_id: else a subgroup's index is computed, which holds where lanes lie in order. */
  readonly subgroupId: boolean;
  /** `emulated`: matrices are spelled out, thread by thread, for adapters that only have to show that a kernel is right. */
  readonly matrices?: 'units' | 'emulated';
}

const scalarNames: Readonly<Record<ScalarType, string>> = {
  ...{ f32: 'f32', f16: 'f16', i32: 'i32', u32: 'u32', bool: 'bool' },
};

function typeName(type: Type): string {
  const lanes = lanesOf(type);
  const scalar = scalarNames[scalarOf(type)];
  return lanes === 1 ? scalar : `vec${lanes}<${scalar}>`;
}

const infix: Readonly<Partial<Record<BinaryOp, string>>> = {
  ...{ add: '+', sub: '-', mul: '*', div: '/', rem: '%', and: '&', or: '|', xor: '^', shl: '<<', shr: '>>' },
  ...{ eq: '==', ne: '!=', lt: '<', le: '<=', gt: '>', ge: '>=' },
};

const unaryNames: Readonly<Record<Exclude<UnaryOp, 'neg' | 'not'>, string>> = {
  ...{ abs: 'abs', floor: 'floor', ceil: 'ceil', trunc: 'trunc', round: 'round', sqrt: 'sqrt' },
  ...{ rsqrt: 'inverseSqrt', sign: 'sign', exp: 'exp', exp2: 'exp2', log: 'log', log2: 'log2' },
  ...{ sin: 'sin', cos: 'cos', tanh: 'tanh', leadingZeros: 'countLeadingZeros' },
};

const callNames: Readonly<Record<Extract<ExprNode, { kind: 'call' }>['op'], string>> = {
  ...{ fma: 'fma', clamp: 'clamp', dot: 'dot', dot4I8: 'dot4I8Packed', halves: 'unpack2x16float' },
  ...{ packHalves: 'pack2x16float', any: 'any', all: 'all' },
  ...{ subgroupAdd: 'subgroupAdd', subgroupMax: 'subgroupMax', subgroupMin: 'subgroupMin' },
  ...{ subgroupFirst: 'subgroupBroadcastFirst', subgroupShuffle: 'subgroupShuffle' },
  ...{ subgroupShuffleXor: 'subgroupShuffleXor', subgroupShuffleDown: 'subgroupShuffleDown' },
};

const entryInputs: readonly (readonly [builtin: string, declaration: string, text: string])[] = [
  ['workgroupX', '@builtin(workgroup_id) workgroup: vec3<u32>', 'workgroup.x'],
  ['workgroupY', '@builtin(workgroup_id) workgroup: vec3<u32>', 'workgroup.y'],
  ['workgroupZ', '@builtin(workgroup_id) workgroup: vec3<u32>', 'workgroup.z'],
  ['workgroupsX', '@builtin(num_workgroups) workgroups: vec3<u32>', 'workgroups.x'],
  ['workgroupsY', '@builtin(num_workgroups) workgroups: vec3<u32>', 'workgroups.y'],
  ['workgroupsZ', '@builtin(num_workgroups) workgroups: vec3<u32>', 'workgroups.z'],
  ['localIndex', '@builtin(local_invocation_index) localIndex: u32', 'localIndex'],
  ['subgroupSize', '@builtin(subgroup_size) subgroupSize: u32', 'subgroupSize'],
  ['subgroupLane', '@builtin(subgroup_invocation_id) subgroupLane: u32', 'subgroupLane'],
  ['subgroupIndex', '@builtin(subgroup_id) subgroupIndex: u32', 'subgroupIndex'],
];

/** What a text needs of the adapter, found by looking through the kernel. */
interface Needs {
  readonly builtins: ReadonlySet<string>;
  readonly functions: readonly KernelFunction[];
  readonly f16: boolean;
  readonly subgroups: boolean;
  readonly infinity: boolean;
  readonly matrices: boolean;
}

/** Prints a kernel as a WGSL module with the entry point `main`; bindings are in group 0, parameters last. */
export function printWgsl(kernel: Kernel, options: WgslOptions = { subgroupId: true }): string {
  return new Printer(kernel, options).module();
}

class Printer {
  readonly #atomics: ReadonlySet<string>;
  readonly #needs: Needs;
  /** Sides of products by name, for emulation. */
  readonly #loads: ReadonlyMap<string, MatrixLoad>;

  constructor(
    readonly kernel: Kernel,
    readonly options: WgslOptions,
  ) {
    const atomics = kernel.buffers.filter(({ access }) => access === 'atomic');
    this.#atomics = new Set(atomics.map(({ name }) => name));
    this.#loads = matrixLoads(kernel.body);
    this.#needs = needsOf(kernel, options, this.#loads.size > 0);
  }

  module(): string {
    const { buffers, shared, parameters, threads, subgroupSize, body } = this.kernel;
    const { builtins, functions, f16, subgroups, infinity, matrices } = this.#needs;
    const declarations = entryInputs
      .filter(([name]) => builtins.has(name))
      .map(([, declaration]) => declaration);
    const units = matrices && this.options.matrices !== 'emulated';
    const size = subgroupSize === undefined ? '' : ` @subgroup_size(${subgroupSize})`;
    return [
      ...(f16 && !units ? ['enable f16;'] : []),
      ...(subgroups || units ? ['enable subgroups;'] : []),
      ...(subgroupSize === undefined ? [] : ['enable subgroup_size_control;']),
      ...((subgroups || units) && this.options.subgroupId && builtins.has('subgroupIndex')
        ? ['requires subgroup_id;']
        : []),
      ...(units ? matrixHeader.enable : []),
      ...(subgroups ? ['diagnostic(off, subgroup_uniformity);'] : []),
      ...(units ? matrixHeader.diagnostic : []),
      ...buffers.map((buffer, binding) => bufferLine(buffer, binding)),
      ...(parameters.length === 0
        ? []
        : [
            `struct Parameters { ${parameters.map(({ name, type }) => `${wgslName(name)}: ${typeName(type)}`).join(', ')} }`,
            `@group(0) @binding(${buffers.length}) var<uniform> parameters: Parameters;`,
          ]),
      ...shared.map((array) => `var<workgroup> ${wgslName(array.name)}: ${arrayType(array)};`),
      // A constant expression may not be infinite; this one is none for the compiler.
      ...(infinity ? ['var<private> infinityBits: u32 = 0x7f800000u;'] : []),
      ...functions.map((fn) => this.#function(fn)),
      `@compute @workgroup_size(${threads})${size}`,
      `fn main(${[...new Set(declarations)].join(', ')}) {`,
      ...this.#lines(body, 1),
      '}',
      '',
    ].join('\n');
  }

  #function({ name, parameters, result, body }: KernelFunction): string {
    const inputs = parameters.map((each) => `${wgslName(each.name)}: ${typeName(each.type)}`).join(', ');
    return [`fn ${wgslName(name)}(${inputs}) -> ${typeName(result)} {`, ...this.#lines(body, 1), '}'].join(
      '\n',
    );
  }

  #lines(statements: readonly Statement[], depth: number): string[] {
    return statements.flatMap((statement) => this.#statement(statement, depth));
  }

  #statement(statement: Statement, depth: number): string[] {
    const pad = '  '.repeat(depth);
    if (isMatrixStatement(statement)) {
      const print = (expr: Expr): string => this.#expr(expr);
      const lines =
        this.options.matrices === 'emulated'
          ? emulatedMatrix(statement, this.#loads, print)
          : [matrixLine(statement, print)];
      return lines.map((line) => `${pad}${line}`);
    }
    const inner = (body: readonly Statement[]): string[] => this.#lines(body, depth + 1);
    switch (statement.kind) {
      case 'let':
        return [`${pad}let ${wgslName(statement.name)} = ${this.#expr(statement.value)};`];
      case 'variable':
        return [`${pad}var ${wgslName(statement.name)} = ${this.#expr(statement.value)};`];
      case 'array':
        return [`${pad}var ${wgslName(statement.array.name)}: ${arrayType(statement.array)};`];
      case 'set':
        return [`${pad}${wgslName(statement.name)} = ${this.#expr(statement.value)};`];
      case 'store':
        return [`${pad}${this.#element(statement.array, statement.index)} = ${this.#expr(statement.value)};`];
      case 'atomicAdd': {
        const place = this.#element(statement.array, statement.index);
        return [`${pad}atomicAdd(&${place}, ${this.#expr(statement.value)});`];
      }
      case 'if': {
        const otherwise =
          statement.whenFalse.length > 0 ? [`${pad}} else {`, ...inner(statement.whenFalse)] : [];
        return [
          `${pad}if (${this.#expr(statement.condition)}) {`,
          ...inner(statement.whenTrue),
          ...otherwise,
          `${pad}}`,
        ];
      }
      case 'for': {
        const { begin, end, step } = statement;
        const name = wgslName(statement.name);
        const [first, last, by] = [begin, end, step].map((each) => this.#expr(each));
        const head = `for (var ${name} = ${first}; ${name} < ${last}; ${name} += ${by}) {`;
        return [`${pad}${head}`, ...inner(statement.body), `${pad}}`];
      }
      case 'while':
        return [`${pad}while (${this.#expr(statement.condition)}) {`, ...inner(statement.body), `${pad}}`];
      case 'break':
      case 'continue':
        return [`${pad}${statement.kind};`];
      case 'return':
        return [`${pad}return${statement.value ? ` ${this.#expr(statement.value)}` : ''};`];
      case 'barrier':
        return [
          ...(statement.memory === 'storage' ? [`${pad}storageBarrier();`] : []),
          `${pad}workgroupBarrier();`,
        ];
    }
  }

  #element(array: string, index: Expr): string {
    return `${wgslName(array)}[${this.#expr(index)}]`;
  }

  #expr({ type, node }: Expr): string {
    switch (node.kind) {
      case 'literal':
        return literalText(type, node.value);
      case 'name':
        return wgslName(node.name);
      case 'builtin':
        return this.#builtin(node.name);
      case 'parameter':
        return `parameters.${wgslName(node.name)}`;
      case 'unary':
        return this.#unary(node.op, node.args[0]);
      case 'binary':
        return this.#binary(node.op, node.args);
      case 'call':
        return `${callNames[node.op]}(${this.#list(node.args)})`;
      case 'function':
        return `${wgslName(node.fn.name)}(${this.#list(node.args)})`;
      case 'select': {
        const [condition, then, otherwise] = node.args.map((arg) => this.#expr(arg));
        return `select(${otherwise}, ${then}, ${condition})`;
      }
      case 'lane':
        return `${this.#expr(node.args[0])}.${'xyzw'[node.lane]}`;
      case 'vector':
      case 'convert':
        return `${typeName(type)}(${this.#list(node.args)})`;
      case 'bits':
        return `bitcast<${typeName(type)}>(${this.#expr(node.args[0])})`;
      case 'uniformLoad':
        return `workgroupUniformLoad(&${wgslName(node.array)}[0])`;
      case 'load': {
        const place = this.#element(node.array, node.args[0]);
        return this.#atomics.has(node.array) ? `atomicLoad(&${place})` : place;
      }
    }
  }

  #list(args: readonly Expr[]): string {
    return args.map((arg) => this.#expr(arg)).join(', ');
  }

  #builtin(name: string): string {
    const [first, second] = inputsOf(name, this.options) as [string, string?];
    if (second) return `(localIndex / ${second})`;
    if (name === 'matrixGroup' && first === 'localIndex') return `(localIndex / ${matrixThreads}u)`;
    return entryInputs.find(([builtin]) => builtin === first)![2];
  }

  #unary(op: UnaryOp, value: Expr): string {
    const text = this.#expr(value);
    if (op === 'neg') return `(-${text})`;
    if (op !== 'not') return `${unaryNames[op]}(${text})`;
    return scalarOf(value.type) === 'bool' ? `(!${text})` : `(~${text})`;
  }

  #binary(op: BinaryOp, [a, b]: readonly [Expr, Expr]): string {
    const sign = infix[op];
    return sign ? `(${this.#expr(a)} ${sign} ${this.#expr(b)})` : `${op}(${this.#expr(a)}, ${this.#expr(b)})`;
  }
}

function bufferLine({ name, element, access }: BufferArray, binding: number): string {
  if (access === 'uniform')
    return `@group(0) @binding(${binding}) var<uniform> ${wgslName(name)}: vec4<${typeName(element)}>;`;
  const item = access === 'atomic' ? `atomic<${typeName(element)}>` : typeName(element);
  const mode = access === 'read' ? 'read' : 'read_write';
  return `@group(0) @binding(${binding}) var<storage, ${mode}> ${wgslName(name)}: array<${item}>;`;
}

function arrayType({ element, length }: LocalArray): string {
  return `array<${typeName(element)}, ${length}>`;
}

/** A number as a literal of a type, such as 0.5f or vec4<f32>(0.5f). */
function literalText(type: Type, value: number): string {
  const text = scalarText(scalarOf(type), value);
  return lanesOf(type) === 1 ? text : `${typeName(type)}(${text})`;
}

function scalarText(type: ScalarType, value: number): string {
  if (type === 'bool') return value === 0 ? 'false' : 'true';
  if (type === 'u32') return `${value >>> 0}u`;
  if (type === 'i32') return value === -(2 ** 31) ? '(-2147483647i - 1i)' : `${value | 0}i`;
  if (Number.isNaN(value)) return convertText(type, 'bitcast<f32>(infinityBits | 0x400000u)');
  if (!Number.isFinite(value))
    return convertText(type, value > 0 ? 'bitcast<f32>(infinityBits)' : '(-bitcast<f32>(infinityBits))');
  const digits = type === 'f32' ? shortestFloat(value) : String(value);
  const text = /[.e]/.test(digits) ? digits : `${digits}.0`;
  return `${Object.is(value, -0) ? '-' : ''}${text}${type === 'f32' ? 'f' : 'h'}`;
}

function convertText(type: ScalarType, text: string): string {
  return type === 'f32' ? text : `${type}(${text})`;
}

/** The shortest decimal number that rounds to the same float32. */
function shortestFloat(value: number): string {
  const single = Math.fround(value);
  for (let digits = 1; digits < 9; digits++) {
    const text = Number(single.toPrecision(digits));
    if (Math.fround(text) === single) return String(text);
  }
  return String(Number(single.toPrecision(9)));
}

/** The entry inputs that a builtin is made of: where there is no subgroup_id, a subgroup's index is computed. */
function inputsOf(name: string, { subgroupId, matrices }: WgslOptions): readonly string[] {
  if (name === 'subgroupIndex' && !subgroupId) return ['localIndex', 'subgroupSize'];
  // The compiler knows that a subgroup_id is the same in the whole subgroup.
  if (name === 'matrixGroup') return [subgroupId && matrices !== 'emulated' ? 'subgroupIndex' : 'localIndex'];
  return [name];
}

function needsOf(kernel: Kernel, options: WgslOptions, matrices: boolean): Needs {
  const builtins = new Set<string>();
  const functions: KernelFunction[] = [];
  let [f16, subgroups, infinity] = [false, kernel.subgroupSize !== undefined, false];
  const look = ({ type, node }: Expr): void => {
    if (scalarOf(type) === 'f16') f16 = true;
    if (node.kind === 'literal' && !Number.isFinite(node.value)) infinity = true;
    if (node.kind === 'call' && node.op.startsWith('subgroup')) subgroups = true;
    if (node.kind === 'builtin') {
      if (node.name.startsWith('subgroup')) subgroups = true;
      for (const name of inputsOf(node.name, options)) builtins.add(name);
    }
    if (node.kind === 'function' && !functions.includes(node.fn)) {
      forEachExpr(node.fn.body, look);
      functions.push(node.fn); // after those that it calls
    }
  };
  forEachExpr(kernel.body, look);
  f16 ||= [...kernel.buffers, ...kernel.shared].some(({ element }) => scalarOf(element) === 'f16');
  if (matrices) builtins.add('localIndex');
  return { builtins, functions, f16, subgroups, infinity, matrices };
}
