import { describe, expect, it } from 'vitest'
import type { Log } from '../telemetry/log.ts'
import { silent } from '@sealpost/testing/relays/silent-log'
import { type Job, startJobs } from './schedule.ts'

const job = (name: string, run: Job['run'], every_ms = 5): Job => ({ name, every_ms, run })

describe('jobs', () => {
  it('come back, one at a time, each as often as it says; the last run of each is remembered', async () => {
    let busy = 0
    const ran: string[] = []
    const work = (name: string) => async () => {
      busy += 1
      expect(busy).toBe(1)
      await new Promise((resolve) => setImmediate(resolve))
      busy -= 1
      ran.push(name)
      return { rows: 3, bytes: 7 }
    }
    const jobs = startJobs([job('often', work('often')), job('seldom', work('seldom'), 60_000)], silent)
    await expect.poll(() => ran.length).toBeGreaterThan(3)
    await jobs.close()
    expect(new Set(ran)).toEqual(new Set(['often']))
    expect(jobs.lastRuns()).toMatchObject([{ name: 'often', rows: 3, bytes: 7, ended: 'done' }])
  })

  it('one that fails is said so and comes back; the others go on', async () => {
    let failures = 0
    let others = 0
    const told: string[] = []
    const logger: Log = {
      ...silent,
      warn: (_: unknown, message?: string) => void told.push(message ?? ''),
      info: () => {},
      debug: () => {},
      error: () => {},
    }
    const jobs = startJobs(
      [job('fails', () => Promise.reject(new Error(String(++failures)))), job('other', () => Promise.resolve({ rows: ++others }))],
      logger,
    )
    await expect.poll(() => Math.min(failures, others)).toBeGreaterThan(2)
    await jobs.close()
    expect(jobs.lastRuns()).toMatchObject([{ name: 'fails', rows: 0, ended: 'failed' }, { ended: 'done' }])
    expect(new Set(told)).toEqual(new Set(['a job failed; it is tried again']))
  })

  it('a stop waits for the batch under way and begins no other', async () => {
    const under = Promise.withResolvers<void>()
    const gate = Promise.withResolvers<void>()
    let batches = 0
    const jobs = startJobs(
      [
        job('long', async (turn) => {
          while (turn.wanted()) {
            await turn.batch(async () => {
              under.resolve()
              await gate.promise
              batches += 1
            })
          }
          return { rows: batches }
        }),
      ],
      silent,
    )
    await under.promise
    let closed = false
    const closing = jobs.close().then(() => (closed = true))
    await new Promise((resolve) => setImmediate(resolve))
    expect(closed).toBe(false)
    gate.resolve()
    await closing
    expect(batches).toBe(1)
    expect(jobs.lastRuns()).toMatchObject([{ rows: 1 }])
  })
})

it('a job that is asked for while it runs runs once more', async () => {
  let runs = 0
  const gates: (() => void)[] = []
  const slow: Job = {
    name: 'slow',
    every_ms: 3_600_000,
    async run() {
      runs += 1
      await new Promise<void>((resolve) => gates.push(resolve))
      return { rows: 0 }
    },
  }
  const jobs = startJobs([slow], silent)
  jobs.runSoon('slow')
  await expect.poll(() => gates.length).toBe(1)
  jobs.runSoon('slow')
  gates[0]!()
  await expect.poll(() => runs).toBe(2)
  gates[1]!()
  await jobs.close()
})
