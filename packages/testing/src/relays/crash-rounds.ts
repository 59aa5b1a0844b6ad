/**
 * Fault injection with a history check (B06): while a device sends, the relay, its PostgreSQL, or everything is killed with
 * SIGKILL at a random moment and started again on the same data. At the end every event that was queued has arrived on the
 * other device exactly once and in order; in between, nothing that was acked is missing from the server's log.
 *
 * The events are durable in the sender's outbox before the first round, so the full list is known and the check is equality.
 */
import { openHome } from '@sealpost/client/node'
import { randomInt } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { commandOf, OWN_PROCESSES } from '../components/available.ts'
import { postmasterPid, type Program, type Relay, sealpost, startRelay, startSealpost } from '../components/programs.ts'
import { makeFolder, pairTwoDevices } from '../clients/two-devices.ts'

export type Victim = 'relay' | 'postgres' | 'everything'

export type CrashReport = {
  rounds: { victim: Victim; acked_before: number; back_ms: number }[]
  expected: string[]
  received: string[]
}

/** In a container each life of the relay has process ids of its own, which begin with 1 and come again. */
export type Where = 'machine' | 'container'

/** `lines` events are spread over the rounds. A round is one kill. */
export async function runCrashRounds(victims: readonly Victim[], lines_per_round: number, where: Where = 'machine'): Promise<CrashReport> {
  const folder = await makeFolder()
  const data = `${folder}/data`
  const within = where === 'machine' ? [] : [commandOf('unshare'), ...OWN_PROCESSES]
  let relay: Relay = await startRelay(data, {}, undefined, within)
  const started: Program[] = []
  try {
    const { laptop, phone } = await pairTwoDevices(relay.url, folder)
    const report: CrashReport = { rounds: [], expected: [], received: [] }
    for (const [round, victim] of victims.entries()) {
      const lines = Array.from({ length: lines_per_round }, (_, i) => `${round}:${i} ${'x'.repeat(randomInt(200))}`)
      report.expected.push(...lines)
      await sealpost(['send', '--home', laptop, '--lines', '--queue'], { input: lines.map((line) => `${line}\n`).join('') })

      // the next command sends what is queued; `tail` on the same stream keeps the leader alive until it is killed
      const sender = startSealpost(['tail', '--home', laptop, '--from', 'now'], { ms_max: 120_000 })
      started.push(sender)
      const acked_before = await waitForSomeAcks(laptop, lines_per_round)

      const { port } = relay
      const began = performance.now()
      if (victim === 'postgres') process.kill(postmasterPid(data), 'SIGKILL')
      else if (victim === 'relay') process.kill(relay.pid, 'SIGKILL')
      else {
        if (where === 'machine') process.kill(postmasterPid(data), 'SIGKILL')
        relay.kill('SIGKILL')
        sender.kill('SIGKILL')
      }
      if (victim !== 'postgres') {
        await relay.ended
        relay = await startRelay(data, {}, port, within)
      }
      const back_ms = Math.round(performance.now() - began)
      if (victim === 'everything') started.push(startSealpost(['tail', '--home', laptop, '--from', 'now'], { ms_max: 120_000 }))
      await waitForEmptyOutbox(laptop)
      for (const program of started.splice(0)) {
        program.kill('SIGTERM')
        await program.ended
      }
      report.rounds.push({ victim, acked_before, back_ms })
    }
    // idle for a second at the end: an event that came twice would follow
    const tail = await sealpost(['tail', '--home', phone, '--from', 'start', '--idle-exit', '2'], { ms_max: 120_000 })
    report.received = tail.stdout.toString().split('\n').slice(0, -1)
    return report
  } finally {
    for (const program of started) program.kill('SIGKILL')
    relay.kill('SIGTERM')
    await relay.ended
    await rm(folder, { recursive: true, force: true })
  }
}

/** Looks into the home's outbox as any other process of the home may. */
async function watchOutbox<T>(home: string, watch: (pending: () => Promise<number>) => Promise<T>): Promise<T> {
  const opened = await openHome(home)
  try {
    return await watch(async () => (await opened.store.countOutbox()).pending)
  } finally {
    await opened.close()
  }
}

/** Until the first acks are there, then a random moment more; returns what was acked by then. */
function waitForSomeAcks(home: string, queued: number): Promise<number> {
  return watchOutbox(home, async (pending) => {
    for (const end = performance.now() + 20_000; performance.now() < end; await sleep(2)) if ((await pending()) < queued) break
    await sleep(randomInt(60))
    return queued - (await pending())
  })
}

function waitForEmptyOutbox(home: string): Promise<void> {
  return watchOutbox(home, async (pending) => {
    for (const end = performance.now() + 60_000; performance.now() < end; await sleep(50)) if ((await pending()) === 0) return
    throw new Error('the outbox did not get empty after the relay was back')
  })
}
