// lib/jit/lower/shape.ts: tfjs kernels that move elements without computing -> Reshape, Transpose, Slice, Broadcast,
// Concat. After the pass fuseElementwise most of them are only a way of reading.

import type {
  BatchToSpaceNDAttrs,
  ConcatAttrs,
  DepthToSpaceAttrs,
  ExpandDimsAttrs,
  MirrorPadAttrs,
  PackAttrs,
  PadV2Attrs,
  ReshapeAttrs,
  ReverseAttrs,
  SliceAttrs,
  SpaceToBatchNDAttrs,
  SplitVAttrs,
  StridedSliceAttrs,
  TileAttrs,
  TransposeAttrs,
  UnpackAttrs,
} from '@tensorflow/tfjs-core';
import { backend_util, slice_util } from '@tensorflow/tfjs-core';
import type { Shape } from '../../tensor.js';
import { sizeOf } from '../../tensor.js';
import type { GraphBuilder } from '../build.js';
import { elementsOf } from '../build.js';
import type { Value } from '../graph.js';
import type { LoweringTable } from './lowering.js';
import { axesOf, frontAxis, lowering } from './lowering.js';

/** A shape in which one axis may be -1: whatever is left. */
function completeShape(shape: Shape, elements: number): number[] {
  const known = sizeOf(shape.filter((size) => size !== -1));
  return shape.map((size) => (size === -1 ? elements / known : size));
}

/** Repeats x `reps[i]` times along axis i. */
function tile(b: GraphBuilder, x: Value, reps: readonly number[]): Value {
  const apart = x.shape.flatMap((size) => [1, size]);
  const repeated = x.shape.flatMap((size, axis) => [reps[axis]!, size]);
  const whole = x.shape.map((size, axis) => size * reps[axis]!);
  if (x.shape.every((size, axis) => size === 1 || reps[axis] === 1)) return b.broadcast(x, whole);
  return b.reshape(b.broadcast(b.reshape(x, apart), repeated), whole);
}

/** Adds `before` and `after` elements of one value to each axis. */
export function pad(
  b: GraphBuilder,
  x: Value,
  paddings: readonly (readonly [number, number])[],
  value: number,
): Value {
  return paddings.reduce((padded, [before, after], axis) => {
    const fill = (size: number): Value => {
      const shape = padded.shape.map((each, i) => (i === axis ? size : each));
      return b.broadcast(b.literal(value, x.dtype), shape);
    };
    const parts = [...(before ? [fill(before)] : []), padded, ...(after ? [fill(after)] : [])];
    return b.concat(parts, axis);
  }, x);
}

/** Mirrors the edges of each axis; `reflect` leaves the edge itself out, `symmetric` repeats it. */
function mirror(b: GraphBuilder, x: Value, paddings: MirrorPadAttrs['paddings'], offset: 0 | 1): Value {
  return paddings.reduce((padded, [before, after], axis) => {
    const size = padded.shape[axis]!;
    const left = before ? [b.sliceAxis(padded, axis, before - offset, before, -1)] : [];
    const right = after ? [b.sliceAxis(padded, axis, size - 2 + offset, after, -1)] : [];
    return b.concat([...left, padded, ...right], axis);
  }, x);
}

/** Cuts x along an axis into parts of the given sizes. */
function split(b: GraphBuilder, x: Value, axis: number, sizes: readonly number[]): Value[] {
  let begin = 0;
  return sizes.map((size) => {
    const part = b.sliceAxis(x, axis, begin, size);
    begin += size;
    return part;
  });
}

function stridedSlice(b: GraphBuilder, x: Value, attrs: StridedSliceAttrs): Value {
  const { begin, end, strides, beginMask, endMask, ellipsisMask, newAxisMask, shrinkAxisMask } = attrs;
  const info = slice_util.sliceInfo(
    [...x.shape],
    begin,
    end,
    strides,
    beginMask,
    endMask,
    ellipsisMask,
    newAxisMask,
    shrinkAxisMask,
  );
  if (info.isIdentity) return b.reshape(x, info.finalShape);
  const size = slice_util.computeOutShape(info.begin, info.end, info.strides);
  return b.reshape(b.slice(x, info.begin, size, info.strides), info.finalShape);
}

