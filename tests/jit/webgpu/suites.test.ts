// The suites of tests/jit, run on this target.
process.env.RT_TEST_TARGET = 'webgpu';
await import('../kernels.test.js');
await import('../scan.test.js');
await import('../jit.test.js');
await import('../functions.test.js');
await import('../operations.test.js');
await import('../models.test.js');
