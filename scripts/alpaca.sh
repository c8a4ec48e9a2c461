#!/bin/bash
# The large evaluation: one model over a dataset of Alpaca's schema, float32 against INT8 and INT4, into one file of
# figures without the texts. Stopped at any moment it goes on where it was when the same command is given again.
#
#   scripts/alpaca.sh DATASET [MODEL]      all four steps; MODEL is SmolLM2's folder (scripts/smollm2.sh) if absent
#   scripts/alpaca.sh --only texts DATASET ...     one of plan, texts, speed, figures
#
#   plan     what is measured, fixed in WORK/texts.json, speed.json and turns.json
#   texts    JOBS processes at once, a shard each: what the three kinds of weights write, and expect of the answers
#   speed    one process alone: the compiled configurations on all samples, then on the first TURNS samples those four of
#            notebook 05 and INT4 in turns, the uncached one being slow. With JOBS=1 the texts had the machine to
#            themselves, their times count, and only the turns are left
#   figures  OUTPUT, from both
#
# Environment: TARGET (wasm) what runs compiled configurations; FAST=1 takes the fast mode for INT8 and INT4;
# SAMPLES (999); NEW (50) tokens; ANSWER (50) tokens of each reference answer to compare, or all; JOBS (processors)
# processes, THREADS (1; with JOBS=1 processors) threads each; TURNS (20) samples, 0 leaves those configurations out;
# BACKEND (auto) of eager configurations; WORK (results/latest/alpaca) for plans and shards; OUTPUT
# (results/reference/alpaca-smollm2.json).
# Exit code 75: stopped by SIGTERM, all that was measured is safe.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
fail() { echo "alpaca: $1" >&2; exit 1; }
only=all
if [ "${1:-}" = --only ]; then only=${2:-}; shift 2 || fail 'expected a step after --only'; fi
case $only in all|plan|texts|speed|figures) ;; *) fail "expected plan, texts, speed or figures, received '$only'" ;; esac
[ $# -ge 1 ] && [ $# -le 2 ] || fail "expected DATASET and perhaps MODEL, received $#; see the head of this file"
dataset=$1
model=${2:-${RESPONSE_TIME_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/response-time}/smollm2}
target=${TARGET:-wasm}
samples=${SAMPLES:-999}
new=${NEW:-50}
answer=${ANSWER:-50}
mode=${FAST:+-fast}
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN)}
turns=${TURNS:-20}
work=${WORK:-$here/results/latest/alpaca}
output=${OUTPUT:-$here/results/reference/alpaca-smollm2.json}
cluster() { node "$here/lib/bin/response-time.js" cluster "$@"; }

children=()
stop() { kill -TERM "${children[@]}" 2>/dev/null || true; }
trap stop TERM INT

# Runs shards 0 to COUNT - 1 of a plan at once and waits for all. Their lines of progress are in their own logs.
shards() {
  local plan=$1 count=$2 i code worst=0
  children=()
  for ((i = 0; i < count; i++)); do
    node "$here/lib/bin/response-time.js" cluster run --plan "$plan" --shard "$i" >/dev/null 2>"$work/$(basename "$plan" .json)-$i.err" &
    children+=($!)
  done
  echo "alpaca: $count at once, watch them: tail -F ${plan%.json}.shards/*.log"
  for i in "${!children[@]}"; do
    code=0
    wait "${children[$i]}" || code=$?
    # A trapped signal ends a wait early: the next one has the exit code.
    while kill -0 "${children[$i]}" 2>/dev/null; do code=0; wait "${children[$i]}" || code=$?; done
    [ "$code" = 0 ] || { worst=$code; echo "alpaca: shard $i ended with $code: $(tail -n 1 "$work/$(basename "$plan" .json)-$i.err")" >&2; }
  done
  [ "$worst" = 0 ] || exit "$worst"
}

step() { [ "$only" = all ] || [ "$only" = "$1" ]; }

mkdir -p "$work"
if step plan && [ ! -f "$work/texts.json" ]; then
  common=(--dataset "$dataset" --new "$new" --backend "${BACKEND:-auto}")
  compiled=$target-cached-f32,$target-cached-int8$mode,$target-cached-int4$mode
  most=()
  [ "$answer" = all ] || most=(--answer-tokens "$answer")
  if [ "$jobs" -gt 1 ]; then
    cluster plan "$model" "${common[@]}" --samples "$samples" --configurations "$compiled" --output "$work/speed.json"
  fi
  if [ "$turns" -gt 0 ]; then
    cluster plan "$model" "${common[@]}" --samples "$turns" --output "$work/turns.json" \
      --configurations "eager-uncached-f32,eager-cached-f32,$compiled"
  fi
  # Last: whoever finds it finds the others.
  cluster plan "$model" "${common[@]}" --samples "$samples" --configurations "$compiled" --reference "$target-cached-f32" \
    "${most[@]}" --shards "$jobs" --output "$work/texts.json"
fi
[ -f "$work/texts.json" ] || fail "no plan in $work: run the step plan first"

if step texts; then
  count=$(node -p "require('$work/texts.json').shards")
  if [ "$count" -gt 1 ]; then threads=${THREADS:-1}; else threads=${THREADS:-$(getconf _NPROCESSORS_ONLN)}; fi
  RT_THREADS=$threads shards "$work/texts.json" "$count"
fi
if step speed; then
  if [ -f "$work/speed.json" ]; then shards "$work/speed.json" 1; fi
  if [ -f "$work/turns.json" ]; then shards "$work/turns.json" 1; fi
fi
if step figures; then
  speeds=("$work/texts.json")
  if [ -f "$work/speed.json" ]; then speeds=("$work/speed.json"); fi
  if [ -f "$work/turns.json" ]; then speeds+=("$work/turns.json"); fi
  cluster figures --plan "$work/texts.json" --speed "${speeds[@]}" --output "$output"
fi
