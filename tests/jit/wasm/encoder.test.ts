import { expect, test } from 'vitest';
import { FunctionBuilder } from '../../../lib/jit/targets/wasm/builder.js';
import { listFunction, ModuleBuilder } from '../../../lib/jit/targets/wasm/encoder.js';
import { loads, stores } from '../../../lib/jit/targets/wasm/memory.js';
import { constant } from '../../../lib/jit/targets/wasm/nodes.js';
import { i32, select } from '../../../lib/jit/targets/wasm/scalars.js';
import { f32x4, i32x4 } from '../../../lib/jit/targets/wasm/vectors.js';

type Exports = Record<string, (...args: number[]) => number>;

function instantiate(module: ModuleBuilder): { exports: Exports; memory: WebAssembly.Memory } {
  const bytes = module.encode();
  expect(WebAssembly.validate(bytes)).toBe(true);
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const env = { memory, twice: (x: number) => 2 * x };
  return {
    memory,
    exports: new WebAssembly.Instance(new WebAssembly.Module(bytes), { env }).exports as Exports,
  };
}

const newModule = () => new ModuleBuilder({ minBytes: 65536, maxBytes: 65536, shared: true });

test('a loop, a condition, loads and stores: code and text', () => {
  const f = new FunctionBuilder('sumOfPositive', ['f32']);
  const [from, bytes] = [f.param('i32', 'from'), f.param('i32', 'bytes')];
  const at = f.local('i32', 'at');
  const sum = f.let('sum', f32x4.splat(0));
  f.loop(at, 0, bytes, 16, () => {
    const value = f.let('value', loads.v128(i32.add(from, at)));
    f.set(sum, f32x4.add(sum, f32x4.max(value, 0)));
  });
  f.return(f32x4.extractLane(sum, 3));
  const code = f.finish();
  expect(listFunction(code)).toMatchInlineSnapshot(`
    "(func $sumOfPositive (i32 i32) -> (f32) locals: 3
      (local.set $sum (f32x4.splat (f32.const 0)))
      (local.set $at (i32.const 0))
      (if (i32.lt_u $at $bytes)
        (loop
          (local.set $value (v128.load (i32.add $from $at)))
          (local.set $sum (f32x4.add $sum (f32x4.max $value (v128.const f32x4 0,0,0,0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0))))
          (local.set $at (i32.add $at (i32.const 16)))
          (br_if 0 (i32.lt_u $at $bytes))
        )
      )
      (return (f32x4.extract_lane 3 $sum))
    )"
  `);
  const module = newModule();
  module.add(code, true);
  const { exports, memory } = instantiate(module);
  new Float32Array(memory.buffer).set([0, 0, 0, -1, 0, 0, 0, 2, 0, 0, 0, 40], 16);
  expect(exports.sumOfPositive!(64, 48)).toBe(42);
});

test('constants of every length, and addresses beyond 2 GiB', () => {
  const values = [0, 1, -1, 63, 64, -64, -65, 127, 128, 8191, 8192, 2 ** 31 - 1, -(2 ** 31)];
  for (const value of values) {
    const f = new FunctionBuilder('constant', ['i32']);
    f.return(constant('i32', value));
    const module = newModule();
    module.add(f.finish(), true);
    expect(instantiate(module).exports.constant!()).toBe(value);
  }
  const f = new FunctionBuilder('far');
  f.do(stores.i32(0, 1, 2 ** 32 - 8));
  const module = newModule();
  module.add(f.finish(), true);
  expect(() => instantiate(module).exports.far!()).toThrow(/out of bounds/);
});

test('imports, calls, globals, blocks with an exit', () => {
  const module = newModule();
  const twice = module.importFunction('twice', ['f64'], ['f64']);
  module.addGlobal(-5);
  const f = new FunctionBuilder('firstAbove', ['i32']);
  const limit = f.param('i32', 'limit');
  const i = f.let('i', constant('i32', 0));
  f.block(() => {
    f.repeat(() => {
      f.leaveIf(i32.gt_s(i32.mul(i, i), limit), 1);
      f.increase(i, 1);
      return constant('i32', 1);
    });
  });
  f.return(select(i, -1, i32.lt_s(i, 1000), 'i32'));
  module.add(f.finish(), true);
  const { exports } = instantiate(module);
  expect(exports.firstAbove!(50)).toBe(8);
  expect((exports.global0 as unknown as WebAssembly.Global).value).toBe(-5);
  expect(twice.index()).toBe(0);
});

test('a parameter after a local is refused', () => {
  const f = new FunctionBuilder('late');
  f.local('i32', 'first');
  expect(() => f.param('i32', 'second')).toThrow(/late: parameter second after a local/);
});

test('vector constants and lanes', () => {
  const f = new FunctionBuilder('lane', ['i32']);
  f.return(i32x4.extractLane(i32x4.mul(i32x4.replaceLane(constant('i32x4', 7), 2, 5), -3), 2));
  const module = newModule();
  module.add(f.finish(), true);
  expect(instantiate(module).exports.lane!()).toBe(-15);
});
