// lib/cluster/judge.ts: what weights expect of the reference answers, sample by sample, beside the reference weights.
// plan + compiled or loaded models -> one line a sample and configuration: log-probability, KL divergence, same top.
// The figures are quality/gate.ts's, kept by sample so that shards can be merged.

import { samplePrompt } from '../dataset.js';
import type { GenerativeModel } from '../generate.js';
import { answerTokens } from '../quality/perplexity.js';
import { compareLogits, tokenLogProbabilities } from '../quality.js';
import { teacherForcedLogits } from '../teacherForcing.js';
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
  for (const sample of mine.filter(isMissing)) {
    signal?.throwIfAborted();
    const judged = await judgeSample(judges, sample, plan.answerTokens ?? undefined, signal).catch(
      (error) => {
        if (signal?.aborted) throw error;
        watch.failed(error);
      },
    );
    if (!judged) continue;
    for (const [i, { label }] of judges.entries()) await store.addJudged(label, sample.keys[0]!, judged[i]!);
    watch.step();
  }
}

async function judgeSample(
  judges: readonly Judge[],
  sample: PlannedSample,
  most: number | undefined,
  signal: AbortSignal | undefined,
): Promise<Judged[]> {
  const { model } = judges[0]!;
  const { tokenizer, eosIds, vocabSize } = model;
  if (!tokenizer) throw new RangeError('judge: expected a model with a tokenizer, received none');
  const promptIds = samplePrompt(tokenizer, sample);
  const answerIds = answerTokens(tokenizer, eosIds, sample).slice(0, most);
  let reference: Float32Array | undefined; // [answer tokens, vocab]
  const judged: Judged[] = [];
  for (const judge of judges) {
    const logits = await teacherForcedLogits(judge.model, promptIds, answerIds, signal);
    const logProbabilities = tokenLogProbabilities(logits, answerIds, vocabSize);
    const compared = reference && compareLogits(reference, logits, vocabSize);
    reference ??= logits;
    judged.push({
      logProbability: logProbabilities.reduce((sum, value) => sum + value, 0),
      tokens: answerIds.length,
      // Six digits are more than a mean over thousands can use, and halve the file.
      klDivergence: [...(compared?.klDivergence ?? [])].map((nats) => Number(nats.toPrecision(6))),
      sameTop: compared ? compared.sameTop.reduce((sum, same) => sum + same, 0) : answerIds.length,
    });
  }
  return judged;
}
