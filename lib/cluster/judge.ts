// lib/cluster/judge.ts: what weights expect of the reference answers, sample by sample, beside the reference weights.
// plan + compiled or loaded models -> one line a sample and configuration: log-probability, KL divergence, same top.
// The figures are quality/gate.ts's, kept by sample so that shards can be merged.

import type { GenerativeModel } from '../generate.js';
import { promptAndAnswer } from '../quality/perplexity.js';
import { compareLogits, tokenLogProbabilities } from '../quality.js';
import { TEXTS_AT_ONCE, teacherForcedBatch } from '../teacherForcing.js';
import type { Judged, ShardStore } from './files.js';
import { type ClusterPlan, type PlannedSample, shardOf } from './plan.js';
import type { ShardWatch } from './progress.js';

/** A configuration's label and what generates in it. Two that differ in the cache alone need one judge. */
export interface Judge {
  readonly label: string;
  readonly model: GenerativeModel;
}

/**
 * Judges the answers of a shard's samples that no attempt has judged.
 * @param judges the reference first; with fewer than two there is nothing to compare
 * @throws the signal's reason when stopped; what was judged is in the store
 */
export async function judgeAnswers(
  plan: ClusterPlan,
  shard: number,
  judges: readonly Judge[],
  {
    store,
    watch,
    signal,
  }: { readonly store: ShardStore; readonly watch: ShardWatch; readonly signal: AbortSignal | undefined },
): Promise<void> {
  if (judges.length < 2) return;
  const mine = plan.samples.filter((_, i) => shardOf(plan, i) === shard);
  const isMissing = (sample: PlannedSample) =>
    judges.some(({ label }) => !store.hasJudged(label, sample.keys[0]!));
  watch.begin('comparing', mine.length, mine.filter((sample) => !isMissing(sample)).length);
  const judge = async (samples: readonly PlannedSample[]): Promise<void> => {
    signal?.throwIfAborted();
    const judged = await judgeSamples(judges, samples, plan.answerTokens ?? undefined, signal).catch(
      (error: unknown) => {
        if (signal?.aborted) throw error;
        if (samples.length === 1) watch.failed(error);
      },
    );
    if (judged) {
      for (const [i, sample] of samples.entries()) {
        for (const [j, { label }] of judges.entries())
          await store.addJudged(label, sample.keys[0]!, judged[j]![i]!);
        watch.step();
      }
    } else if (samples.length > 1) {
      for (const sample of samples) await judge([sample]); // one of them may be at fault
    }
  };
  // Prompts of like length together: the others' padding would be most of the work.
  const promptLength = ({ instruction, input }: PlannedSample) => instruction.length + input.length;
  const missing = mine.filter(isMissing).sort((a, b) => promptLength(a) - promptLength(b));
  for (let first = 0; first < missing.length; first += TEXTS_AT_ONCE)
    await judge(missing.slice(first, first + TEXTS_AT_ONCE));
}

/** @returns of each judge, what it expects of each sample's answer */
async function judgeSamples(
  judges: readonly Judge[],
  samples: readonly PlannedSample[],
  most: number | undefined,
  signal: AbortSignal | undefined,
): Promise<Judged[][]> {
  const { model } = judges[0]!;
  const { tokenizer, eosIds, vocabSize } = model;
  if (!tokenizer) throw new RangeError('judge: expected a model with a tokenizer, received none');
  const given = samples.map((sample) => promptAndAnswer(tokenizer, eosIds, sample, most));
  let reference: Float32Array[] | undefined; // of each sample [answer tokens, vocab]
  const judged: Judged[][] = [];
  for (const judge of judges) {
    const logits = await teacherForcedBatch(judge.model, given, signal);
    judged.push(
      given.map(({ answerIds }, i) => {
        const compared = reference && compareLogits(reference[i]!, logits[i]!, vocabSize);
        const logProbabilities = tokenLogProbabilities(logits[i]!, answerIds, vocabSize);
        return {
          logProbability: logProbabilities.reduce((sum, value) => sum + value, 0),
          tokens: answerIds.length,
          // Six digits are more than a mean over thousands can use, and halve the file.
          klDivergence: [...(compared?.klDivergence ?? [])].map((nats) => Number(nats.toPrecision(6))),
          sameTop: compared ? compared.sameTop.reduce((sum, same) => sum + same, 0) : answerIds.length,
        };
      }),
    );
    reference ??= logits;
  }
  return judged;
}
