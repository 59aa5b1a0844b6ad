/**
 * More of what `crash.test.ts` does, for as many rounds as asked: `npm run soak -- [rounds] [events per round]`. Prints one
 * JSON line a run and ends with 1 when the history is not exact.
 */
import { randomInt } from 'node:crypto'
import { runCrashRounds, type Victim } from '@sealpost/testing/relays/crash-rounds'

const [rounds = 60, lines = 2_000] = process.argv.slice(2).map(Number)
const victims = Array.from(
  { length: rounds },
  () => (['relay', 'postgres', 'everything'] as const)[randomInt(3)] satisfies Victim | undefined,
)
const began = performance.now()
const report = await runCrashRounds(
  victims.filter((victim) => victim !== undefined),
  lines,
)
const exact = report.received.length === report.expected.length && report.received.every((line, i) => line === report.expected[i])
const amid = report.rounds.filter((round) => round.acked_before > 0 && round.acked_before < lines).length
const seconds = Math.round((performance.now() - began) / 1000)
process.stdout.write(
  `${JSON.stringify({ rounds, kills_amid_sending: amid, events: report.expected.length, received: report.received.length, exact, seconds })}\n`,
)
process.exitCode = exact ? 0 : 1
