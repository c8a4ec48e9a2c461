// lib/jit/kernels/math.ts: functions of float32 to its last bits, whatever the adapter's own are worth: WebGPU lets sine
// be off by 2^-11, and NaN and infinities be ignored. NaN is told by its bits here.

export * from './math/exponential.js';
export * from './math/hyperbolic.js';
export * from './math/integers.js';
export { isInfinite, isNan } from './math/parts.js';
export * from './math/rounding.js';
export * from './math/trigonometric.js';
