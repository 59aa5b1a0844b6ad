/**
 * Chance for simulations: one seed, one run. Nothing here may be used where numbers must not be guessed.
 *
 * Invariant: the same seed gives the same sequence on every machine: 32-bit integer arithmetic alone.
 */
export type Random = {
  /** 0 ≤ x < 1. */
  unit(): number
  /** A whole number, 0 ≤ x < n. */
  below(n: number): number
  /** Waiting time of a Poisson process with this many events a second, in seconds. */
  wait(perSecond: number): number
  /** How many of a Poisson process fall into a time in which `mean` are expected. */
  poisson(mean: number): number
}

/** sfc32, after some rounds that spread the seed. */
export function createRandom(seed: number): Random {
  let [a, b, c, counter] = [seed | 0, 0x9e3779b9 | 0, 0x243f6a88 | 0, 1]
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (((c << 21) | (c >>> 11)) + sum) | 0
    return sum >>> 0
  }
  for (let i = 0; i < 16; i++) next()
  const unit = (): number => next() / 2 ** 32

  function poisson(mean: number): number {
    // above it, sums of smaller ones: the product would underflow
    if (mean > 500) return poisson(mean / 2) + poisson(mean / 2)
    const least = Math.exp(-mean)
    let count = 0
    for (let product = unit(); product > least; product *= unit()) count += 1
    return count
  }

  return {
    unit,
    below: (n) => Math.floor(unit() * n),
    wait: (perSecond) => -Math.log(1 - unit()) / perSecond,
    poisson,
  }
}

/** Spreads whole numbers evenly over 2^32 (the finalizer of MurmurHash3). */
export function hash32(value: number): number {
  let h = value | 0
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
