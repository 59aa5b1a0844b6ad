import { expect, test } from 'vitest'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { runCrashRounds } from '@sealpost/testing/relays/crash-rounds'

describeWith(['process namespaces'], 'a relay whose process ids come again in each life, as in a container', () => {
  test('B06 C1 starts after kill -9 of everything, and every queued event arrives once and in order', { timeout: 240_000 }, async () => {
    const report = await runCrashRounds(['everything', 'everything', 'everything'], 2_000, 'container')
    expect(report.received).toEqual(report.expected)
    expect(report.rounds.filter((round) => round.acked_before > 0 && round.acked_before < 2_000).length).toBeGreaterThanOrEqual(1)
  })
})
