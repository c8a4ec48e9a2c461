// scripts/gpu-machine.sh with the programs that it calls replaced: what it says where something is missing. The whole
// way needs a bare machine.

import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';

const script = fileURLToPath(new URL('../scripts/gpu-machine.sh', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'gpu-machine-'));
afterAll(() => rmSync(scratch, { recursive: true }));

/** Programs of this machine that the script may really call. */
const REAL = [
  ...[
    'bash',
    'sh',
    'cat',
    'dirname',
    'pwd',
    'grep',
    'sed',
    'head',
    'mktemp',
    'rm',
    'mkdir',
    'tar',
    'xz',
    'ln',
  ],
  ...['sha256sum', 'tee', 'env', 'hostname', 'date'],
];
let bin = '';
const program = (name: string, code: string) => {
  writeFileSync(join(bin, name), `#!/bin/sh\n${code}\n`);
  chmodSync(join(bin, name), 0o755);
};
beforeEach(() => {
  bin = mkdtempSync(join(scratch, 'bin-'));
  for (const name of REAL) {
    const path = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim();
    if (path.startsWith('/')) symlinkSync(path, join(bin, name));
  }
  program('uname', 'case $1 in -s) echo Linux;; *) echo x86_64;; esac');
  program('id', 'echo 0');
  program('apt-get', 'echo "$@" >> "$LOG"');
  program('nvidia-smi', 'echo "Example GPU, 580.1"');
  program('ldconfig', 'printf "%s (libc6) => /lib/x\\\\n" libvulkan.so.1 libGLdispatch.so.0');
  for (const name of ['curl', 'git']) program(name, 'exit 0');
});
const run = (environment: Record<string, string> = {}, ...args: string[]) =>
  spawnSync('bash', [script, ...args], {
    encoding: 'utf8',
    env: { PATH: bin, HOME: bin, LOG: join(bin, 'log'), PREFIX: join(bin, 'prefix'), ...environment },
  });

const isLinux = process.platform === 'linux';

describe.skipIf(!isLinux)('what is missing is said, with what to do (on Linux)', () => {
  test('the driver', () => {
    rmSync(join(bin, 'nvidia-smi'));
    expect(run()).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^gpu-machine: no NVIDIA driver here .*ubuntu-drivers/),
    });
    program('nvidia-smi', 'exit 9');
    expect(run().stderr).toMatch(/the NVIDIA driver does not answer/);
  });

  test('another system, a mistyped command, no root', () => {
    program('uname', 'case $1 in -s) echo Darwin;; *) echo arm64;; esac');
    expect(run().stderr).toBe('gpu-machine: expected Linux on x86-64, this is Darwin on arm64\n');
    expect(run({}, 'fly').stderr).toMatch(/expected install or run, received 'fly'/);
    program('uname', 'case $1 in -s) echo Linux;; *) echo x86_64;; esac');
    program('id', 'echo 1000');
    rmSync(join(bin, 'git'));
    expect(run().stderr).toMatch(/root is needed for: apt-get/);
  });

  test('the network', () => {
    rmSync(join(bin, 'git'));
    program('apt-get', 'exit 100');
    expect(run()).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/archive cannot be reached .*http_proxy/),
    });
  });

  const hasDriver = ['/usr/share', '/etc', '/usr/local/share', '/usr/local/nvidia/share'].some((folder) =>
    existsSync(`${folder}/vulkan/icd.d/nvidia_icd.json`),
  );
  test.skipIf(hasDriver)("the driver's Vulkan part (skipped where it is installed)", () => {
    const { status, stderr } = run();
    expect(status).toBe(1);
    expect(stderr).toMatch(/no Vulkan part here .*libnvidia-gl .*NVIDIA_DRIVER_CAPABILITIES=all/);
  });

  test('Node: a version that is not there, a checksum that is wrong', () => {
    program('curl', 'exit 22');
    expect(run({ CPU_ONLY: '1' }).stderr).toMatch(
      /could not fetch https:\/\/nodejs\.org\/dist\/v[\d.]+\/node-v.*NODE_MIRROR/,
    );
    program(
      'curl',
      'while [ $# -gt 0 ]; do case $1 in -o) echo "0 node-v1.2.3-linux-x64.tar.xz" > "$2"; shift;; esac; shift; done',
    );
    const wrong = run({ CPU_ONLY: '1', NODE_VERSION: '1.2.3', NODE_MIRROR: 'file:///mirror' });
    expect(wrong.stderr).toMatch(
      /has another checksum than file:\/\/\/mirror\/v1\.2\.3\/SHASUMS256\.txt says: nothing/,
    );
  });
});

test.skipIf(!isLinux)('what is there is kept: no package is asked for, and Node stays (on Linux)', () => {
  mkdirSync(join(bin, 'prefix', 'bin'), { recursive: true });
  symlinkSync(process.execPath, join(bin, 'prefix', 'bin', 'node'));
  program('npm', 'echo npm "$@" >> "$LOG"');
  const { status, stdout, stderr } = run({ CPU_ONLY: '1' });
  expect([status, stderr]).toEqual([0, '']);
  expect(stdout).toMatch(
    /^(gpu-machine: npm ci\n)?gpu-machine: ready in .*: bash scripts\/gpu-machine\.sh run\n$/,
  );
  expect(stdout).not.toContain('installing');
});
