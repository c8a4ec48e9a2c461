// The compiled function as its caller sees it: keys, trees, donation, memory, errors.
import * as tf from '@tensorflow/tfjs-core';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { bind, jit, targetMemory } from '../../lib/jit/jit.js';
import { embed, linear, unembed, vector } from '../../lib/ops.js';
import { floatWeight } from '../../lib/tensor.js';
import { agrees, expectClose, numbers, defaultTarget as target } from './agree.js';

beforeEach(async () => {
  await tf.setBackend('cpu');
});

describe('compilations', () => {
  test('the function runs only to be traced; a new shape compiles anew', async () => {
    const fn = vi.fn((x: tf.Tensor) => tf.add(x, 1));
    const f = jit(fn, { target });
    for (const size of [3, 3, 4, 3]) expect((await f(tf.ones([size]))).shape).toEqual([size]);
    expect(fn).toHaveBeenCalledTimes(2);
    expect(f.compilations).toBe(2);
  });

  test('a new type, structure or plain value compiles anew; other values do not', async () => {
    const f = jit((x: tf.Tensor, options: { scale: number; name?: string }) => tf.mul(x, options.scale), {
      target,
    });
    await f(tf.ones([2]), { scale: 2 });
    await f(tf.zeros([2]), { scale: 2 });
    expect(f.compilations).toBe(1);
    const three = await f(tf.ones([2]), { scale: 3 });
    expect(Array.from(await three.data())).toEqual([3, 3]);
    await f(tf.ones([2], 'int32'), { scale: 3 });
    await f(tf.ones([2]), { scale: 3, name: 'three' });
    expect(f.compilations).toBe(4);
  });

  test('what RT_DEBUG=1 says of a recompilation names the argument, old and new', async () => {
    vi.stubEnv('RT_DEBUG', '1');
    const written = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    const f = jit((p: { x: tf.Tensor }) => tf.neg(p.x), { target, name: 'negate' });
    await f({ x: tf.ones([2]) });
    await f({ x: tf.ones([3]) });
    vi.unstubAllEnvs();
    const text = written.mock.calls.map(([line]) => line).join('');
    written.mockRestore();
    expect(text).toContain('jit negate: compiled anew: was 0.x: float32[2], is 0.x: float32[3]');
  });

  test('concurrent calls share a compilation and do not disturb each other', async () => {
    const f = jit((x: tf.Tensor) => tf.square(x), { target });
    const results = await Promise.all([1, 2, 3].map((value) => f(tf.scalar(value))));
    expect(await Promise.all(results.map(async (y) => (await y.data())[0]))).toEqual([1, 4, 9]);
    expect(f.compilations).toBe(1);
  });
});

describe('trees', () => {
  test('nested results, plain values, tensors that pass through', async () => {
    const fn = (x: { a: tf.Tensor; list: tf.Tensor[] }, n: number) => ({
      sum: tf.add(x.a, x.list[1]!),
      same: x.a,
      twice: [x.a, x.a],
      n,
      nothing: null,
      text: 'hello',
    });
    const f = jit(fn, { target });
    const result = await f({ a: tf.ones([2]), list: [tf.zeros([2]), tf.fill([2], 5)] }, 7);
    expect([result.n, result.nothing, result.text]).toEqual([7, null, 'hello']);
    expect(Array.from(await result.sum.data())).toEqual([6, 6]);
    expect(result.twice).toHaveLength(2);
    await agrees(fn, [{ a: tf.ones([2]), list: [tf.zeros([2]), tf.fill([2], 5)] }, 7]);
  });

  test('closure tensors and Weights are captured once', async () => {
    const w = numbers([3, 4]);
    const weight = floatWeight(numbers([3, 4], 2).dataSync() as Float32Array, [3, 4]);
    await agrees((x: tf.Tensor) => tf.add(tf.matMul(x, w), linear(x, weight)), [numbers([2, 3])]);
  });

  test('a leaf that is none of these is refused by its path', async () => {
    const f = jit((x: { a: unknown }) => x.a, { target });
    await expect(f({ a: new Float32Array(2) })).rejects.toThrow(/0\.a.*Float32Array.*tf\.tensor/);
    await expect(f({ a: new Map() })).rejects.toThrow(/0\.a.*received Map/);
  });
});

