// lib/cli/results.ts: `response-time results`: every Run record, as a table or JSON, beside the committed ones.

import type { Command } from 'commander';
import { referenceResultsFolder, resultsFolder } from '../paths.js';
import { formatComparison, formatRuns } from '../results/compare.js';
import { type Run, readRuns } from '../results.js';
import { print, type Terminal } from './terminal.js';

const HELP = `
Your runs are read from results/latest (RESPONSE_TIME_RESULTS names another folder), the committed ones from
results/reference. A ratio is given only between runs of one machine: else the table says why there is none.

Examples
  $ response-time results
  $ response-time results --json | jq '.yours[].summary.tokensPerSecond'
`;

/** Adds the command to the program. */
export function addResults(program: Command, terminal: Terminal): void {
  program
    .command('results')
    .summary('all measurements, yours beside the committed ones')
    .description('Lists all Run records as a table and compares yours with the committed ones.')
    .option('--json', 'print { yours, committed }: the records themselves')
    .addHelpText('after', HELP)
    .action((options: { json?: true }) => runResults(terminal, options));
}

async function runResults(terminal: Terminal, { json }: { json?: true }): Promise<void> {
  const yours = await readRuns(resultsFolder());
  const committed = await readRuns(referenceResultsFolder());
  if (json) print(terminal, JSON.stringify({ yours, committed }));
  else print(terminal, sections(yours, committed).join('\n\n'));
}

function sections(yours: readonly Run[], committed: readonly Run[]): string[] {
  return [
    `Yours (${resultsFolder()})\n${formatRuns(yours)}`,
    `Committed (${[...new Set(committed.map(machineOf))].join('; ') || 'none'})\n${formatRuns(committed)}`,
    `Yours against the committed\n${formatComparison(yours, committed)}`,
  ];
}

function machineOf({ machine }: Run): string {
  return `${machine.gpu ?? machine.cpu}, ${machine.cores} cores`;
}
