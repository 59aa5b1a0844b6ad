/**
 * How a herd comes in (R12, docs/operations/nodes.md): so many handshakes a second as this process serves, and as many at one moment. The
 * others are told when to come again: one after another, in the order in which they were sent away, at the rate at which there is room. So
 * the time that is told grows with how many wait, and who does as told comes in.
 *
 * Invariant: within any `t` seconds no more than rate × (t + 1) come in. Bound: two numbers, however many wait; nobody is told to stay away
 * longer than `2 × TURN_MS_MAX`, however many ask again too early.
 */
export type Admission = {
  /** Null: there is room. Else ms to stay away, for whoever this is said to. */
  turnAway(): number | null
  /** The same, and takes the room. */
  admit(): number | null
}

export type AdmissionDeps = {
  per_second: number
  now(): number
  /** 0 ≤ x < 1. */
  random(): number
}

const BURST_MS = 1_000
/** Each comes at some moment within so long after its turn began: nodes that refuse together do not call together. */
const TURN_MS = 1_000
/** Who would have to wait longer is told a moment between this and twice this. */
const TURN_MS_MAX = 60_000

export function createAdmission({ per_second, now, random }: AdmissionDeps): Admission {
  const gap_ms = 1_000 / per_second
  /** When those that came in would have come in at an even pace. */
  let served_at = 0
  /** When the last that was sent away has its turn. */
  let turn_at = 0

  /** When there is room for one more; half a gap is for what sums of fractions lack. */
  function roomAt(): number {
    return served_at + gap_ms / 2 - BURST_MS
  }

  function turnAway(): number | null {
    const at = now()
    if (roomAt() <= at) return null
    turn_at = Math.min(Math.max(turn_at + gap_ms, roomAt()), at + TURN_MS_MAX)
    const turn = turn_at - at
    return Math.ceil(turn + (turn < TURN_MS_MAX ? TURN_MS : TURN_MS_MAX) * random())
  }

  return {
    turnAway,
    admit() {
      const wait = turnAway()
      if (wait === null) served_at = Math.max(served_at, now()) + gap_ms
      return wait
    },
  }
}
