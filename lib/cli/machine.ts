// lib/cli/machine.ts: the memory that this machine has: RAM, and the GPU's where NVIDIA's tool tells it.

import { execFile } from 'node:child_process';
import { totalmem } from 'node:os';

export interface MachineMemory {
  readonly memoryBytes: number;
  readonly gpu: { readonly name: string; readonly memoryBytes: number } | null;
}

/** RAM that this process may use: inside a container less than the machine has. */
export function usableMemoryBytes(): number {
  const limitBytes = process.constrainedMemory(); // 0 means that Node cannot tell
  return limitBytes > 0 ? Math.min(limitBytes, totalmem()) : totalmem();
}

/** WebGPU does not say how large a GPU's memory is, so the driver's own tool is asked; without it gpu is null. */
export async function machineMemory(): Promise<MachineMemory> {
  return { memoryBytes: usableMemoryBytes(), gpu: await largestGpu() };
}

function largestGpu(): Promise<MachineMemory['gpu']> {
  const query = ['--query-gpu=name,memory.total', '--format=csv,noheader,nounits'];
  return new Promise((found) => {
    execFile('nvidia-smi', query, { timeout: 5_000 }, (error, stdout) => {
      if (error) return found(null);
      const gpus = stdout.split('\n').flatMap((line) => {
        const [name, mebibytes] = line.split(',').map((part) => part.trim());
        return name && Number(mebibytes) > 0 ? [{ name, memoryBytes: Number(mebibytes) * 2 ** 20 }] : [];
      });
      found(gpus.sort((a, b) => b.memoryBytes - a.memoryBytes)[0] ?? null);
    });
  });
}
