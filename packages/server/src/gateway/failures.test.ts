import { describe, expect, it } from 'vitest'
import type { Store, StoredLogEntry } from '../ports/store.ts'
import { createEntryReader } from '../relay/sessions/log-entries.ts'
import { append, makeEntry } from '@sealpost/testing/clients/store-accounts'
import { makeRecord, proveRaw } from '@sealpost/testing/clients/raw-client'
import { makeRecords, takeAcks, takeEvents, useRelay } from '@sealpost/testing/relays/socket-relay'

/** Methods of the store that fail, with a text that nobody outside may see. */
const broken = new Set<keyof Store>()
const SECRET = 'password authentication failed for user "relay"'

function breakable(store: Store): Store {
  return new Proxy(store, {
    get(target, name: keyof Store) {
      const value: unknown = target[name]
      if (typeof value !== 'function') return value
      return (...args: unknown[]) => (broken.has(name) ? Promise.reject(new Error(SECRET)) : value.apply(target, args))
    },
  })
}

describe('a store that fails', () => {
  const relay = useRelay({ limits: { tickMs: 50, headRoundMs: 100, touchMs: 100 } }, breakable)

  async function whileBroken<T>(names: (keyof Store)[], work: () => Promise<T>): Promise<T> {
    for (const name of names) broken.add(name)
    try {
      return await work()
    } finally {
      broken.clear()
    }
  }

  it('closes a handshake with 1011, and lets the device in when it works again', async () => {
    const account = await relay.account()
    for (const name of ['findDevice', 'establishSession'] as const)
      await whileBroken([name], async () => {
        const client = await relay.greet(account)
        await proveRaw(client, relay.options(account))
        expect(await client.closed).toEqual({ code: 1011, reason: 'error' })
      })
    await relay.connect(account)
  })

  it('answers requests with unavailable and says nothing of the inside', async () => {
    const account = await relay.account()
    const a = await relay.connect(account)
    const { entry, boxes } = makeEntry(account, { type: 'rotate_keys' })
    const [body, sig] = [Buffer.from(entry.body).toString('base64url'), Buffer.from(entry.sig).toString('base64url')]
    await whileBroken(['readPage', 'readEntries', 'readTips', 'appendEntry'], async () => {
      a.send({ type: 'replay_request', id: 1, last_ack_device_seq: 0, query: true })
      a.send({ type: 'log_request', id: 2, from_log_seq: 0 })
      a.send({ type: 'tips_request', id: 3, device_id: a.identity.device_id })
      a.send({ type: 'log_append', id: 4, body, sig, boxes })
      for (const id of [1, 2, 3, 4]) {
        const { head } = await a.next('error', (message) => message.head.id === id)
        expect(head.code).toBe('unavailable')
        expect(JSON.stringify(head)).not.toContain('password')
      }
    })
    a.send({ type: 'replay_request', id: 5, last_ack_device_seq: 0, query: true })
    await a.next('replay_response')
  })

  it('live delivery and the device log catch up when it works again', async () => {
    const account = await relay.account(2)
    const [a, b] = [await relay.connect(account, 0), await relay.connect(account, 1)]
    await whileBroken(
      ['readPage', 'readEntries', 'compareSessions', 'readOnline', 'touchDevices', 'endSession', 'readPresence'],
      async () => {
        await append(relay.store, account, { type: 'rotate_keys' })
        a.sendRecords(makeRecord(a.identity.device_id, 1, { epoch: account.log_seq - 1 }))
        a.send({ type: 'ack', position: 0 })
        await new Promise((resolve) => setTimeout(resolve, 250))
        expect(a.types).not.toContain('nack')
      },
    )
    expect((await a.next('nack')).head).toMatchObject({ code: 'stale_epoch' })
    a.sendRecords(...makeRecords(a, 1, 3, { epoch: account.log_seq }))
    await takeAcks(a, 3)
    expect((await takeEvents(b, 3, 0)).length).toBe(3)
    expect(b.types.indexOf('log_entry')).toBeLessThan(b.types.indexOf('event'))
  })

  it('a session that is established when its socket is gone gives the fence back', async () => {
    const account = await relay.account()
    const client = await relay.greet(account)
    await proveRaw(client, relay.options(account))
    await client.close()
    await expect.poll(() => relay.gateway.relay.sessions.size()).toBe(0)
    const a = await relay.connect(account)
    expect(a.established.mode).toBe('live')
  })
})

it('pages of the device log fit into a frame, and have at least one entry', async () => {
  const entry = (log_seq: number): StoredLogEntry => ({
    log_seq,
    body: new Uint8Array(60_000),
    sig: new Uint8Array(64),
    box: new Uint8Array(1168),
  })
  const all = Array.from({ length: 30 }, (_, i) => entry(i))
  const store = { readEntries: () => Promise.resolve({ entries: all, has_more: false }) }
  const who = { user_no: 1, device_no: 1, user_id: '', device_id: '', sign_pub: new Uint8Array(32) }
  const page = await createEntryReader(store, { frame_bytes: 1_048_576, logEntriesPageMax: 50 })(who, 0)
  expect(page).toMatchObject({ has_more: true })
  expect(page.entries.length).toBe(12)
  expect((await createEntryReader(store, { frame_bytes: 10_000, logEntriesPageMax: 50 })(who, 0)).entries.length).toBe(1)
  expect(await createEntryReader(store, { frame_bytes: 1e8, logEntriesPageMax: 50 })(who, 0)).toEqual({ entries: all, has_more: false })
})
