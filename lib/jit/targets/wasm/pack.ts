// lib/jit/targets/wasm/pack.ts: Weight -> bytes in the order in which the product kernels read them, and back.
// Output channels go in panels of 16. A panel is one linear stream along the input axis: the processor's prefetcher
// sees nothing but forward reads, and the lanes of a vector are channels, so that no sum runs across lanes.
//
//   f32   [panel][in][16] float32
//   bf16  [panel][in][16] upper halves of float32
//   f16   [panel] scales [16], [in][16] halves with another exponent bias (see packHalves)
//   int8  [panel][group] scales [16], [inputs / 2][16][2]: pairs of inputs lie together for the 16-bit dot product
//   int4  [panel][group] scales [16], [inputs / 8][16] 32-bit words, one a channel: nibble n of the low half is input
//         2 n plus 8, nibble n of the high half is input 2 n + 1 plus 8
//
// Without groups the whole input axis is one group. Inputs are padded with zeros to whole blocks (see `block`).

import { float32Values, type Weight } from '../../../tensor.js';
import type { WeightFormat } from '../../graph.js';

export const PANEL = 16;
/** Inputs that share one scale of the 16-bit activations: the error is 2^-16 of the largest among them. */
const ACTIVATION_BLOCK = { grouped: 32, whole: 64 };
const SCALE_BYTES = PANEL * 4;

export type PackedKind = 'f32' | 'bf16' | 'f16' | 'int8' | 'int4';

/** Where everything lies in a packed Weight; depends on the format only, so code is made before the bytes come. */
export interface PackedLayout {
  readonly kind: PackedKind;
  readonly inDim: number;
  readonly outDim: number;
  readonly panels: number;
  /** Inputs that share a weight scale; inDim where there are no groups. */
  readonly groupSize: number;
  /** groupSize rounded up to whole blocks. */
  readonly paddedGroup: number;
  readonly groups: number;
  /** Inputs that share an activation scale; divides paddedGroup. 0 for float kinds. */
  readonly block: number;
  /** Bytes of scales before each group. */
  readonly scaleBytes: number;
  /** Bytes of one group of one panel, scales included. */
  readonly groupBytes: number;
  readonly panelBytes: number;
  readonly bytes: number;
}

/** Bits of one value by kind. */
const BITS: Readonly<Record<MultipliedLayout['kind'], number>> = {
  int16: 16,
  f32: 32,
  bf16: 16,
  f16: 16,
  int8: 8,
  int4: 4,
};

/**
 * Layout of a packed Weight.
 * @param transposed true for a Weight [out, in], such as an embedding [vocab, dim]; false for a kernel [in, out]
 */
export function layoutOf(format: WeightFormat, transposed: boolean): PackedLayout {
  const [rows, columns] = format.shape as readonly [number, number];
  const [inDim, outDim] = transposed ? [columns, rows] : [rows, columns];
  const kind = kindOf(format, transposed);
  const isInteger = kind === 'int8' || kind === 'int4';
  const groupSize = isInteger ? Math.min(groupSizeOf(format), inDim) : inDim;
  const groups = Math.max(1, Math.ceil(inDim / Math.max(1, groupSize)));
  // The int8 kernel reads inputs by 2, the int4 kernel by 8.
  const largestBlock = groups > 1 ? ACTIVATION_BLOCK.grouped : ACTIVATION_BLOCK.whole;
  const block = isInteger ? Math.min(largestBlock, roundUp(groupSize, kind === 'int4' ? 8 : 2)) : 0;
  const paddedGroup = isInteger ? roundUp(groupSize, Math.max(1, block)) : groupSize;
  const scaleBytes = isInteger || kind === 'f16' ? SCALE_BYTES : 0;
  const groupBytes = scaleBytes + (paddedGroup * PANEL * BITS[kind]) / 8;
  const panels = Math.ceil(outDim / PANEL);
  const panelBytes = groups * groupBytes;
  const bytes = panels * panelBytes;
  return {
    kind,
    inDim,
    outDim,
    panels,
    groupSize,
    paddedGroup,
    groups,
    block,
    scaleBytes,
    groupBytes,
    panelBytes,
    bytes,
  };
}

/** Of a panel as it is multiplied: as it is stored, or unpacked. */
export interface MultipliedLayout extends Omit<PackedLayout, 'kind'> {
  readonly kind: PackedKind | 'int16';
}

/** Layout of a panel unpacked by decode.ts: 16-bit floats to float32, integers to int16; float32 stays. */
export function decodedLayout(layout: PackedLayout): MultipliedLayout {
  if (layout.kind === 'f32') return layout;
  const isInteger = layout.block > 0;
  const kind = isInteger ? 'int16' : 'f32';
  const scaleBytes = isInteger ? layout.scaleBytes : 0;
  const groupBytes = scaleBytes + (layout.paddedGroup * PANEL * BITS[kind]) / 8;
  const panelBytes = layout.groups * groupBytes;
  return { ...layout, kind, scaleBytes, groupBytes, panelBytes, bytes: layout.panels * panelBytes };
}

