// bench/webgpuCheck.ts: `node bench/dist/webgpuCheck.js`: the embedded models on this machine's GPU against the same
// models op by op on the CPU: greedy tokens and the logits of the prompt, for every scheme and mode.

import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { join } from 'node:path';
import { compileModel } from 'response-time/compile';
import { buildTree } from 'response-time/convert';
import { collect } from 'response-time/generate';
import { closeTarget } from 'response-time/jit';
import { loadModel, type Model } from 'response-time/model';
import { modelsFolder } from 'response-time/paths';
import type { SchemeName } from 'response-time/quantize';
import { float32Values, floatWeight, weightEntries } from 'response-time/tensor';

await tf.setBackend('cpu');
const newTokens = Number(process.argv[2] ?? 64);
/** float32: the stored weights widened, whose prompts are computed in float32; the others' in float16. */
const cases: readonly (readonly ['float32' | SchemeName, 'exact' | 'fast', number])[] = [
  ['float32', 'exact', 1e-5],
  ['stored', 'exact', 2e-3],
  ['int8', 'exact', 2e-3],
  ['int8', 'fast', 5e-2],
  ['int4', 'exact', 2e-3],
  ['int4', 'fast', 5e-2],
];

async function modelOf(name: string, scheme: 'float32' | SchemeName): Promise<Model> {
  const folder = join(modelsFolder(), name);
  if (scheme !== 'float32') return loadModel(folder, { scheme: { name: scheme } });
  const model = await loadModel(folder);
  const widened = Array.from(
    weightEntries(model.params),
    ([path, weight]) => [path, floatWeight(float32Values(weight), weight.shape)] as const,
  );
  return { ...model, params: buildTree(widened) };
}

let failed = 0;
for (const name of ['tiny-mistral', 'tiny-gpt2']) {
  for (const [scheme, mode, tolerance] of cases) {
    for (const length of [5, 40]) {
      const model = await modelOf(name, scheme);
      const prompt = Array.from({ length }, (_, i) => (i * 37 + 11) % 2000);
      const options = { maxNewTokens: newTokens, keepLogits: true, ignoreEos: true };
      const expected = await collect(model, prompt, options);
      const compiled = await compileModel(model, { target: 'webgpu', mode });
      const found = await collect(compiled, prompt, options);
      const most = Math.max(...expected.logits!.map(Math.abs));
      const error =
        Math.max(...expected.logits!.map((value, i) => Math.abs(value - found.logits![i]!))) / most;
      const same = expected.newIds.findIndex((id, i) => id !== found.newIds[i]);
      const passed = error <= tolerance && (mode === 'fast' || same < 0);
      if (!passed) failed += 1;
      const tokens = same < 0 ? `${newTokens} tokens the same` : `token ${same} differs`;
      console.log(
        `${passed ? 'PASS' : 'FAIL'} ${name} ${scheme} ${mode} prompt ${length}: logits ${error.toExponential(1)}, ${tokens}`,
      );
      await compiled.dispose();
      model.dispose();
    }
  }
}
await closeTarget('webgpu');
process.exit(failed === 0 ? 0 : 1);
