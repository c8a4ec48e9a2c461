// lib/jit/lower/vision.ts: tfjs kernels on images [batch, height, width, channels] that need no convolution: pooling and
// resizing -> slices, maxima, sums, gathers.

import type {
  AvgPoolAttrs,
  MaxPoolAttrs,
  ResizeBilinearAttrs,
  ResizeNearestNeighborAttrs,
} from '@tensorflow/tfjs-core';
import { backend_util } from '@tensorflow/tfjs-core';
import type { GraphBuilder } from '../build.js';
import type { Value } from '../graph.js';
import type { LoweringTable } from './lowering.js';
import { lowering } from './lowering.js';
import { pad } from './shape.js';

type ImageShape = [number, number, number, number];
type PoolInfo = ReturnType<typeof backend_util.computePool2DInfo>;

/** One value for each place in the window: x shifted by it, at the window's stride. */
function windowSlices(b: GraphBuilder, x: Value, info: PoolInfo, fill: number): Value[] {
  const { outHeight, outWidth, strideHeight, strideWidth, filterHeight, filterWidth } = info;
  const [batch, height, width, channels] = x.shape as ImageShape;
  const [top, left] = [Math.max(0, info.padInfo.top), Math.max(0, info.padInfo.left)];
  // What the last window reaches, which is not always what padInfo has: tfjs counts places as if filters were square.
  const bottom = (outHeight - 1) * strideHeight + info.effectiveFilterHeight - top - height;
  const right = (outWidth - 1) * strideWidth + info.effectiveFilterWidth - left - width;
  const [vertical, horizontal] = [
    [top, Math.max(0, bottom)],
    [left, Math.max(0, right)],
  ] as const;
  const padded = pad(b, x, [[0, 0], vertical, horizontal, [0, 0]], fill);
  return Array.from({ length: filterHeight * filterWidth }, (_, at) => {
    const [y, z] = [
      Math.floor(at / filterWidth) * info.dilationHeight,
      (at % filterWidth) * info.dilationWidth,
    ];
    return b.slice(
      padded,
      [0, y, z, 0],
      [batch, outHeight, outWidth, channels],
      [1, strideHeight, strideWidth, 1],
    );
  });
}

function poolInfo(
  x: Value,
  { filterSize, strides, pad, dimRoundingMode }: MaxPoolAttrs | AvgPoolAttrs,
): PoolInfo {
  return backend_util.computePool2DInfo(x.shape as ImageShape, filterSize, strides, 1, pad, dimRoundingMode);
}

function averagePool(b: GraphBuilder, x: Value, info: PoolInfo): Value {
  const total = windowSlices(b, x, info, 0).reduce((sum, slice) => b.binary('Add', sum, slice));
  // Only places inside the image count.
  const [, height, width] = x.shape as ImageShape;
  const ones = b.broadcast(b.literal(1), [1, height, width, 1]);
  const count = windowSlices(b, ones, info, 0).reduce((sum, slice) => b.binary('Add', sum, slice));
  return b.binary('Div', total, count);
}

/** Where output pixel i of `to` lies in the input of `from` pixels, by tfjs's formula. */
function sourcePlaces(from: number, to: number, alignCorners: boolean, halfPixelCenters: boolean): number[] {
  const aligned = alignCorners && to > 1;
  const ratio = aligned ? (from - 1) / (to - 1) : from / to;
  return Array.from({ length: to }, (_, i) => (halfPixelCenters ? ratio * (i + 0.5) - 0.5 : ratio * i));
}

function pick(b: GraphBuilder, x: Value, axis: number, places: readonly number[]): Value {
  const indices = b.constant(Int32Array.from(places), 'i32', [places.length]);
  return b.add('Gather', [x, indices], { axis, batchAxes: 0 })[0]!;
}

/** Mixes the two neighbours of each place along an axis. */
function interpolate(b: GraphBuilder, x: Value, axis: number, places: readonly number[]): Value {
  const last = x.shape[axis]! - 1;
  const floors = places.map((place) => Math.max(0, Math.floor(place)));
  const ceilings = places.map((place) => Math.min(last, Math.ceil(place)));
  const fractions = places.map((place, i) => place - floors[i]!);
  const shape = x.shape.map((_, i) => (i === axis ? places.length : 1));
  const fraction = b.constant(Float32Array.from(fractions), 'f32', shape);
  const low = pick(b, x, axis, floors);
  const high = pick(
    b,
    x,
    axis,
    ceilings.map((place) => Math.max(0, place)),
  );
  return b.binary('Add', low, b.binary('Mul', b.binary('Sub', high, low), fraction));
}

export const vision: LoweringTable = {
  MaxPool: lowering<MaxPoolAttrs>((b, { x }, attrs) => {
    const slices = windowSlices(b, x, poolInfo(x, attrs), Number.NEGATIVE_INFINITY);
    return slices.reduce((max, slice) => b.binary('Max', max, slice));
  }),
  AvgPool: lowering<AvgPoolAttrs>((b, { x }, attrs) => averagePool(b, b.cast(x, 'f32'), poolInfo(x, attrs))),
  ResizeNearestNeighbor: lowering<ResizeNearestNeighborAttrs>((b, { all }, attrs) => {
    const [images] = all as [Value];
    const { alignCorners, halfPixelCenters, size } = attrs;
    return size.reduce((resized, to, i) => {
      const from = images.shape[i + 1]!;
      const places = sourcePlaces(from, to, alignCorners, halfPixelCenters).map((place) =>
        Math.min(
          from - 1,
          Math.max(0, alignCorners ? Math.round(place) : Math.floor(place + (halfPixelCenters ? 0.5 : 0))),
        ),
      );
      return pick(b, resized, i + 1, places);
    }, images);
  }),
  ResizeBilinear: lowering<ResizeBilinearAttrs>((b, { all }, attrs) => {
    const images = b.cast(all[0]!, 'f32');
    const { alignCorners, halfPixelCenters, size } = attrs;
    return size.reduce((resized, to, i) => {
      return interpolate(
        b,
        resized,
        i + 1,
        sourcePlaces(images.shape[i + 1]!, to, alignCorners, halfPixelCenters),
      );
    }, images);
  }),
  FlipLeftRight: lowering((b, { all }) => {
    const [image] = all as [Value];
    return b.slice(image, [0, 0, image.shape[2]! - 1, 0], image.shape, [1, 1, -1, 1]);
  }),
};
