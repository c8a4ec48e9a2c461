// tests/cluster/localSlurm.ts: a real Slurm with several nodes on this machine, for one test: Debian's slurm-wlm and
// munge, started without systemd or cgroups, reachable on loopback alone, ended with the test.
// Each node is a slurmd in a PID namespace of its own, so that killing it is a power cut: its jobs die with it.

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname, userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const PATH = `${process.env.PATH}:/usr/sbin:/sbin`;

/** What Slurm needs and this machine lacks; undefined if nothing. */
export function missingForSlurm(): string | undefined {
  const programs = ['munged', 'slurmctld', 'slurmd', 'sbatch', 'unshare'];
  const isHere = (name: string) => PATH.split(':').some((folder) => existsSync(join(folder, name)));
  const absent = programs.filter((name) => !isHere(name));
  if (absent.length > 0) return `no ${absent.join(', ')}: apt-get install slurm-wlm munge`;
  if (spawnSync('unshare', [...namespace(), 'true']).status !== 0)
    return 'this machine allows no PID namespaces';
  return undefined;
}

function namespace(): string[] {
  const asRoot = userInfo().uid === 0 ? [] : ['--map-current-user'];
  return ['--pid', '--fork', '--kill-child', '--mount-proc', ...asRoot];
}

/** One cluster, its files in a folder that nobody else uses. */
export class LocalSlurm {
  private readonly processes = new Map<string, ChildProcess>();
  /** For whatever talks to this cluster. */
  readonly environment: NodeJS.ProcessEnv;

  private constructor(
    private readonly folder: string,
    private readonly nodes: readonly string[],
  ) {
    // Slurm's own variables, were this test itself a job, would be taken for this cluster's.
    const own = Object.entries(process.env).filter(([name]) => !/^(SLURM|SBATCH)_/.test(name));
    this.environment = { ...Object.fromEntries(own), PATH, SLURM_CONF: join(folder, 'slurm.conf') };
  }

  /** @throws Error with the daemons' last words if not all nodes come up */
  static async start(folder: string, { nodes, cpus }: { readonly nodes: number; readonly cpus: number }) {
    for (const name of ['state', 'spool', 'log']) mkdirSync(join(folder, name), { recursive: true });
    const names = Array.from({ length: nodes }, (_, i) => `n${i + 1}`);
    const slurm = new LocalSlurm(folder, names);
    // Munge wants a key of its own and a folder that nobody else can write; ports come from a range few use.
    writeFileSync(join(folder, 'munge.key'), randomBytes(1024), { mode: 0o600 });
    const port = 21_000 + (process.pid % 400) * 10;
    writeFileSync(join(folder, 'slurm.conf'), configuration(folder, names, { port, cpus }));
    try {
      const socket = join(folder, 'munge.sock');
      slurm.launch('munged', 'munged', [
        ...['--foreground', '--force', `--socket=${socket}`, `--key-file=${join(folder, 'munge.key')}`],
        ...['pid', 'seed', 'log'].map((kind) => `--${kind}-file=${join(folder, `munge.${kind}`)}`),
      ]);
      await slurm.until('munged', 10, () => existsSync(socket));
      slurm.launch('slurmctld', 'slurmctld', ['-D']);
      for (const name of names) slurm.startNode(name);
      await slurm.until('all nodes', 30, () => slurm.idleNodes().length === nodes);
      return slurm;
    } catch (error) {
      await slurm.stop();
      throw error;
    }
  }

  /** Output of one of Slurm's commands. */
  call(command: string, ...parameters: string[]): string {
    return execFileSync(command, parameters, { env: this.environment, encoding: 'utf8' }).trim();
  }

  /** Jobs that are not over: id as `array_task`, state and node. */
  queue(): { readonly id: string; readonly state: string; readonly node: string }[] {
    const lines = this.call('squeue', '--noheader', '--array', '--format=%i|%T|%N')
      .split('\n')
      .filter(Boolean);
    return lines.map((line) => {
      const [id = '', state = '', node = ''] = line.split('|');
      return { id, state, node };
    });
  }

  /** A requeued job waits two minutes; a test does not. */
  startWaitingNow(): void {
    for (const { id, state } of this.queue()) {
      if (state !== 'PENDING' || !id.includes('_')) continue;
      // It fails where the job has begun meanwhile.
      spawnSync('scontrol', ['update', `jobid=${id}`, 'StartTime=now'], { env: this.environment });
    }
  }

