# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "transformers>=4.57", "tokenizers", "safetensors"]
# ///
"""PyTorch as a contender of `npm run bench`, with reference/baseline.py's models and loops; bench/protocol.ts says how.

    python bench/pytorch.py gpt2 | python bench/pytorch.py FOLDER

Float32 through transformers' own generate(); dynamic INT8 in baseline.py's loop, which does less than generate().
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reference"))
warnings.simplefilter("ignore")

import baseline  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

transformers.logging.set_verbosity_error()


def answer(value):
    print("@bench " + json.dumps(value), flush=True)


class Moments:
    """A streamer for generate(): the first call is the prompt, each further one a token."""

    def __init__(self):
        self.begun, self.moments = time.perf_counter(), []

    def put(self, _):
        self.moments.append(1000 * (time.perf_counter() - self.begun))

    def end(self):
        pass


@torch.inference_mode()
def generate(model, prompt, count):
    streamer, ids = Moments(), torch.tensor([prompt])
    model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count, do_sample=False,
        pad_token_id=0, streamer=streamer,
    )  # fmt: skip
    return streamer.moments[1:]


def main():
    name = sys.argv[1]
    shape = name if name in baseline.RANDOM_SHAPES else None
    options = argparse.Namespace(random_shape=shape, model=name, dtype="f32", device="cpu")
    model = baseline.load_model(options)
    int8 = baseline.Generator("int8", baseline.dynamic_int8(model), None, "cpu")
    vocabulary = model.config.vocab_size
    answer({"facts": {"name": f"torch {torch.__version__}, transformers {transformers.__version__}"}})
    for line in sys.stdin:
        work = json.loads(line)
        try:
            # As syntheticPrompt(0, ...) of lib/dataset.ts.
            prompt = [i * 104729 % vocabulary for i in range(work["promptTokens"])]
            torch.set_num_threads(work["threads"])
            count = work["newTokens"]
            moments = int8(prompt, count)[1] if work["mode"] == "int8" else generate(model, prompt, count)
            timing = {"totalMs": moments[-1], "firstTokenMs": moments[0], "newTokens": len(moments)}
            answer({"timing": timing | {"threads": work["threads"]}})
        except Exception as error:  # the bench goes on without this figure
            answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
