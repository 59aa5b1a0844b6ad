import { expect, test } from 'vitest'
import { runCrashRounds, type Victim } from '@sealpost/testing/relays/crash-rounds'
import { roundsOf } from '@sealpost/testing/tier'

const EACH = roundsOf({ quick: 1, system: 4 })
const VICTIMS = Array.from({ length: EACH }, (): Victim[] => ['relay', 'postgres', 'everything']).flat()
const EVENTS = 2_000

test(`B06 C1 every queued event arrives once and in order over ${VICTIMS.length} rounds of kill -9`, { timeout: 240_000 }, async () => {
  const report = await runCrashRounds(VICTIMS, EVENTS)
  expect(report.received.length).toBe(report.expected.length)
  expect(report.received).toEqual(report.expected)
  // the kills fell into the sending, not before or after it
  const amid = report.rounds.filter((round) => round.acked_before > 0 && round.acked_before < EVENTS)
  expect(amid.length).toBeGreaterThanOrEqual(EACH)
})