export const shape: LoweringTable = {
  Reshape: lowering<ReshapeAttrs>((b, { x }, attrs) =>
    b.reshape(x, completeShape(attrs.shape, elementsOf(x))),
  ),
  ExpandDims: lowering<ExpandDimsAttrs>((b, { all }, { dim }) => {
    const [x] = all as [Value];
    return b.reshape(x, x.shape.toSpliced(frontAxis(dim, x.shape.length + 1), 0, 1));
  }),
  Transpose: lowering<TransposeAttrs>((b, { x }, { perm }) => b.transpose(x, perm)),
  Slice: lowering<SliceAttrs>((b, { x }, { begin, size }) => {
    const starts = x.shape.map((_, axis) => [begin].flat()[axis] ?? 0);
    const sizes = [size].flat();
    const shape = x.shape.map((whole, axis) => {
      const wanted = sizes[axis] ?? -1;
      return wanted === -1 ? whole - starts[axis]! : wanted;
    });
    return b.slice(x, starts, shape);
  }),
  StridedSlice: lowering<StridedSliceAttrs>((b, { x }, attrs) => stridedSlice(b, x, attrs)),
  Reverse: lowering<ReverseAttrs>((b, { x }, { dims }) => {
    const axes = axesOf(dims, x.shape.length);
    const steps = x.shape.map((size, axis) => (axes.includes(axis) && size > 0 ? -1 : 1));
    return b.slice(
      x,
      steps.map((step, axis) => (step < 0 ? x.shape[axis]! - 1 : 0)),
      x.shape,
      steps,
    );
  }),
  Concat: lowering<ConcatAttrs>((b, { all }, { axis }) => {
    const along = frontAxis(axis, all[0]!.shape.length);
    const parts = all.filter((part) => elementsOf(part) > 0);
    return parts.length > 0 ? b.concat(parts, along) : b.add('Concat', all, { axis: along })[0]!;
  }),
  Pack: lowering<PackAttrs>((b, { all }, { axis }) => {
    const along = frontAxis(axis, all[0]!.shape.length + 1);
    const parts = all.map((part) => b.reshape(part, part.shape.toSpliced(along, 0, 1)));
    return b.concat(parts, along);
  }),
  Unpack: lowering<UnpackAttrs>((b, { all }, { axis }) => {
    const [value] = all as [Value];
    const along = frontAxis(axis, value.shape.length);
    const ones = new Array<number>(value.shape[along]!).fill(1);
    return split(b, value, along, ones).map((part) => b.reshape(part, value.shape.toSpliced(along, 1)));
  }),
  SplitV: lowering<SplitVAttrs>((b, { x }, { numOrSizeSplits, axis }) => {
    const along = frontAxis(axis, x.shape.length);
    return split(b, x, along, backend_util.prepareSplitSize(valueLike(x), numOrSizeSplits, along));
  }),
  Tile: lowering<TileAttrs>((b, { x }, { reps }) => tile(b, x, reps)),
  PadV2: lowering<PadV2Attrs>((b, { x }, { paddings, constantValue }) => pad(b, x, paddings, constantValue)),
  MirrorPad: lowering<MirrorPadAttrs>((b, { x }, { paddings, mode }) => {
    return mirror(b, x, paddings, mode === 'reflect' ? 0 : 1);
  }),
  SpaceToBatchND: lowering<SpaceToBatchNDAttrs>((b, { x }, { blockShape, paddings }) => {
    const rest = x.shape.slice(1 + blockShape.length).map((): [number, number] => [0, 0]);
    const padded = pad(b, x, [[0, 0], ...(paddings as [number, number][]), ...rest], 0);
    const block = sizeOf(blockShape);
    const apart = backend_util.getReshaped([...padded.shape], blockShape, block, false);
    const perm = backend_util.getPermuted(apart.length, blockShape.length, false);
    const whole = backend_util.getReshapedPermuted([...padded.shape], blockShape, block, false);
    return b.reshape(b.transpose(b.reshape(padded, apart), perm), whole);
  }),
  BatchToSpaceND: lowering<BatchToSpaceNDAttrs>((b, { x }, { blockShape, crops }) => {
    const block = sizeOf(blockShape);
    const apart = backend_util.getReshaped([...x.shape], blockShape, block);
    const perm = backend_util.getPermuted(apart.length, blockShape.length);
    const whole = backend_util.getReshapedPermuted([...x.shape], blockShape, block);
    const begin = backend_util.getSliceBeginCoords(crops, blockShape.length);
    const size = backend_util.getSliceSize(whole, crops, blockShape.length);
    const joined = b.reshape(b.transpose(b.reshape(x, apart), perm), whole);
    const complete = (list: readonly number[], other: (axis: number) => number) =>
      whole.map((_, axis) => list[axis] ?? other(axis));
    return b.slice(
      joined,
      complete(begin, () => 0),
      complete(size, (axis) => whole[axis]!),
    );
  }),
  DepthToSpace: lowering<DepthToSpaceAttrs>((b, { x }, { blockSize, dataFormat }) => {
    if (dataFormat !== 'NHWC') throw new Error(`depthToSpace: expected NHWC, received ${dataFormat}`);
    const [batch, height, width, depth] = x.shape as [number, number, number, number];
    const channels = depth / (blockSize * blockSize);
    const apart = b.reshape(x, [batch, height, width, blockSize, blockSize, channels]);
    const whole = [batch, height * blockSize, width * blockSize, channels];
    return b.reshape(b.transpose(apart, [0, 1, 3, 2, 4, 5]), whole);
  }),
};

/** What tfjs's helper reads of a tensor. */
function valueLike(x: Value): Parameters<typeof backend_util.prepareSplitSize>[0] {
  return { shape: [...x.shape], dtype: 'float32' } as Parameters<typeof backend_util.prepareSplitSize>[0];
}
