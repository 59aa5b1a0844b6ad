import { expect, test } from 'vitest'
import { runCrashRounds, type Victim } from './support/crash-rounds.ts'

const VICTIMS: Victim[] = [
  'relay',
  'postgres',
  'everything',
  'relay',
  'postgres',
  'everything',
  'relay',
  'postgres',
  'everything',
  'relay',
  'postgres',
  'everything',
]

test('B06 C1 every queued event arrives once and in order over 12 rounds of kill -9', { timeout: 240_000 }, async () => {
  const report = await runCrashRounds(VICTIMS, 2_000)
  expect(report.received.length).toBe(report.expected.length)
  expect(report.received).toEqual(report.expected)
  // the kills fell into the sending, not before or after it
  expect(report.rounds.filter((round) => round.acked_before > 0 && round.acked_before < 2_000).length).toBeGreaterThanOrEqual(4)
})
