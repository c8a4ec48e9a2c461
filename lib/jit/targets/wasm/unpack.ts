// lib/jit/targets/wasm/unpack.ts: a packed Weight back to float32 in its own order: for the rare program that reads a
// Weight in another way than it was bound for. The reverse of pack.ts.

import { HALF_PRESCALE_LOG2, PANEL, type PackedLayout } from './pack.js';

/**
 * Values of a packed Weight.
 * @param transposed as it was packed
 * @returns [in, out], or [out, in] if transposed
 */
export function unpack(packed: Uint8Array, layout: PackedLayout, transposed: boolean): Float32Array {
  const { inDim, outDim } = layout;
  const values = new Float32Array(inDim * outDim);
  const read = readerOf(new DataView(packed.buffer, packed.byteOffset, packed.byteLength), layout);
  for (let channel = 0; channel < outDim; channel++) {
    for (let input = 0; input < inDim; input++)
      values[transposed ? channel * inDim + input : input * outDim + channel] = read(channel, input);
  }
  return values;
}

function readerOf(view: DataView, layout: PackedLayout): (channel: number, input: number) => number {
  const { kind, groupSize, groups, groupBytes, scaleBytes } = layout;
  const groupAt = (channel: number, input: number) =>
    (Math.floor(channel / PANEL) * groups + (groups > 1 ? Math.floor(input / groupSize) : 0)) * groupBytes;
  const scaleOf = (channel: number, input: number) =>
    view.getFloat32(groupAt(channel, input) + (channel % PANEL) * 4, true);
  const word = new DataView(new ArrayBuffer(4));
  const fromBits = (bits: number) => {
    word.setInt32(0, bits);
    return word.getFloat32(0);
  };
  return (channel, input) => {
    const lane = channel % PANEL;
    const start = groupAt(channel, input) + scaleBytes;
    const place = groups > 1 ? input % groupSize : input;
    const cell = place * PANEL + lane;
    switch (kind) {
      case 'f32':
        return view.getFloat32(start + cell * 4, true);
      case 'bf16':
        return fromBits(view.getUint16(start + cell * 2, true) << 16);
      case 'f16': {
        const code = view.getInt16(start + cell * 2, true);
        return fromBits((code << 13) & 0x8fffe000) * 2 ** HALF_PRESCALE_LOG2 * scaleOf(channel, input);
      }
      case 'int8':
        return (
          view.getInt8(start + (place >> 1) * PANEL * 2 + lane * 2 + (place & 1)) * scaleOf(channel, input)
        );
      case 'int4': {
        const bits = view.getUint32(start + (place >> 3) * PANEL * 4 + lane * 4, true);
        const shift = (place & 1) * 16 + ((place >> 1) & 3) * 4;
        return (((bits >>> shift) & 15) - 8) * scaleOf(channel, input);
      }
    }
  };
}
