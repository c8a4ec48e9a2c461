// lib/convert/saved.ts: Weights as quantize.ts saves them, in one safetensors file, described and read again.
// A path is a tensor's name; int8 and int4 have their scales under `<path>.scales`; the metadata says how each
// is to be read. Kept tensors are stored as they were.

import { describe, isRecord } from '../checkpoint/entry.js';
import type { TensorToWrite } from '../checkpoint/writer.js';
import type { Checkpoint } from '../checkpoint.js';
import { type FloatDType, type Granularity, type Shape, sizeOf, type Weight } from '../tensor.js';

/** Value of the metadata's `format` by which such a file is known; its number changes with the layout. */
export const savedFormat = 'response-time-params-1';

/** What the file's own header does not say of a quantized tensor. */
export interface SavedLayout {
  readonly kind: 'int8' | 'int4';
  readonly shape: Shape;
  readonly granularity: Granularity;
}

/** A Weight without its bytes. */
export type WeightLayout =
  | SavedLayout
  | { readonly kind: 'float'; readonly dtype: FloatDType; readonly shape: Shape };

/** Shape of a quantized Weight's scales. */
export function scalesShape({ shape, granularity }: Pick<SavedLayout, 'shape' | 'granularity'>): Shape {
  const [rows, columns] = shape as [number, number];
  if (granularity.per === 'tensor') return [1];
  if (granularity.per === 'channel') return [granularity.axis === 1 ? columns : rows];
  const { axis, size } = granularity;
  return axis === 1 ? [Math.ceil(rows / size), columns] : [rows, Math.ceil(columns / size)];
}

/** The tensors that a Weight becomes in the file: itself, and its scales. */
export function tensorsToWrite(path: string, weight: WeightLayout): TensorToWrite[] {
  if (weight.kind === 'float') return [{ name: path, dtype: weight.dtype, shape: weight.shape }];
  const values: TensorToWrite =
    weight.kind === 'int8'
      ? { name: path, dtype: 'i8', shape: weight.shape }
      : { name: path, dtype: 'u8', shape: [Math.ceil(sizeOf(weight.shape) / 2)] };
  return [values, { name: `${path}.scales`, dtype: 'f32', shape: scalesShape(weight) }];
}

/** Shape of a saved Weight, which for int4 is not its tensor's. */
export function savedShape(checkpoint: Checkpoint, path: string): Shape {
  return layoutOf(checkpoint, path)?.shape ?? checkpoint.entry(path).shape;
}

/**
 * Reads a Weight that was saved, bit for bit as it was.
 * @throws Error naming the file and the tensor if the metadata and the tensors disagree
 */
export async function readSavedWeight(checkpoint: Checkpoint, path: string): Promise<Weight> {
  const layout = layoutOf(checkpoint, path);
  if (!layout) return checkpoint.read(path);
  for (const { name, dtype, shape } of tensorsToWrite(path, layout)) {
    const found = checkpoint.entry(name);
    if (found.dtype === dtype && String(found.shape) === String(shape)) continue;
    const difference = `expected ${dtype} [${shape}], found ${found.dtype} [${found.shape}]`;
    throw new Error(`${found.file}: tensor ${name}: ${difference}; quantize the model again`);
  }
  const values = await checkpoint.readBytes(path);
  const scales = new Float32Array((await checkpoint.readBytes(`${path}.scales`)).buffer);
  const { kind, shape, granularity } = layout;
  if (kind === 'int8') return { kind, shape, bytes: new Int8Array(values.buffer), scales, granularity };
  if (granularity.per === 'group') return { kind, shape, bytes: values, scales, granularity };
  throw new Error(`${checkpoint.source}: ${path}: expected groups for int4, found per ${granularity.per}`);
}

function layoutOf(checkpoint: Checkpoint, path: string): SavedLayout | undefined {
  const text = checkpoint.metadata[path];
  if (text === undefined) return undefined;
  try {
    const layout: unknown = JSON.parse(text);
    if (isLayout(layout)) return layout;
  } catch {
    // falls through to the same message
  }
  const expected = 'expected { kind, shape, granularity }';
  throw new Error(
    `${checkpoint.source}: metadata of ${path}: ${expected}, found ${describe(text)}; quantize again`,
  );
}

function isLayout(value: unknown): value is SavedLayout {
  if (!isRecord(value) || !isRecord(value.granularity) || !Array.isArray(value.shape)) return false;
  const { per, axis, size } = value.granularity;
  const isShape = value.shape.length === 2 && value.shape.every((n) => Number.isSafeInteger(n) && n >= 0);
  const isPer = per === 'tensor' || ((per === 'channel' || per === 'group') && (axis === 0 || axis === 1));
  const isSize = per !== 'group' || (Number.isSafeInteger(size) && (size as number) > 0);
  return isShape && isPer && isSize && (value.kind === 'int8' || value.kind === 'int4');
}
