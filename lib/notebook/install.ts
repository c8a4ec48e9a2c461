// Kernelspecs: how Jupyter and VS Code find the kernel. In: this checkout's place. Out: kernel.json in Jupyter's folder.
// Source: the Jupyter "Kernel specs" and "Common directories" documentation.
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type Environment, projectRoot } from '../paths.js';
import { writeTextAtomically } from '../results/files.js';

/** The committed notebooks ask for this name, so that Jupyter and VS Code open them with this kernel. */
export const KERNEL_NAME = 'tslab';
const DISPLAY_NAME = 'TypeScript (response-time)';

/** Options of `installKernel`. */
export interface InstallOptions {
  /** Jupyter's data folder; the user's unless told. */
  readonly dataFolder?: string;
  readonly env?: Environment;
  readonly platform?: NodeJS.Platform;
}

/** Jupyter's data folder of this user: JUPYTER_DATA_DIR, else the system's place. */
export function jupyterDataFolder(env: Environment = process.env, platform = process.platform): string {
  if (env.JUPYTER_DATA_DIR) return env.JUPYTER_DATA_DIR;
  const home = env.HOME ?? env.USERPROFILE ?? homedir();
  if (platform === 'darwin') return join(home, 'Library', 'Jupyter');
  if (platform === 'win32') return join(env.APPDATA ?? join(home, 'AppData', 'Roaming'), 'jupyter');
  return join(env.XDG_DATA_HOME ?? join(home, '.local', 'share'), 'jupyter');
}

/** The content of kernel.json. @param command without the connection file's argument */
function kernelSpec(command: readonly string[], platform: NodeJS.Platform): object {
  return {
    argv: [...command, '--config-path', '{connection_file}'],
    display_name: DISPLAY_NAME,
    language: 'typescript',
    // Windows has no signals; elsewhere a signal also stops a loop that never awaits.
    interrupt_mode: platform === 'win32' ? 'message' : 'signal',
    metadata: { debugger: false },
  };
}

/** Whether a kernel.json starts this project's launcher, of this or another checkout. */
const isOurs = (text: string) => /lib[\\/]+bin[\\/]+kernel\.js/.test(text);

/** What `installKernel` did. */
export interface InstalledKernel {
  /** The kernelspec's folder. */
  readonly folder: string;
  /** Where another tslab's kernel.json was put aside; undefined when there was none. */
  readonly backup: string | undefined;
}

/**
 * Makes this checkout's kernel known to the user's Jupyter and VS Code. All paths are absolute, because VS Code starts
 * kernels with an empty PATH; so run it again after the checkout or Node has moved. (Without installing:
 * `JUPYTER_PATH=lib/notebook/jupyter jupyter lab` from the project's root.)
 * @throws Error if the folder cannot be written (names the file)
 */
export async function installKernel(options: InstallOptions = {}): Promise<InstalledKernel> {
  const { env = process.env, platform = process.platform } = options;
  const dataFolder = options.dataFolder ?? jupyterDataFolder(env, platform);
  const folder = join(dataFolder, 'kernels', KERNEL_NAME);
  const file = join(folder, 'kernel.json');
  const before = existsSync(file) ? readFileSync(file, 'utf8') : undefined;
  const backup = before !== undefined && !isOurs(before) ? `${file}.before-response-time` : undefined;
  if (backup !== undefined) await writeTextAtomically(backup, before!);
  const launcher = join(projectRoot(), 'lib', 'bin', 'kernel.js');
  await writeTextAtomically(
    file,
    `${JSON.stringify(kernelSpec([process.execPath, launcher], platform), null, 2)}\n`,
  );
  return { folder, backup };
}
