// lib/tensor.ts: the words that every stage shares: shapes, element types, and Weights in their stored type.
// A Weight is not a tf.Tensor: tfjs has no int8, float16 or bfloat16 tensors, so parameters stay bytes until an
// operation (ops.ts) or a compiler target reads them.
//
// Axes, by the names used in comments:
//   batch     independent sequences          query     tokens given to this call (also: bucket)
//   length    tokens seen so far             capacity  slots of the key/value cache
//   dim       width of the residual stream   heads, kvHeads, headDim   attention heads and their width
//   in, out   input and output features of a kernel                    vocab  tokens the model knows

export type Shape = readonly number[];

/** Element types of a stored tensor, in safetensors' spelling, lower case. */
export type DType =
  | FloatDType
  | 'i8'
  | 'i4'
  | 'u8'
  | 'i16'
  | 'u16'
  | 'i32'
  | 'u32'
  | 'i64'
  | 'u64'
  | 'f64'
  | 'bool';
export type FloatDType = 'f32' | 'f16' | 'bf16';

/** Floating-point numbers as they lie in the checkpoint: little-endian bytes, row-major, at any byte offset. */
export interface FloatWeight {
  readonly kind: 'float';
  readonly dtype: FloatDType;
  readonly shape: Shape;
  readonly bytes: Uint8Array;
}

/**
 * Which values share a scale. `axis` is the axis of the output channels: 1 for a kernel [in, out], 0 for an
 * embedding [vocab, dim]. Groups of `size` values run along the other axis.
 */
export type Granularity =
  | { readonly per: 'tensor' }
  | { readonly per: 'channel'; readonly axis: 0 | 1 }
  | { readonly per: 'group'; readonly axis: 0 | 1; readonly size: number };

/**
 * Symmetric 8-bit integers: value = bytes[i] * scale.
 * scales: [1] per tensor; [channels] per channel; per group [groups, out] for axis 1, [vocab, groups] for axis 0.
 */
export interface Int8Weight {
  readonly kind: 'int8';
  readonly shape: Shape;
  readonly bytes: Int8Array;
  readonly scales: Float32Array;
  readonly granularity: Granularity;
}

/**
 * Symmetric 4-bit integers in -7..7, two to a byte in row-major order, the earlier one in the low half, each
 * stored plus 8. An odd count leaves the last high half 0. Scales as in Int8Weight, per group only.
 */
export interface Int4Weight {
  readonly kind: 'int4';
  readonly shape: Shape;
  readonly bytes: Uint8Array;
  readonly scales: Float32Array;
  readonly granularity: Granularity & { readonly per: 'group' };
}

export type Weight = FloatWeight | Int8Weight | Int4Weight;

/** A nested tree of named Weights. Each model has its own narrower interface of it. */
export interface ParamTree {
  readonly [name: string]: Weight | ParamTree | readonly ParamTree[] | undefined;
}

/** Number of elements in a tensor of this shape; 1 for a scalar. */
export function sizeOf(shape: Shape): number {
  return shape.reduce((product, axis) => product * axis, 1);
}

/** Bytes that a Weight takes in memory, its scales included. */
export function weightBytes(weight: Weight): number {
  return weight.bytes.byteLength + (weight.kind === 'float' ? 0 : weight.scales.byteLength);
}

/** True for a Weight, false for a branch of the parameter tree. */
export function isWeight(value: unknown): value is Weight {
  const kind = (value as { kind?: unknown } | null)?.kind;
  return kind === 'float' || kind === 'int8' || kind === 'int4';
}

/**
 * Lists the Weights of a tree by dotted path, in the tree's own order.
 * @returns pairs such as ['h.0.attn.c_attn.kernel', weight]; a Weight that stands in two places is listed twice
 */
export function* weightEntries(tree: ParamTree, prefix = ''): Generator<[path: string, weight: Weight]> {
  for (const [name, value] of Object.entries(tree)) {
    const path = prefix === '' ? name : `${prefix}.${name}`;
    if (value === undefined) continue;
    if (isWeight(value)) yield [path, value];
    else yield* weightEntries(value as ParamTree, path);
  }
}

/** The same tree with each Weight replaced; branches and arrays keep their structure. */
export function mapWeights<Tree extends ParamTree>(
  tree: Tree,
  replace: (weight: Weight, path: string) => Weight,
  prefix = '',
): Tree {
  const visit = (value: Tree[string], path: string): unknown => {
    if (value === undefined) return undefined;
    if (isWeight(value)) return replace(value, path);
    if (Array.isArray(value)) return value.map((branch, i) => mapWeights(branch, replace, `${path}.${i}`));
    return mapWeights(value as ParamTree, replace, path);
  };
  // The structure is the input's by construction; TypeScript cannot follow it through Object.entries.
  return Object.fromEntries(
    Object.entries(tree).map(([name, value]) => [
      name,
      visit(value as Tree[string], prefix ? `${prefix}.${name}` : name),
    ]),
  ) as Tree;
}

