// Tensors' memory on the GPU, which is used again: it has to look new.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Target } from '../../../lib/jit/target.js';
import { createWebgpuTarget } from '../../../lib/jit/targets/webgpu/run.js';
import { hasWebgpu, webgpuReason } from '../../webgpu.js';

describe.skipIf(!hasWebgpu)(`memory of tensors (${webgpuReason})`, () => {
  let target: Target;
  beforeAll(async () => {
    target = await createWebgpuTarget({ guard: false });
  });
  afterAll(() => target.dispose());

  const used = (elements: number): void => {
    const buffer = target.allocate(4 * elements);
    target.write(buffer, new Float32Array(elements).fill(7));
    target.release(buffer);
  };

  test('is full of zeros, whatever was there before', async () => {
    used(100);
    const buffer = target.allocate(400);
    expect(await target.readLater!(buffer, 'f32')).toEqual(new Float32Array(100));
    target.release(buffer);
  });

  test('keeps what is written to it, in part too', async () => {
    for (const size of [100, 97]) {
      used(100);
      const buffer = target.allocate(400);
      target.write(buffer, new Float32Array(size).fill(3));
      const expected = new Float32Array(100).fill(3, 0, size);
      expect(await target.readLater!(buffer, 'f32')).toEqual(expected);
      target.release(buffer);
    }
  });

  test('is not counted once it is released', () => {
    const before = target.memory().bufferBytes;
    used(5000);
    expect(target.memory().bufferBytes).toBe(before);
    const buffer = target.allocate(20000);
    expect(target.memory().bufferBytes).toBe(before + 20000);
    target.release(buffer);
  });

  test('makes room for a large tensor of another size', async () => {
    used(5e6);
    const buffer = target.allocate(4 * 4.5e6);
    const values = await target.readLater!(buffer, 'f32');
    expect([values[0], values[4.5e6 - 1]]).toEqual([0, 0]);
    target.release(buffer);
    used(5e6);
  });
});
