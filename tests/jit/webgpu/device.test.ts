// Which GPU is taken, and what is said where none is: each in a process of its own, since Dawn opens once.
import { spawnSync } from 'node:child_process';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { built } from '../../built.js';
import { isEmulated, webgpuReason } from '../../webgpu.js';

/** What opening the target says: its adapter's name or the error. */
function open(environment: Readonly<Record<string, string | undefined>>): string {
  const script = `
    const { createWebgpuTarget } = await import(${JSON.stringify(pathToFileURL(built('jit/targets/webgpu/run')).href)});
    const target = await createWebgpuTarget().catch((error) => error.message);
    console.log(typeof target === 'string' ? target : 'opened ' + target.device);
    process.exit(0);`;
  const env = { ...process.env, ...environment };
  return spawnSync(process.execPath, ['--input-type=module', '--eval', script], { env, encoding: 'utf8' })
    .stdout;
}

test('without a driver the error says what is needed and what to take instead', () => {
  const nowhere = {
    VK_DRIVER_FILES: '/nowhere.json',
    VK_ICD_FILENAMES: '/nowhere.json',
    LD_LIBRARY_PATH: '',
  };
  // A machine with a driver that these variables do not hide opens it.
  expect(open(nowhere)).toMatch(
    /^(target webgpu: no GPU adapter: a GPU with a Vulkan, Metal or Direct3D driver is needed. Take the target wasm instead|opened .+)\n$/,
  );
});

describe.skipIf(!isEmulated)(`an emulated GPU (${webgpuReason})`, () => {
  test('is refused unless its name is given', () => {
    expect(open({ RESPONSE_TIME_WEBGPU: '' })).toMatch(
      /is no GPU but emulates one on the CPU, .* name it: RESPONSE_TIME_WEBGPU=swiftshader/,
    );
    expect(open({ RESPONSE_TIME_WEBGPU: 'llvmpipe' })).toMatch(/is no GPU but emulates one/);
    expect(open({ RESPONSE_TIME_WEBGPU: 'SwiftShader' })).toMatch(/^opened .*SwiftShader/);
  });
});