/**
 * Shape of a two-dimensional Weight.
 * @throws RangeError if it is not two-dimensional (gives the shape)
 */
export function matrixShape(weight: Weight): readonly [number, number] {
  const [rows, columns] = weight.shape;
  if (weight.shape.length !== 2 || rows === undefined || columns === undefined) {
    throw new RangeError(`weight: expected two axes, received [${weight.shape.join(', ')}]`);
  }
  return [rows, columns];
}

/** A float32 Weight over the given values; nothing is copied. */
export function floatWeight(values: Float32Array, shape: Shape): FloatWeight {
  if (values.length !== sizeOf(shape)) {
    throw new RangeError(
      `values: expected ${sizeOf(shape)} for [${shape.join(', ')}], received ${values.length}`,
    );
  }
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { kind: 'float', dtype: 'f32', shape, bytes };
}

/**
 * Values of a Weight as float32, in row-major order: decoded from float16 or bfloat16, scaled from integers.
 * @returns [sizeOf(shape)]; a view of the same memory when the Weight is aligned float32, else a new array
 */
export function float32Values(weight: Weight): Float32Array {
  if (weight.kind === 'float') return decodeFloat(weight);
  const integers = weight.kind === 'int8' ? weight.bytes : unpackInt4(weight);
  return scaleIntegers(integers, weight);
}

/** Integers of an int4 Weight, one a byte, in -8..7. */
export function unpackInt4(weight: Int4Weight): Int8Array {
  const { bytes } = weight;
  const values = new Int8Array(sizeOf(weight.shape));
  const pairs = values.length >> 1;
  for (let pair = 0; pair < pairs; pair++) {
    const both = bytes[pair]!;
    values[2 * pair] = (both & 15) - 8;
    values[2 * pair + 1] = (both >> 4) - 8;
  }
  if (values.length % 2 === 1) values[2 * pairs] = (bytes[pairs]! & 15) - 8;
  return values;
}

function decodeFloat({ dtype, bytes, shape }: FloatWeight): Float32Array {
  const size = sizeOf(shape);
  if (dtype === 'f32') {
    const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
    return new Float32Array(aligned.buffer, aligned.byteOffset, size);
  }
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
  const halves = new Uint16Array(aligned.buffer, aligned.byteOffset, size);
  const bits = new Uint32Array(size);
  if (dtype === 'bf16') for (let i = 0; i < size; i++) bits[i] = halves[i]! << 16;
  else {
    const table = halfTable();
    for (let i = 0; i < size; i++) bits[i] = table[halves[i]!]!;
  }
  return new Float32Array(bits.buffer);
}

let halves: Uint32Array | undefined;

/** Float32 bits of all 65,536 float16 numbers: a table look-up is five times as fast as the arithmetic. */
function halfTable(): Uint32Array {
  if (halves) return halves;
  halves = new Uint32Array(65536);
  for (let half = 0; half < 65536; half++) halves[half] = halfToFloatBits(half);
  return halves;
}

function halfToFloatBits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return (sign | 0x7f800000 | (fraction << 13)) >>> 0;
  if (exponent > 0) return (sign | ((exponent + 112) << 23) | (fraction << 13)) >>> 0;
  if (fraction === 0) return sign >>> 0;
  const shift = Math.clz32(fraction) - 21; // brings a subnormal's leading bit to the hidden place
  return (sign | ((113 - shift) << 23) | (((fraction << shift) & 1023) << 13)) >>> 0;
}

function scaleIntegers(
  integers: Int8Array,
  { shape, scales, granularity }: Int8Weight | Int4Weight,
): Float32Array {
  const values = new Float32Array(integers.length);
  if (granularity.per === 'tensor') {
    const scale = scales[0]!;
    for (let i = 0; i < values.length; i++) values[i] = integers[i]! * scale;
    return values;
  }
  const columns = shape[1]!;
  const rows = columns === 0 ? 0 : values.length / columns;
  const size = granularity.per === 'group' ? granularity.size : Number.POSITIVE_INFINITY;
  if (granularity.axis === 1) {
    for (let row = 0, i = 0; row < rows; row++) {
      const first = Math.floor(row / size) * columns;
      for (let column = 0; column < columns; column++, i++)
        values[i] = integers[i]! * scales[first + column]!;
    }
    return values;
  }
  const groups = granularity.per === 'group' ? Math.ceil(columns / size) : 1;
  for (let row = 0, i = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, i++) {
      values[i] = integers[i]! * scales[row * groups + Math.floor(column / size)]!;
    }
  }
  return values;
}