  /** Power cut: the node and all that ran on it are gone at once; Slurm requeues its jobs. */
  killNode(name: string): void {
    this.processes.get(name)!.kill('SIGKILL');
    this.call('scontrol', 'update', `nodename=${name}`, 'state=down', 'reason=power-cut');
  }

  async until(what: string, seconds: number, isSo: () => boolean): Promise<void> {
    const end = performance.now() + 1000 * seconds;
    while (!isSo()) {
      if (performance.now() > end) throw new Error(`${what}: not within ${seconds} s\n${this.lastWords()}`);
      await sleep(100);
    }
  }

  async stop(): Promise<void> {
    for (const name of [...this.nodes, 'slurmctld', 'munged']) {
      const child = this.processes.get(name);
      if (!child || child.exitCode !== null || child.signalCode !== null) continue;
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill(this.nodes.includes(name) ? 'SIGKILL' : 'SIGTERM');
      await Promise.race([gone, sleep(5_000).then(() => child.kill('SIGKILL'))]);
    }
  }

  private startNode(name: string): void {
    // A shell, first in its namespace, reaps what its jobs leave behind; --kill-child ends it with unshare.
    const slurmd = ['sh', '-c', 'slurmd -D -N "$0" & wait', name];
    this.launch(name, 'unshare', [...namespace(), ...slurmd]);
  }

  private launch(name: string, command: string, parameters: readonly string[]): void {
    const output = openSync(join(this.folder, 'log', `${name}.out`), 'a');
    const child = spawn(command, parameters, { env: this.environment, stdio: ['ignore', output, output] });
    child.on('error', () => {}); // `until` says what did not come up
    this.processes.set(name, child);
  }

  private idleNodes(): string[] {
    const { stdout, status } = spawnSync('sinfo', ['--noheader', '--Node', '--states=idle', '--format=%N'], {
      env: this.environment,
      encoding: 'utf8',
    });
    return status === 0 ? [...new Set(stdout.split('\n').filter(Boolean))] : [];
  }

  private lastWords(): string {
    return [...this.processes.keys()]
      .map((name) => `${name}: ${readFileSync(join(this.folder, 'log', `${name}.out`), 'utf8').slice(-400)}`)
      .join('\n');
  }
}

function configuration(
  folder: string,
  nodes: readonly string[],
  { port, cpus }: { readonly port: number; readonly cpus: number },
): string {
  const [host, user] = [hostname().split('.')[0], userInfo().username];
  const settings = {
    ClusterName: 'test',
    SlurmctldHost: `${host}(127.0.0.1)`,
    SlurmctldPort: port,
    SlurmUser: user,
    SlurmdUser: user,
    AuthType: 'auth/munge',
    CredType: 'cred/munge',
    AuthInfo: `socket=${folder}/munge.sock`,
    CommunicationParameters: 'NoCtldInAddrAny,NoInAddrAny', // loopback alone
    StateSaveLocation: `${folder}/state`,
    SlurmdSpoolDir: `${folder}/spool/%n`,
    SlurmctldPidFile: `${folder}/slurmctld.pid`,
    SlurmdPidFile: `${folder}/%n.pid`,
    SlurmdLogFile: `${folder}/log/%n.log`,
    MailProg: '/bin/true',
    ProctrackType: 'proctrack/linuxproc', // no cgroups
    TaskPlugin: 'task/none',
    SelectType: 'select/cons_tres',
    SelectTypeParameters: 'CR_CPU',
    SlurmdParameters: 'config_overrides', // more processors than this machine may have
    SchedulerParameters: 'batch_sched_delay=0,sched_interval=2,bf_interval=2',
    SlurmdTimeout: 10,
    KillWait: 5,
    MinJobAge: 3600, // ended jobs stay visible
    ReturnToService: 2,
  };
  return [
    ...Object.entries(settings).map(([key, value]) => `${key}=${value}`),
    ...nodes.map(
      (name, i) =>
        `NodeName=${name} NodeHostname=${host} NodeAddr=127.0.0.1 Port=${port + 1 + i} CPUs=${cpus}`,
    ),
    'PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP',
    '',
  ].join('\n');
}
