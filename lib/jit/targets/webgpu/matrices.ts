// lib/jit/targets/webgpu/matrices.ts: matrix statements of a kernel -> WGSL: through the adapter's matrix units, or
// spelled out thread by thread, to check on any adapter that a kernel multiplies what it should.
// Source: Dawn's experimental extension chromium_experimental_subgroup_matrix.

import type { Expr } from '../../kernels/expression.js';
import type { MatrixKind, Statement } from '../../kernels/kernel.js';
import { matrixSide, matrixThreads } from '../../kernels/kernel.js';
import { wgslName } from './names.js';

type MatrixStatement = Extract<Statement, { kind: `matrix${string}` }>;
export type MatrixLoad = Extract<Statement, { kind: 'matrixLoad' }>;

/** What a text with matrix units begins with. */
export const matrixHeader = {
  enable: ['enable f16;', 'enable chromium_experimental_subgroup_matrix;'],
  diagnostic: ['diagnostic(off, chromium.subgroup_matrix_uniformity);'],
};

export function isMatrixStatement(statement: Statement): statement is MatrixStatement {
  return statement.kind.startsWith('matrix');
}

const units: Readonly<Record<MatrixKind, { element: string; sum: string; depth: number }>> = {
  halves: { element: 'f16', sum: 'f32', depth: 16 },
  bytes: { element: 'i8', sum: 'i32', depth: 32 },
};
const side = matrixSide;
/** Of a right side. */
const orders = { along: 'col_major', across: 'row_major' };

const sumType = (of: MatrixKind): string => `subgroup_matrix_result<${units[of].sum}, ${side}, ${side}>`;

/** A statement through the adapter's units. */
export function matrixLine(statement: MatrixStatement, print: (expr: Expr) => string): string {
  switch (statement.kind) {
    case 'matrixSum':
      return `var ${wgslName(statement.name)} = ${sumType(statement.of)}();`;
    case 'matrixLoad': {
      const { element, depth } = units[statement.of];
      // Columns before rows: a left side has `depth` columns, a right side 16.
      const [type, order] =
        statement.side === 'left'
          ? [`subgroup_matrix_left<${element}, ${depth}, ${side}>`, 'row_major']
          : [`subgroup_matrix_right<${element}, ${side}, ${depth}>`, orders[statement.rows]];
      const place = `&${wgslName(statement.array)}, ${print(statement.offset)}, ${print(statement.stride)}`;
      return `let ${wgslName(statement.name)} = subgroupMatrixLoad<${type}, ${order}>(${place});`;
    }
    case 'matrixMultiplyAdd': {
      const [sum, left, right] = [statement.sum, statement.left, statement.right].map(wgslName);
      return `${sum} = subgroupMatrixMultiplyAccumulate(${left}, ${right}, ${sum});`;
    }
    case 'matrixStore': {
      const place = `&${wgslName(statement.array)}, ${print(statement.offset)}`;
      return `subgroupMatrixStore<row_major>(${place}, ${wgslName(statement.sum)}, ${print(statement.stride)});`;
    }
    case 'matrixReload': {
      const place = `&${wgslName(statement.array)}, ${print(statement.offset)}, ${print(statement.stride)}`;
      return `${wgslName(statement.sum)} = subgroupMatrixLoad<${sumType(statement.of)}, row_major>(${place});`;
    }
  }
}

/** Elements of a sum that one thread holds: half a row. */
const own = (side * side) / matrixThreads;
const lane = `(localIndex % ${matrixThreads}u)`;
const row = `(${lane} / 2u)`;
const column = `((${lane} % 2u) * ${own}u)`;

/**
 * A statement spelled out. A right side is read when it is multiplied: its memory must not change before.
 * @param loads sides by name
 */