/** Integers whose scales run along the inputs cannot be scaled after the sum: those are kept as float32. */
function kindOf(format: WeightFormat, transposed: boolean): PackedKind {
  if (format.kind === 'float') return format.dtype;
  const { granularity } = format;
  const outputAxis = transposed ? 0 : 1;
  return granularity.per === 'tensor' || granularity.axis === outputAxis ? format.kind : 'f32';
}

function groupSizeOf(format: WeightFormat): number {
  if (format.kind === 'float' || format.granularity.per !== 'group') return Number.POSITIVE_INFINITY;
  return format.granularity.size;
}

const roundUp = (value: number, multiple: number) => Math.ceil(value / multiple) * multiple;

/** Where the stored value of (input, channel) lies in the Weight's own order. */
interface Source {
  readonly inputStride: number;
  readonly channelStride: number;
}

/**
 * Writes a Weight in panel order.
 * @param target layout.bytes long, 16-byte aligned; all of it is written
 * @throws RangeError if a float16 is not finite (gives the channel)
 */
export function pack(weight: Weight, transposed: boolean, layout: PackedLayout, target: Uint8Array): void {
  const { inDim, outDim } = layout;
  const source: Source = transposed
    ? { inputStride: 1, channelStride: inDim }
    : { inputStride: outDim, channelStride: 1 };
  clearPadding(layout, target);
  switch (layout.kind) {
    case 'f32':
      packWords(float32Values(weight), source, layout, float32View(target));
      break;
    case 'bf16':
      packWords(uint16Values(weight.bytes), source, layout, uint16View(target));
      break;
    case 'f16':
      packHalves(weight, source, layout, target);
      break;
    case 'int8':
      packScales(weight, layout, transposed, target);
      packInt8(weight.bytes, source, layout, target);
      break;
    case 'int4':
      if (weight.kind !== 'int4')
        throw new TypeError(`pack: expected an int4 weight, received ${weight.kind}`);
      packScales(weight, layout, transposed, target);
      packInt4(weight.bytes, source, layout, target);
  }
}

/** Zeros where no value lies: in the last panel if it is not full, and in groups of incomplete blocks. */
function clearPadding(
  { inDim, outDim, groups, paddedGroup, panels, panelBytes }: PackedLayout,
  target: Uint8Array,
) {
  if (groups * paddedGroup !== inDim) target.fill(0);
  else if (outDim % PANEL !== 0) target.fill(0, (panels - 1) * panelBytes);
}

type Words = Float32Array | Uint16Array;

/** float32 and bfloat16: a transposition in blocks of 16 channels. */
function packWords(
  values: Words,
  { inputStride, channelStride }: Source,
  layout: PackedLayout,
  target: Words,
): void {
  const { inDim, outDim, panels } = layout;
  for (let panel = 0; panel < panels; panel++) {
    const first = panel * PANEL;
    const channels = Math.min(PANEL, outDim - first);
    let to = panel * inDim * PANEL;
    for (let input = 0; input < inDim; input++, to += PANEL) {
      let from = input * inputStride + first * channelStride;
      for (let channel = 0; channel < channels; channel++, from += channelStride)
        target[to + channel] = values[from]!;
    }
  }
}

/**
 * float16, so that the kernel needs no case for subnormals: a half becomes sign, 5 exponent bits, 10 fraction bits with
 * the exponent counted from the tensor's largest: code 31 is the largest exponent, 1 is 2^30 below it, 0 is zero.
 * What lies further below is rounded away: less than 2^-31 of the largest value.
 */
function packHalves(weight: Weight, source: Source, layout: PackedLayout, target: Uint8Array): void {
  const values = float32Values(weight);
  let largest = 0;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, Math.abs(values[i]!));
  if (!Number.isFinite(largest)) {
    throw new RangeError(`weight: expected finite float16 values, received ${largest}; check the checkpoint`);
  }
  const top = largest === 0 ? 0 : Math.floor(Math.log2(largest));
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const codes = new Uint16Array(values.length);
  for (let i = 0; i < codes.length; i++) {
    const exponent = ((bits[i]! >>> 23) & 255) - 127 - top + 31;
    if (exponent > 0) codes[i] = ((bits[i]! >>> 16) & 0x8000) | (exponent << 10) | ((bits[i]! >>> 13) & 1023);
  }
  const packed = new Uint16Array(layout.panels * layout.inDim * PANEL);
  packWords(codes, source, layout, packed);
  const panelHalves = layout.inDim * PANEL;
  for (let panel = 0; panel < layout.panels; panel++) {
    const start = panel * layout.panelBytes;
    // The kernel sees 2^(code - 127) and multiplies its inputs by HALF_PRESCALE: this undoes both.
    float32View(target.subarray(start, start + SCALE_BYTES)).fill(2 ** (top - 31 + 127 - HALF_PRESCALE_LOG2));
    uint16View(target.subarray(start + SCALE_BYTES, start + layout.panelBytes)).set(
      packed.subarray(panel * panelHalves, (panel + 1) * panelHalves),
    );
  }
}

