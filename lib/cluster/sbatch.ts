// lib/cluster/sbatch.ts: a plan -> a script for Slurm: the array of its shards, and the merge after it. Pure text.
// Source: Slurm's sbatch(1), scontrol(1); what was measured of it on Slurm 22.05 stands beside each choice.

import type { ClusterPlan } from './plan.js';

/** Exit codes of `cluster run` and `cluster merge`; 1 is any other failure. */
export const EXIT = {
  complete: 0,
  /** merge: something is missing. */
  incomplete: 3,
  /** Stopped early with everything safe: start it again (EX_TEMPFAIL). */
  requeue: 75,
  /** The plan, the shard or the model does not fit: starting it again would not help (EX_CONFIG). */
  badConfiguration: 78,
} as const;

export interface SbatchOptions {
  /** Absolute paths: a batch job does not begin in the folder where it was submitted from everywhere. */
  readonly node: string;
  readonly program: string;
  readonly planFile: string;
  readonly folder: string;
  /** File that the merge writes its records to. */
  readonly output: string;
  readonly minutes: number;
  readonly cpus: number;
  readonly memory?: string | undefined;
  readonly gpus?: number | undefined;
  readonly partition?: string | undefined;
}

/**
 * A script for `bash`: submits the shards as an array and the merge after them.
 * @throws RangeError for a partition or an amount of memory that is no plain word
 */
export function sbatchScript({ shards, model, fingerprint }: ClusterPlan, options: SbatchOptions): string {
  const { node, program, planFile, folder, output, minutes, cpus, memory, gpus, partition } = options;
  for (const [name, value] of Object.entries({ memory, partition })) {
    if (value !== undefined && !/^[\w.,-]+$/.test(value)) {
      throw new RangeError(`${name}: expected a plain word, received ${JSON.stringify(value)}`);
    }
  }
  const command = `${quoted(node)} ${quoted(program)} cluster`;
  const resources = [
    `--cpus-per-task=${cpus}`,
    `--time=${minutes}`,
    ...(memory ? [`--mem=${memory}`] : []),
    ...(partition ? [`--partition=${partition}`] : []),
  ];
  const shardResources = [...resources, ...(gpus ? [`--gres=gpu:${gpus}`] : [])].join(' ');
  return `#!/bin/bash
# ${shards} shards of ${model.name}, plan ${fingerprint}, and the merge after them. Made by \`response-time cluster sbatch\`.
#   bash THIS_FILE        submits both and prints their job numbers; submitted again it goes on where it was
# A shard that its time limit, a drain or a lost node stops is queued again and measures what is left.
set -u
plan=${quoted(planFile)}
folder=${quoted(folder)}

case \${1:-submit} in
submit)
  mkdir -p "$folder" || exit
  # B: gives the signal to this script alone, two minutes before the limit; a requeued task appends to its output.
  array=$(sbatch --parsable --job-name=shards --array=0-${shards - 1} --requeue --signal=B:TERM@120 --open-mode=append \\
    ${shardResources} --output="$folder/slurm-%A_%a.out" "$0" shard) || exit
  # afterany: the merge runs when all have ended, however they did, and says what is missing.
  merge=$(sbatch --parsable --job-name=merge --dependency="afterany:$array" --kill-on-invalid-dep=yes \\
    ${resources.join(' ')} --output="$folder/slurm-%j-merge.out" "$0" merge) || exit
  echo "shards: job $array, merge: job $merge"
  echo "watch: tail -F $folder/shard-*.log"
  ;;
shard)
  # Where Slurm does not bind tasks to processors, each would take all of its node's.
  export RT_THREADS="\${RT_THREADS:-${cpus}}"
  # exec: the process behind $child is node itself, which takes the signal. The shell stays to ask for the requeue.
  child=
  trap '[ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM
  (exec ${command} run --plan "$plan" --folder "$folder") &
  child=$!
  wait "$child"
  code=$?
  # A trapped signal ends a wait early: the next one has the exit code.
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
  done
  # ${EXIT.requeue}: stopped early, all is safe. A cancelled task is no longer RUNNING and stays cancelled.
  # SLURM_JOB_ID will not do: one of the tasks has the number of the whole array.
  task="\${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
  if [ "$code" = ${EXIT.requeue} ] && [ "$(squeue --noheader --jobs="$task" --format=%T)" = RUNNING ]; then
    scontrol requeue "$task" && sleep 60 # until Slurm ends this script
  fi
  exit "$code"
  ;;
merge)
  exec ${command} merge --plan "$plan" --folder "$folder" --output ${quoted(output)}
  ;;
esac
`;
}

/** A word that the shell leaves as it is. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