export function emulatedMatrix(
  statement: MatrixStatement,
  loads: ReadonlyMap<string, MatrixLoad>,
  print: (expr: Expr) => string,
): string[] {
  switch (statement.kind) {
    case 'matrixSum':
      return [`var ${wgslName(statement.name)} = array<${units[statement.of].sum}, ${own}>();`];
    case 'matrixLoad': {
      const name = wgslName(statement.name);
      if (statement.side === 'left') {
        const at = `${print(statement.offset)} + ${row} * ${print(statement.stride)}`;
        const array = wgslName(statement.array);
        return [`let ${name} = array<vec4<u32>, 2>(${array}[${at}], ${array}[${at} + 1u]);`];
      }
      return [
        `let ${name}Offset = ${print(statement.offset)};`,
        `let ${name}Stride = ${print(statement.stride)};`,
      ];
    }
    case 'matrixMultiplyAdd': {
      const [left, right] = [loads.get(statement.left)!, loads.get(statement.right)!];
      const [mine, other] = [wgslName(left.name), wgslName(right.name)];
      const at = (place: string, vector: string): string =>
        `${wgslName(right.array)}[${other}Offset + ${place} * ${other}Stride + ${vector}]`;
      if (right.rows === 'across') {
        const eight = (name: string): string =>
          `array<vec2<f32>, 4>(${['x', 'y', 'z', 'w'].map((word) => `unpack2x16float(${name}.${word})`).join(', ')})`;
        return [
          'for (var part = 0u; part < 2u; part += 1u) {',
          `  let words = ${mine}[part];`,
          `  let a = ${eight('words')};`,
          `  for (var deep = 0u; deep < 8u; deep += 1u) {`,
          `    let others = ${at('(part * 8u + deep)', `${column} / 8u`)};`,
          `    let b = ${eight('others')};`,
          `    for (var element = 0u; element < ${own}u; element += 1u) {`,
          `      ${wgslName(statement.sum)}[element] += a[deep / 2u][deep % 2u] * b[element / 2u][element % 2u];`,
          '    }',
          '  }',
          '}',
        ];
      }
      const lanes = ['x', 'y', 'z', 'w'];
      const product = (word: string): string =>
        left.of === 'halves'
          ? `dot(unpack2x16float(a.${word}), unpack2x16float(b.${word}))`
          : `dot4I8Packed(a.${word}, b.${word})`;
      return [
        `for (var part = 0u; part < 2u; part += 1u) {`,
        `  let a = ${mine}[part];`,
        `  for (var element = 0u; element < ${own}u; element += 1u) {`,
        `    let b = ${at(`(${column} + element)`, 'part')};`,
        `    ${wgslName(statement.sum)}[element] += ${lanes.map(product).join(' + ')};`,
        '  }',
        '}',
      ];
    }
    case 'matrixStore': {
      const first = `${print(statement.offset)} + ${row} * ${print(statement.stride)}`;
      const sum = wgslName(statement.sum);
      if (statement.isPacked) {
        const four = (at: number): string =>
          `vec4<u32>(${[0, 1, 2, 3].map((i) => `bitcast<u32>(${sum}[${4 * at + i}])`).join(', ')})`;
        return [0, 1].map(
          (at) => `${wgslName(statement.array)}[${first} + ${column} / 4u + ${at}u] = ${four(at)};`,
        );
      }
      const place = `${first} + ${column} + element`;
      return [
        `for (var element = 0u; element < ${own}u; element += 1u) {`,
        `  ${wgslName(statement.array)}[${place}] = ${sum}[element];`,
        '}',
      ];
    }
    case 'matrixReload': {
      const first = `${print(statement.offset)} + ${row} * ${print(statement.stride)} + ${column} / 4u`;
      const four = (at: number): string[] => {
        const vector = `bitcast<vec4<${units[statement.of].sum}>>(${wgslName(statement.array)}[${first} + ${at}u])`;
        return ['x', 'y', 'z', 'w'].map((lane) => `${vector}.${lane}`);
      };
      const sum = wgslName(statement.sum);
      return [`${sum} = array<${units[statement.of].sum}, ${own}>(${[...four(0), ...four(1)].join(', ')});`];
    }
  }
}

/** All sides of products in a kernel, by name: none where it has no matrices. */
export function matrixLoads(statements: readonly Statement[]): Map<string, MatrixLoad> {
  const found = new Map<string, MatrixLoad>();
  const visit = (list: readonly Statement[]): void => {
    for (const statement of list) {
      if (statement.kind === 'matrixLoad') found.set(statement.name, statement);
      if (statement.kind === 'if')
        for (const branch of [statement.whenTrue, statement.whenFalse]) visit(branch);
      if ('body' in statement) visit(statement.body);
    }
  };
  visit(statements);
  return found;
}