describe('weights', () => {
  const params = () => ({
    embedding: floatWeight(numbers([5, 4]).dataSync() as Float32Array, [5, 4]),
    kernel: floatWeight(numbers([4, 3], 2).dataSync() as Float32Array, [4, 3]),
    bias: floatWeight(numbers([3], 3).dataSync() as Float32Array, [3]),
  });
  type Params = ReturnType<typeof params>;
  const fn = (p: Params, ids: tf.Tensor) => {
    const x = embed(p.embedding, ids);
    return { y: linear(x, p.kernel, p.bias), bias: vector(p.bias), logits: unembed(x, p.embedding) };
  };

  test('in arguments', async () => {
    await agrees(fn, [params(), tf.tensor1d([4, 0, 2], 'int32')]);
  });

  test('bound ahead: the source is freed, the same tree is the argument', async () => {
    const bound = params();
    const expected = fn(params(), tf.tensor1d([1], 'int32'));
    const before = targetMemory(target).weightBytes;
    expect(await bind(bound, target)).toEqual(bound);
    expect(targetMemory(target).weightBytes).toBeGreaterThanOrEqual(before + 4 * (20 + 12 + 3));
    expect(() => bound.kernel.bytes).toThrow(/kernel.*moved into the target/);
    const f = jit(fn, { target });
    const result = await f(bound, tf.tensor1d([1], 'int32'));
    expectClose(Array.from(await result.logits.data()), Array.from(expected.logits.dataSync()));
    expect(f.compilations).toBe(1);
  });

  test('tensors are bound too, and freed here', async () => {
    const [w, b] = [numbers([4, 3]), numbers([3], 2)];
    const expected = tf.add(tf.matMul(tf.ones([1, 4]), w), b);
    const bound = await bind({ w, b }, target);
    expect([w.isDisposed, b.isDisposed]).toEqual([true, true]);
    const f = jit((p: typeof bound, x: tf.Tensor) => tf.add(tf.matMul(x, p.w), p.b), { target });
    for (let i = 0; i < 2; i++)
      expectClose(
        Array.from(await (await f(bound, tf.ones([1, 4]))).data()),
        Array.from(expected.dataSync()),
      );
  });

  test('their bytes cannot be read while tracing', async () => {
    const f = jit((p: Params) => tf.tensor(p.bias.bytes), { target });
    await expect(f(params())).rejects.toThrow(/bytes of 0\.bias.*ops\.ts/);
  });
});

describe('memory', () => {
  test('results are counted by tf.memory and freed by dispose', async () => {
    const f = jit((x: tf.Tensor) => [tf.neg(x), tf.exp(x)], { target });
    const x = tf.ones([2, 3]);
    tf.dispose(await f(x));
    const before = tf.memory();
    const result = await f(x);
    expect(tf.memory().numTensors).toBe(before.numTensors + 2);
    expect(tf.memory().numBytes).toBe(before.numBytes + 2 * 24);
    tf.dispose(result);
    expect(tf.memory()).toEqual(before);
    f.dispose();
  });

  test('a result is the next call´s argument where it lies, and an eager operation´s anywhere', async () => {
    const f = jit((x: tf.Tensor) => tf.add(x, 1), { target });
    const once = await f(tf.zeros([2, 2]));
    const twice = await f(once);
    const before = tf.memory().numTensors;
    const sum = tf.tidy(() => tf.sum(tf.reshape(twice, [4])));
    expect(sum.dataSync()[0]).toBe(8);
    expect(Array.from(twice.dataSync())).toEqual([2, 2, 2, 2]); // its memory outlived the tidy
    const thrice = await f(twice);
    expect(Array.from(await thrice.data())).toEqual([3, 3, 3, 3]);
    expect(Array.from(await once.data())).toEqual([1, 1, 1, 1]);
    expect(tf.memory().numTensors).toBe(before + 2);
    const copy = once.clone();
    once.dispose();
    expect(Array.from(await copy.data())).toEqual([1, 1, 1, 1]);
    tf.dispose([copy, twice, thrice, sum]);
  });

  test('a donated argument is used up', async () => {
    const f = jit((x: { c: tf.Tensor }, y: tf.Tensor) => ({ c: tf.add(x.c, y) }), { target, donate: [0] });
    const y = tf.ones([2]);
    const first = { c: tf.zeros([2]) };
    const second = await f(first, y);
    await expect(f(first, y)).rejects.toThrow(/argument 0\.c was donated before/);
    const third = await f(second, y);
    expect(Array.from(await third.c.data())).toEqual([2, 2]);
    await expect(f(second, y)).rejects.toThrow(/donated/);
    await expect(f(third, third.c)).rejects.toThrow(/donated but is also argument/);
    expect(() => second.c.dataSync()).toThrow(/disposed/);
  });

  test('an argument may be disposed as soon as the call was made', async () => {
    const f = jit((x: tf.Tensor, y: tf.Tensor) => tf.add(x, y), { target });
    const resident = await f(tf.ones([2]), tf.ones([2]));
    const x = tf.fill([2], 5);
    const running = f(x, resident);
    tf.dispose([x, resident]);
    expect(Array.from(await (await running).data())).toEqual([7, 7]);
  });

  test('large arguments are copied into the target once', async () => {
    const f = jit((x: tf.Tensor) => tf.sum(x), { target });
    const large = tf.ones([200, 100]);
    tf.dispose(await f(large));
    const held = targetMemory(target).bufferBytes;
    for (let i = 0; i < 3; i++) tf.dispose(await f(large));
    expect(targetMemory(target).bufferBytes).toBe(held);
  });

  test('a disposed argument is refused by its path', async () => {
    const x = tf.ones([2]);
    x.dispose();
    await expect(jit((t: tf.Tensor) => tf.neg(t), { target })(x)).rejects.toThrow(/argument 0 is disposed/);
  });
});

