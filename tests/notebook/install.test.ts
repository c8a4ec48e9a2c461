import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { installKernel, jupyterDataFolder } from '../../lib/notebook/install.js';
import { temporaryFolder } from './helpers.js';

const folder = temporaryFolder();
const read = (path: string) => JSON.parse(readFileSync(path, 'utf8'));

test("finds Jupyter's folder on each system", () => {
  const home = { HOME: '/home/ada' };
  expect(jupyterDataFolder(home, 'linux')).toBe('/home/ada/.local/share/jupyter');
  expect(jupyterDataFolder({ ...home, XDG_DATA_HOME: '/data' }, 'linux')).toBe('/data/jupyter');
  expect(jupyterDataFolder(home, 'darwin')).toBe('/home/ada/Library/Jupyter');
  expect(jupyterDataFolder({ APPDATA: '/roaming' }, 'win32')).toBe('/roaming/jupyter');
  expect(jupyterDataFolder({ ...home, JUPYTER_DATA_DIR: '/own' }, 'darwin')).toBe('/own');
});

test('writes a kernelspec of absolute paths, named as the notebooks ask for it', async () => {
  const { folder: specFolder, backup } = await installKernel({ env: { JUPYTER_DATA_DIR: folder } });
  expect([specFolder, backup]).toEqual([join(folder, 'kernels', 'tslab'), undefined]);
  const spec = read(join(specFolder, 'kernel.json'));
  const [node, launcher, ...rest] = spec.argv as string[];
  expect(node).toBe(process.execPath);
  expect(existsSync(launcher!)).toBe(true);
  expect(rest).toEqual(['--config-path', '{connection_file}']);
  expect(spec).toMatchObject({
    display_name: 'TypeScript (response-time)',
    language: 'typescript',
    interrupt_mode: 'signal',
  });
  expect((await installKernel({ dataFolder: folder, platform: 'win32' })).backup).toBeUndefined();
  expect(read(join(specFolder, 'kernel.json'))).toMatchObject({ interrupt_mode: 'message' });
});

test("puts another tslab's kernelspec aside", async () => {
  const file = join(folder, 'other', 'kernels', 'tslab', 'kernel.json');
  mkdirSync(join(file, '..'), { recursive: true });
  writeFileSync(file, '{"argv": ["tslab", "kernel"]}');
  const { backup } = await installKernel({ dataFolder: join(folder, 'other') });
  expect(readFileSync(backup!, 'utf8')).toBe('{"argv": ["tslab", "kernel"]}');
});

test("the project's own kernelspec finds the launcher from its folder", () => {
  const specFolder = join(import.meta.dirname, '..', '..', 'lib', 'notebook', 'jupyter', 'kernels', 'tslab');
  const [, launcher] = read(join(specFolder, 'kernel.json')).argv as string[];
  expect(existsSync(launcher!.replace('{resource_dir}', specFolder))).toBe(true);
});

test('a folder that cannot be written is named', async () => {
  writeFileSync(join(folder, 'file'), '');
  const install = installKernel({ dataFolder: join(folder, 'file') });
  await expect(install).rejects.toThrow(/kernel\.json: could not write/);
});
