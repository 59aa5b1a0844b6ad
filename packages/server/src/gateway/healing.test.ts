import { describe, expect, it } from 'vitest'
import { append } from '@sealpost/testing/clients/store-accounts'
import { proveRaw } from '@sealpost/testing/clients/raw-client'
import { makeRecords, takeAcks, takeEvents, useRelay } from '@sealpost/testing/relays/socket-relay'

/** The history that the store claims to have, when it is not its own; and a gate in front of the answers to `establishSession`. */
const store = { history: null as string | null, established: 0, gate: Promise.resolve(), entries: Promise.resolve() }

const relay = useRelay({ limits: { tickMs: 50, headRoundMs: 200 } }, (inner) => ({
  ...inner,
  now: inner.now,
  get history_id() {
    return store.history ?? inner.history_id
  },
  async establishSession(request) {
    const result = await inner.establishSession(request)
    store.established += 1
    await store.gate
    return result
  },
  async readEntries(...args) {
    await store.entries
    return inner.readEntries(...args)
  },
}))

describe('C6: a store with another past', () => {
  it('ends every open session, so that each handshake judges its cursor again', async () => {
    const account = await relay.account(2)
    const [a, b] = [await relay.connect(account, 0), await relay.connect(account, 1)]
    store.history = 'another'
    expect(await Promise.all([a.closed, b.closed])).toMatchObject([{ code: 1001 }, { code: 1001 }])
    store.history = null
    await relay.connect(account, 0)
  })

  it('passes on nothing that was committed after it', async () => {
    const account = await relay.account(2)
    const [a, b] = [await relay.connect(account, 0), await relay.connect(account, 1)]
    a.sendRecords(...makeRecords(a, 1, 1, { epoch: account.log_seq }))
    await takeEvents(b, 1, 0)
    store.history = 'another'
    a.sendRecords(...makeRecords(a, 2, 1, { epoch: account.log_seq }))
    await Promise.all([a.closed, b.closed])
    store.history = null
    expect(b.received.filter(({ head }) => head.type === 'event')).toEqual([])
    expect(a.types.filter((type) => type === 'nack')).toEqual([])
  })

  it('is also one whose head lies below what was sent', async () => {
    const account = await relay.account(2)
    const [a, b] = [await relay.connect(account, 0), await relay.connect(account, 1)]
    a.sendRecords(...makeRecords(a, 1, 3, { epoch: account.log_seq }))
    await takeEvents(b, 3, 0)
    await relay.store.pools.main.query('update head set last = 2 where user_no = $1 and stream_no = 0', [account.user_no])
    expect(await Promise.all([a.closed, b.closed])).toMatchObject([{ code: 1001 }, { code: 1001 }])
  })
})

describe('C4: an entry of the device log that nobody announced', () => {
  it('is told within a round', async () => {
    const account = await relay.account()
    const a = await relay.connect(account)
    await append(relay.store, account, { type: 'rotate_keys' })
    await a.next('log_entry')
    a.sendRecords(...makeRecords(a, 1, 1, { epoch: account.log_seq }))
    await takeAcks(a, 1)
  })

  it('nothing is left of the socket of a revoked device after a second, though the entry cannot be read', async () => {
    const account = await relay.account(2)
    const b = await relay.connect(account, 1)
    const gate = Promise.withResolvers<void>()
    store.entries = gate.promise
    const device_id = b.identity.device_id
    await append(relay.store, account, { type: 'revoke_device', revoked: [{ device_id }] })
    const began = performance.now()
    const { history_id } = relay.store
    relay.gateway.bus.publish(account.user_no, { is: 'log', history_id, log_seq: account.log_seq, revoked: [device_id] })
    expect(await b.closed).toMatchObject({ code: 1006 })
    expect(performance.now() - began).toBeLessThan(1_000)
    gate.resolve()
  })

  it('cuts the device that it revoked', async () => {
    const account = await relay.account(2)
    const b = await relay.connect(account, 1)
    await append(relay.store, account, { type: 'revoke_device', revoked: [{ device_id: b.identity.device_id }] })
    await b.next('log_entry')
    expect(await b.closed).toMatchObject({ code: 4403 })
  })
})

describe('R04: a handshake whose peer went away', () => {
  async function abandon(account: Awaited<ReturnType<typeof relay.account>>) {
    const gate = Promise.withResolvers<void>()
    const lost = await relay.greet(account)
    store.gate = gate.promise
    const before = store.established
    await proveRaw(lost, relay.options(account))
    await expect.poll(() => store.established).toBe(before + 1)
    await lost.close()
    return gate.resolve
  }

  it('does not end the session of its device as superseded: the device comes back', async () => {
    const account = await relay.account()
    const a = await relay.connect(account)
    const release = await abandon(account)
    a.sendRecords(...makeRecords(a, 1, 1, { epoch: account.log_seq }))
    await new Promise((resolve) => setTimeout(resolve, 100))
    release()
    expect(await a.closed).toMatchObject({ code: 4456 })
    store.gate = Promise.resolve()
    const again = await relay.connect(account)
    again.sendRecords(...makeRecords(again, 1, 1, { epoch: account.log_seq }))
    await takeAcks(again, 1)
  })

  it('writes no fence when it was still waiting for its turn', async () => {
    const account = await relay.account()
    const release = await abandon(account)
    const established = store.established
    const waiting = await relay.greet(account)
    await proveRaw(waiting, relay.options(account))
    await new Promise((resolve) => setTimeout(resolve, 100))
    await waiting.close()
    await expect.poll(() => relay.gateway.relay.sessions.size()).toBe(0)
    release()
    store.gate = Promise.resolve()
    await relay.connect(account)
    expect(store.established).toBe(established + 1)
  })
})
