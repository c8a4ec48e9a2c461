// Random Weights of every kind and granularity.
import { floatWeight, type Weight } from '../../../lib/tensor.js';

export const weightKinds = [
  'f32',
  'bf16',
  'f16',
  'int8 tensor',
  'int8',
  'int8 32',
  'int8 24',
  'int4 32',
  'int4 10',
  'int4 64',
] as const;

/** A Weight of the kind; `axis` is that of the output channels, `random` gives numbers in -1..1. */
export function makeWeight(kind: string, shape: [number, number], axis: 0 | 1, random: () => number): Weight {
  const size = shape[0] * shape[1];
  const values = Float32Array.from({ length: size }, () => random() * 0.2);
  if (kind === 'f32') return floatWeight(values, shape);
  if (kind === 'bf16' || kind === 'f16') {
    const words = Uint16Array.from({ length: size }, (_, i) =>
      // f16: exponents of all sizes, subnormals and zeros among them
      kind === 'bf16'
        ? new Uint32Array(values.buffer)[i]! >>> 16
        : Math.floor((random() + 1) * 32768) & 0xbfff,
    );
    return { kind: 'float', dtype: kind, shape, bytes: new Uint8Array(words.buffer) };
  }
  const group = Number(/ (\d+)$/.exec(kind)?.[1] ?? 0);
  const channels = shape[axis];
  const groups = group ? Math.ceil(shape[1 - axis]! / group) : 1;
  const scaleCount = kind === 'int8 tensor' ? 1 : groups * channels;
  const scales = Float32Array.from({ length: scaleCount }, () => (random() + 1.5) * 0.01);
  if (kind.startsWith('int4')) {
    const bytes = Uint8Array.from({ length: Math.ceil(size / 2) }, () => {
      const nibble = () => 8 + Math.round(random() * 7);
      return nibble() | (nibble() << 4);
    });
    return { kind: 'int4', shape, bytes, scales, granularity: { per: 'group', axis, size: group } };
  }
  const bytes = Int8Array.from({ length: size }, () => Math.round(random() * 127));
  const granularity =
    kind === 'int8 tensor'
      ? ({ per: 'tensor' } as const)
      : group
        ? ({ per: 'group', axis, size: group } as const)
        : ({ per: 'channel', axis } as const);
  return { kind: 'int8', shape, bytes, scales, granularity };
}
