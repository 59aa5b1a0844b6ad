import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createStore, type PostgresStore } from '../../store/store.ts'
import { createAccount } from '@sealpost/testing/clients/store-accounts'
import { useDatabase } from '@sealpost/testing/components/test-database'
import { askForExport, callerOf, fillEvents, readSlowly } from '@sealpost/testing/relays/export-server'
import { silent } from '@sealpost/testing/relays/silent-log'

const SCRIPT = fileURLToPath(import.meta.resolve('@sealpost/testing/relays/run-exports'))
const MIB = 1_048_576
const HEAP_MIB = 64
const EXPORTS = 3
/** Of payloads in each; in all half as much again of lines as there is heap. */
const EXPORT_MIB = 24
const PAYLOAD = 65_536
/** What an outflow takes at most, and the line with which it comes there. */
const QUEUED_MAX = MIB + 2 * PAYLOAD

const database = useDatabase()
let store: PostgresStore
let child: ChildProcess

beforeAll(async () => {
  store = await createStore({ connection: database.connection, log: silent })
  const execArgv = ['--conditions=development', '--disable-warning=ExperimentalWarning', `--max-old-space-size=${HEAP_MIB}`]
  child = fork(SCRIPT, [database.url], { execArgv })
})
afterAll(async () => {
  child?.kill('SIGKILL')
  await store?.close()
})

async function told<T>(): Promise<T> {
  const [message] = (await once(child, 'message')) as [T]
  return message
}

async function queuedMax(): Promise<number> {
  child.send('how much')
  return (await told<{ queued_max: number }>()).queued_max
}

it('B08: exports that are larger than the memory wait for who reads them, several at once', { timeout: 120_000 }, async () => {
  const { port } = await told<{ port: number }>()
  const accounts = await Promise.all(
    Array.from({ length: EXPORTS }, async () => {
      const account = await createAccount(store)
      await fillEvents(database.url, account, (EXPORT_MIB * MIB) / PAYLOAD, PAYLOAD)
      return account
    }),
  )
  const exports = await Promise.all(accounts.map((account, i) => askForExport(port, callerOf(account), `192.0.2.${i}`)))
  await expect.poll(queuedMax, { timeout: 20_000 }).toBeGreaterThan(EXPORTS * MIB)
  // time enough to fill the memory
  await sleep(1_500)
  for (const { whole, bytes } of await Promise.all(exports.map((response) => readSlowly(response, 1)))) {
    expect(whole).toBe(true)
    expect(bytes).toBeGreaterThan(EXPORT_MIB * MIB)
  }
  expect(await queuedMax()).toBeLessThanOrEqual(EXPORTS * QUEUED_MAX)
})