/** Inputs of a float16 product are multiplied by 2^60, so that no product of codes is subnormal. */
export const HALF_PRESCALE_LOG2 = 60;

function packScales(weight: Weight, layout: PackedLayout, transposed: boolean, target: Uint8Array): void {
  if (weight.kind === 'float') throw new TypeError('pack: expected an integer weight, received a float one');
  const { scales, granularity } = weight;
  const { outDim, groups, groupBytes } = layout;
  const [groupStride, channelStride] =
    granularity.per === 'tensor' ? [0, 0] : transposed ? [1, groups] : [outDim, 1];
  const floats = float32View(target);
  for (let channel = 0; channel < outDim; channel++) {
    const panel = Math.floor(channel / PANEL);
    for (let group = 0; group < groups; group++) {
      const at = ((panel * groups + group) * groupBytes) / 4 + (channel % PANEL);
      floats[at] = scales[group * groupStride + channel * channelStride]!;
    }
  }
}

/** Calls visit(panel, group, input, place of input in its group, target offset of the group's values). */
function eachGroup(
  layout: PackedLayout,
  visit: (panel: number, firstInput: number, inputs: number, at: number) => void,
) {
  const { panels, groups, groupSize, inDim, groupBytes } = layout;
  for (let panel = 0; panel < panels; panel++) {
    for (let group = 0; group < groups; group++) {
      const firstInput = group * groupSize;
      const inputs = Math.min(groupSize, inDim - firstInput);
      visit(panel, firstInput, inputs, (panel * groups + group) * groupBytes + SCALE_BYTES);
    }
  }
}

function packInt8(values: ArrayLike<number>, source: Source, layout: PackedLayout, target: Uint8Array): void {
  const pairs = uint16View(target);
  const { inputStride, channelStride } = source;
  eachGroup(layout, (panel, firstInput, inputs, at) => {
    const firstChannel = panel * PANEL;
    const channels = Math.min(PANEL, layout.outDim - firstChannel);
    for (let input = 0; input < inputs; input += 2) {
      const to = at / 2 + (input / 2) * PANEL;
      let from = (firstInput + input) * inputStride + firstChannel * channelStride;
      const hasSecond = input + 1 < inputs;
      for (let channel = 0; channel < channels; channel++, from += channelStride) {
        const second = hasSecond ? values[from + inputStride]! << 8 : 0;
        pairs[to + channel] = (values[from]! & 255) | second;
      }
    }
  });
}

const EIGHT_ZEROS = 0x88888888; // a nibble of 8 stands for zero

function packInt4(bytes: Uint8Array, source: Source, layout: PackedLayout, target: Uint8Array): void {
  const words = uint32View(target);
  const { inputStride, channelStride } = source;
  eachGroup(layout, (panel, firstInput, inputs, at) => {
    const firstChannel = panel * PANEL;
    const channels = Math.min(PANEL, layout.outDim - firstChannel);
    for (let input = 0; input < layout.paddedGroup; input += 8) {
      const to = at / 4 + (input / 8) * PANEL;
      const present = Math.min(8, inputs - input);
      words.fill(EIGHT_ZEROS, to, to + PANEL);
      let from = (firstInput + input) * inputStride + firstChannel * channelStride;
      for (let channel = 0; present > 0 && channel < channels; channel++, from += channelStride) {
        const areBytes = inputStride === 1 && present === 8 && from % 2 === 0;
        words[to + channel] = areBytes
          ? wordOfBytes(bytes, from / 2)
          : wordOfNibbles(bytes, from, inputStride, present);
      }
    }
  });
}

/** Eight inputs of a channel that lie side by side, two a byte. */
function wordOfBytes(bytes: Uint8Array, first: number): number {
  let word = 0;
  for (let pair = 0; pair < 4; pair++) {
    const both = bytes[first + pair]!;
    word |= ((both & 15) | ((both >>> 4) << 16)) << (4 * pair);
  }
  return word;
}

/** Up to eight inputs of a channel, wherever they lie. */
function wordOfNibbles(bytes: Uint8Array, first: number, stride: number, present: number): number {
  let [word, from] = [EIGHT_ZEROS, first];
  for (let place = 0; place < present; place++, from += stride) {
    const nibble = (bytes[from >>> 1]! >>> ((from & 1) * 4)) & 15;
    word ^= (nibble ^ 8) << ((place & 1) * 16 + (place >> 1) * 4);
  }
  return word;
}

const float32View = (bytes: Uint8Array) =>
  new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const uint32View = (bytes: Uint8Array) =>
  new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const uint16View = (bytes: Uint8Array) =>
  new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);

function uint16Values(bytes: Uint8Array | Int8Array): Uint16Array {
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
  return new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 2);
}