describe('errors while tracing', () => {
  test.each([
    ['dataSync', (x: tf.Tensor) => (tf.neg(x).dataSync()[0]! > 0 ? x : tf.neg(x))],
    ['arraySync', (x: tf.Tensor) => tf.tensor(tf.neg(x).arraySync() as number[])],
  ])('%s of a traced tensor says which operation and line', async (_, fn) => {
    const f = jit(fn, { target });
    await expect(f(tf.ones([2]))).rejects.toThrow(
      /result of Neg \(made at .*jit\.test\.ts:\d+:\d+\) was read at .*jit\.test\.ts/,
    );
    expect(tf.getBackend()).toBe('cpu');
  });

  test('what depends on constants alone can be read', async () => {
    const fn = (x: tf.Tensor) => {
      const sizes = tf.mul(tf.onesLike(tf.range(0, 2)), 3).dataSync();
      return tf.add(x, tf.ones([sizes[0]!]).arraySync() as number[]);
    };
    await agrees(fn, [numbers([3])]);
  });

  test('a Promise, and the read behind it', async () => {
    const f = jit(async (x: tf.Tensor) => tf.mul(x, (await x.data())[0]!), { target });
    await expect(f(tf.ones([2]))).rejects.toThrow(/returned a Promise(.|\n)*an argument was read/);
  });

  test('the backend comes back, and no tensors are left, when the function throws', async () => {
    const f = jit(
      (x: tf.Tensor) => {
        tf.neg(x);
        throw new RangeError('mine');
      },
      { target },
    );
    const before = tf.memory().numTensors;
    const x = tf.ones([1]);
    await expect(f(x)).rejects.toThrow('mine');
    expect(tf.getBackend()).toBe('cpu');
    expect(tf.memory().numTensors).toBe(before + 1);
    expect(f.compilations).toBe(0);
  });

  test('check mode refuses constants that change, by operation and line', async () => {
    const f = jit((x: tf.Tensor) => tf.add(x, tf.randomUniform([2])), { target, check: true });
    await expect(f(tf.ones([2]))).rejects.toThrow(
      /randomUniform at .*jit\.test\.ts:\d+:\d+ makes another constant/,
    );
    const g = jit((x: tf.Tensor) => tf.add(x, performance.now()), { target, check: true });
    await expect(g(tf.ones([2]))).rejects.toThrow(/add at .*makes another constant/);
  });

  test('calling a compiled function inside another', async () => {
    const inner = jit((x: tf.Tensor) => tf.neg(x), { target });
    const f = jit((x: tf.Tensor) => inner(x), { target });
    await expect(f(tf.ones([2]))).rejects.toThrow(/returned a Promise|while another is traced/);
  });
});

describe('what it says of itself', () => {
  const f = jit((x: tf.Tensor, w: tf.Tensor) => tf.relu(tf.matMul(x, w)), { target });
  const args = () => [numbers([2, 3]), numbers([3, 4])] as const;

  test('graph, explain, profile, report', async () => {
    expect(f.graphAfter('trace', ...args())).toContain('BatchMatMul(%0, %1)');
    expect(() => f.graphAfter('nothing', ...args())).toThrow(/expected one of .*fuseElementwise/);
    const trace = await f.profile(...args());
    expect(trace.traceEvents.length).toBeGreaterThan(0);
    expect(trace.traceEvents.every((event) => event.dur >= 0 && event.ph === 'X')).toBe(true);
    const measured = f.explain().bandwidthGBps;
    expect(measured === null).toBe(target === 'reference');
    expect(measured ?? 1).toBeGreaterThan(0.1);
    const { kernels, text } = f.explain({ bandwidthGBps: 10 });
    expect(kernels.some((kernel) => kernel.op === 'BatchMatMul' && kernel.flops >= 48)).toBe(true);
    expect(text).toMatch(/kernel +output +MFLOP/);
    expect(f.report()).toMatchObject({ target, compilations: 1, hostCalls: expect.any(Number) });
  });

  test('RT_DEBUG=4: compilations, kernels with their times, graphs after each pass, code', async () => {
    vi.stubEnv('RT_DEBUG', '4');
    const written = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    const y = await jit((x: tf.Tensor) => tf.exp(tf.neg(x)), { target, name: 'shrink' })(tf.ones([3]));
    vi.unstubAllEnvs();
    const text = written.mock.calls.map(([line]) => line).join('');
    written.mockRestore();
    expect(Array.from(await y.data())[0]).toBeCloseTo(Math.exp(-1));
    expect(text).toContain('jit shrink: compiled for the first time');
    expect(text).toMatch(/1 kernels for \w+, .* of arena, .* of code, [\d.]+ ms/);
    expect(text).toContain('--- after fuseElementwise');
    expect(text).toMatch(/Elementwise +f32\[3\]/);
  });

  test('an unknown target is refused', async () => {
    const g = jit((x: tf.Tensor) => x, { target: 'abacus' as 'wasm' });
    await expect(g(tf.ones([1]))).rejects.toThrow(/expected one of reference, wasm, webgpu, received abacus/);
  });

  test('an aborted call does not start', async () => {
    const g = jit((x: tf.Tensor) => x, { target });
    await expect(g.run([tf.ones([1])], { signal: AbortSignal.abort() })).rejects.toThrow(/abort/);
  });
});
