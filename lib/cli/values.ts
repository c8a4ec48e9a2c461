// lib/cli/values.ts: strings of the command line -> checked values. Nothing is rounded, clamped or guessed.

import { InvalidArgumentError } from 'commander';

/** A parser of whole numbers for an option. */
export function wholeNumber(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Expected a whole number ${range}.`);
  };
}

/** A parser of numbers for an option; `expected` says the range in words. */
export function numberWhere(isValid: (value: number) => boolean, expected: string): (text: string) => number {
  return (text) => {
    const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
    if (Number.isFinite(value) && isValid(value)) return value;
    throw new InvalidArgumentError(`Expected ${expected}.`);
  };
}

/** Token ids such as 464,3290,318; the vocabulary is checked when the model is known. */
export function tokenIds(text: string): number[] {
  const parts = text.split(',').map((part) => part.trim());
  const wrong = parts.find((part) => !/^\d+$/.test(part) || !Number.isSafeInteger(Number(part)));
  if (wrong === undefined) return parts.map(Number);
  throw new InvalidArgumentError(
    `Expected whole numbers with commas between, such as 464,3290; received "${wrong}".`,
  );
}
