"""ROUGE-L as the rouge-score package computes it without stemming; golden.py checks the two against each other."""

import re


def words(text):
    """Lower-case runs of a-z and 0-9, rouge-score's tokens."""
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge_l(reference, answer):
    """F-measure of the longest common subsequence of two texts' words; 0 when either has none."""
    a, b = words(reference), words(answer)
    if not a or not b:
        return 0.0
    row = [0] * (len(b) + 1)
    for word in a:
        previous = 0
        for j, other in enumerate(b, 1):
            previous, row[j] = row[j], previous + 1 if word == other else max(row[j], row[j - 1])
    common = row[-1]
    return 2 * common / (len(a) + len(b))
