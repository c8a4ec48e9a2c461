// bench/webgpuTune.ts: `node bench/dist/webgpuTune.js [FILE]`: how fast each way to cut a matrix-vector kernel is on this
// GPU, for the products of a token of Mistral-7B and GPT-2. What targets/webgpu/kernels/tuning.ts takes by default comes
// from here.

import { writeFileSync } from 'node:fs';
import { openGpu } from 'response-time/jit/targets/webgpu/device';
import { problemBytes, problemKey } from 'response-time/jit/targets/webgpu/kernels/candidates';
import { tuneMatvec } from 'response-time/jit/targets/webgpu/kernels/tune';
import { type MatvecProblem, matvecShape } from 'response-time/jit/targets/webgpu/kernels/tuning';

type Product = Pick<MatvecProblem, 'inDim' | 'widths' | 'products' | 'norm'>;
const mistral: readonly Product[] = [
  { inDim: 4096, widths: [4096, 1024, 1024], products: 1, norm: 'rms' },
  { inDim: 4096, widths: [4096], products: 1, norm: 'none' },
  { inDim: 4096, widths: [14336], products: 2, norm: 'rms' },
  { inDim: 14336, widths: [4096], products: 1, norm: 'none' },
  { inDim: 4096, widths: [32000], products: 1, norm: 'rms' },
];
const gpt2: readonly Product[] = [
  { inDim: 768, widths: [768, 768, 768], products: 1, norm: 'layer' },
  { inDim: 768, widths: [768], products: 1, norm: 'none' },
  { inDim: 768, widths: [3072], products: 1, norm: 'layer' },
  { inDim: 3072, widths: [768], products: 1, norm: 'none' },
  { inDim: 768, widths: [50257], products: 1, norm: 'layer' },
];

type Kind = Pick<MatvecProblem, 'packing' | 'scales' | 'input' | 'rows'>;
const kinds: Readonly<Record<string, readonly [Kind, readonly Product[]]>> = {
  'int8 fast': [{ packing: 'int8', scales: 'row', input: 'bytes', rows: 1 }, mistral],
  'int8 exact': [{ packing: 'int8', scales: 'row', input: 'floats', rows: 1 }, mistral],
  'int4 fast': [{ packing: 'int4', scales: { groupSize: 128 }, input: 'bytes', rows: 1 }, mistral],
  'f16 exact': [{ packing: 'f16', scales: 'none', input: 'floats', rows: 1 }, mistral],
  'int8 fast x8': [{ packing: 'int8', scales: 'row', input: 'bytes', rows: 8 }, mistral],
  'gpt2 f16': [{ packing: 'f16', scales: 'none', input: 'floats', rows: 1 }, gpt2],
};

const gpu = await openGpu();
console.log(`# ${gpu.name} ${JSON.stringify(gpu.features)}`);
const all: Record<string, unknown> = {};
for (const [name, [kind, products]] of Object.entries(kinds)) {
  const leastColumns = kind.input === 'bytes' ? 16 : undefined;
  const problems = products.map((product): MatvecProblem => ({ ...kind, ...product, leastColumns }));
  const started = performance.now();
  const most = Number(process.env.TUNE_MOST ?? 90);
  const results = await tuneMatvec(gpu, problems, { most });
  console.log(`# ${name}: ${((performance.now() - started) / 1000).toFixed(1)} s`);
  for (const problem of problems) {
    const timings = results.get(problemKey(problem))!;
    const gigabytes = problemBytes(problem).words / 1e9;
    const line = (i: number): string => {
      const { shape, microseconds } = timings[i]!;
      const { rows, rowsPerGroup, splits, unroll } = shape;
      return `${microseconds.toFixed(1)}us ${((1e6 * gigabytes) / microseconds).toFixed(0)}GB/s R${rows}.P${rowsPerGroup}.S${splits}.U${unroll}`;
    };
    const own = JSON.stringify(matvecShape(gpu.features, problem));
    const place = timings.findIndex(({ shape }) => JSON.stringify(shape) === own);
    console.log(
      `${problemKey(problem)}: ${[0, 1, 2, 3].map(line).join(' | ')} | default ${line(place)} (${place + 1} of ${timings.length})`,
    );
    all[`${name}: ${problemKey(problem)}`] = timings.slice(0, 30);
  }
}
if (process.argv[2]) writeFileSync(process.argv[2], JSON.stringify({ gpu: gpu.name, all }));
gpu.close();
process.exit();
