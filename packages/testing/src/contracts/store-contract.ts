/** What every `DeviceStore` promises (`ports.ts`), as tests: run it on each implementation. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  ASIDE_KEPT,
  type DeviceStore,
  type Identity,
  type ItemAck,
  type LogRow,
  type NewItem,
  type ReceivedItem,
  type Sealed,
} from '../../../client/src/ports.ts'

/** A store that can be closed and opened again on what it kept; `reopen` may return the same object where nothing is kept apart. */
export type StoreUnderTest = { store: DeviceStore; reopen(): Promise<DeviceStore>; dispose(): Promise<void> }

const filled = (length: number, byte: number): Uint8Array => new Uint8Array(length).fill(byte)
const uuid = (n: number): string => `00000000-0000-7000-8000-${String(n).padStart(12, '0')}`

const identity: Identity = {
  user_id: 'A'.repeat(43),
  device_id: uuid(1),
  name: 'laptop',
  device_type: 'desktop',
  server_url: 'https://relay.example',
  server_key: filled(32, 1),
  sign_seed: filled(32, 2),
  kem_seed: filled(32, 3),
  created_at: 1,
}
const entry = (log_seq: number, byte = log_seq): LogRow => ({
  log_seq,
  entry_hash: filled(32, byte),
  body: filled(10, byte),
  sig: filled(64, byte),
  box: log_seq === 1 ? null : filled(1168, byte),
  epoch_key: null,
  first_seen: 100 + log_seq,
})
const item = (n: number, bytes = 3): NewItem => ({
  event_id: uuid(n),
  stream_id: n % 2 === 0 ? 'even' : 'odd',
  type: 'app',
  ttl: n === 5 ? 60 : null,
  data: filled(bytes, n),
  queued_at: n,
})
const sealed = (device_seq: number): Sealed => ({
  device_seq,
  epoch: 2,
  event_hash: filled(32, device_seq),
  record: filled(50, device_seq),
})
const sealedAs = (n: number) => ({ item_no: n, event_id: uuid(n), ...sealed(n) })
const ackOf = (n: number, device_seq: number): ItemAck => ({
  event_id: uuid(n),
  device_seq,
  position: n * 10,
  stream_seq: n,
  received_at: 7,
})
const event = (position: number, stream_id = 'main', bytes = 4): ReceivedItem => ({
  is: 'event',
  position,
  stream_id,
  stream_seq: position,
  event_id: uuid(position),
  type: 'app',
  device_id: uuid(9),
  received_at: 5,
  ttl: position === 2 ? 60 : null,
  data: filled(bytes, position),
})
const notice = (stream_id: string | null, position = 0): ReceivedItem => ({ is: 'notice', position, stream_id, notice: '{"is":"reset"}' })
const commit = (items: ReceivedItem[], position: number): Parameters<DeviceStore['commitReceived']>[0] => ({
  items,
  cursor: { position, event_id: uuid(position), received_at: 5, history_id: 'h' },
  heads: [],
  acks: [],
  alarms: [],
})

export function describeStoreContract(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`${name} keeps the promises of a device store`, () => {
    let under: StoreUnderTest
    let store: DeviceStore

    beforeEach(async () => {
      under = await open()
      store = under.store
    })
    afterEach(() => under.dispose())

    const numbers = async (after = 0, limit = 100, bytes = 1e9): Promise<number[]> =>
      (await store.readPending(after, limit, bytes)).map((one) => one.item_no)

    it('identity and first entries come together, survive, and are made only once', async () => {
      expect(await store.readIdentity()).toBeNull()
      await store.createIdentity(identity, [entry(0), entry(1)])
      await expect(store.createIdentity(identity, [entry(0)])).rejects.toMatchObject({ code: 'already_paired' })
      store = await under.reopen()
      expect(await store.readIdentity()).toEqual(identity)
      expect(await store.readLog()).toEqual([entry(0), entry(1)])
      await store.updateIdentity({ server_url: 'https://other.example', server_key: filled(32, 8) })
      expect(await store.readIdentity()).toEqual({ ...identity, server_url: 'https://other.example', server_key: filled(32, 8) })
    })

    it('wiping leaves nothing but who revoked the device; a new identity may follow', async () => {
      await store.createIdentity(identity, [entry(0)])
      await store.enqueue([item(1)])
      await store.commitReceived(commit([event(1)], 1))
      const revocation = { user_id: identity.user_id, device_id: identity.device_id, by: uuid(2), by_name: 'phone', at: 5, log_seq: 3 }
      await store.wipe(revocation)
      expect(await store.readIdentity()).toBeNull()
      expect(await store.readRevocation()).toEqual(revocation)
      expect(await numbers()).toEqual([])
      expect(await store.readReceived('main', 0, 10, 1e6)).toEqual([])
      await store.createIdentity({ ...identity, name: 'again' }, [entry(0, 40)])
      expect(await store.readRevocation()).toBeNull()
      expect(await store.readLog()).toEqual([entry(0, 40)])
      expect((await store.readReceiveState()).cursor.position).toBe(0)
    })

    it('another entry at a known place is a fork, a hole is damage, the same entry is fine', async () => {
      await store.createIdentity(identity, [entry(0)])
      await store.appendLog([entry(1), entry(2)])
      await store.appendLog([entry(2)])
      await expect(store.appendLog([entry(1, 77)])).rejects.toMatchObject({ code: 'log_fork' })
      await expect(store.appendLog([entry(4)])).rejects.toMatchObject({ code: 'state_damaged' })
      await store.saveEpochKeys([{ log_seq: 2, epoch_key: filled(32, 9) }])
      store = await under.reopen()
      expect(await store.readLog()).toEqual([entry(0), entry(1), { ...entry(2), epoch_key: filled(32, 9) }])
    })

    it('items that come sealed are stored in one go, unless one waits before them', async () => {
      const sealed = (n: number) => ({ device_seq: n, epoch: 0, event_hash: filled(32, n), record: filled(5, n) })
      expect(
        await store.enqueueSealed(
          [1, 2].map((n) => ({ ...item(n), sealed: sealed(n) })),
          0,
        ),
      ).toEqual([1, 2])
      expect(await store.enqueueSealed([{ ...item(3), sealed: sealed(3) }], 1)).toBeNull()
      expect(await store.enqueueSealed([{ ...item(3), sealed: sealed(3) }], 2)).toEqual([3])
      await store.enqueue([item(4)])
      expect(await store.enqueueSealed([{ ...item(5), sealed: sealed(4) }], 3)).toBeNull()
      store = await under.reopen()
      const stored = await store.readPending(0, 10, 1e6)
      expect(stored.map((one) => [one.item_no, one.sealed])).toEqual([...[1, 2, 3].map((n) => [n, sealed(n)]), [4, null]])
    })

    it('items are numbered in order, read in order and within limits, and survive', async () => {
      await store.enqueue([item(1), item(2), item(3, 100)])
      await store.enqueue([item(5)])
      expect(await numbers()).toEqual([1, 2, 3, 4])
      expect(await numbers(1, 2)).toEqual([2, 3])
      expect(await numbers(0, 100, 5)).toEqual([1])
      expect(await numbers(2, 100, 5)).toEqual([3])
      store = await under.reopen()
      expect(await store.readPending(0, 10, 1e6)).toEqual(
        [item(1), item(2), item(3, 100), item(5)].map((one, i) => ({ ...one, item_no: i + 1, sealed: null })),
      )
      expect(await store.countOutbox()).toEqual({ pending: 4, set_aside: 0, rejected: 0, last_item: 4, first_pending: 1 })
    })

    it('sealed forms are kept as they are, overwritten, and taken back from an item on', async () => {
      await store.enqueue([item(1), item(2), item(3)])
      await store.sealItems([1, 2, 3].map(sealedAs))
      store = await under.reopen()
      expect((await store.readPending(0, 10, 1e6)).map((one) => one.sealed)).toEqual([sealed(1), sealed(2), sealed(3)])
      await store.unsealItems(2)
      await store.sealItems([{ ...sealedAs(2), ...sealed(7) }])
      expect((await store.readPending(0, 10, 1e6)).map((one) => one.sealed)).toEqual([sealed(1), sealed(7), null])
    })

    it('acks, own numbers and heads move together; an acked item is pending no more', async () => {
      await store.enqueue([item(1), item(2), item(3)])
      await store.sealItems([1, 2].map(sealedAs))
      const head = { device_seq: 2, event_hash: filled(32, 2), epoch: 2, position: 20 }
      await store.ackItems([ackOf(1, 1), ackOf(2, 2)], 2, [{ key: `${uuid(1)}/even`, head }])
      await store.ackItems([], 1, [])
      store = await under.reopen()
      expect(await numbers()).toEqual([3])
      const state = await store.readReceiveState()
      expect(state.acked_device_seq).toBe(2)
      expect(state.heads.get(`${uuid(1)}/even`)).toEqual(head)
      expect(await store.readOutcomes([uuid(3), uuid(99), uuid(1)])).toEqual([
        { event_id: uuid(3), queued_id: uuid(3), state: 'pending' },
        { event_id: uuid(1), queued_id: uuid(1), state: 'acked', position: 10, stream_seq: 1, received_at: 7 },
      ])
      await store.ackItems([], 2, [{ key: `${uuid(1)}/even`, head: null }])
      expect((await store.readReceiveState()).heads.size).toBe(0)
    })

    it('an item that is set aside gives its number back, and stays whole: all behind it lose their sealed form with it', async () => {
      await store.enqueue([item(1), item(2), item(3)])
      await store.sealItems([1, 2, 3].map(sealedAs))
      await store.setAsideItems([{ item_no: 2, code: 'event_expired' }])
      store = await under.reopen()
      expect((await store.readPending(0, 10, 1e6)).map((one) => [one.item_no, one.sealed])).toEqual([
        [1, sealed(1)],
        [3, null],
      ])
      const ids = { event_id: uuid(2), queued_id: uuid(2) }
      expect(await store.readOutcomes([uuid(2)])).toEqual([{ ...ids, state: 'set_aside', code: 'event_expired' }])
      expect(await store.countOutbox()).toEqual({ pending: 2, set_aside: 1, rejected: 0, last_item: 3, first_pending: 1 })
      const row = { stream_id: 'even', type: 'app', ttl: null, bytes: 3, queued_at: 2, code: 'event_expired', sealed: false }
      expect(await store.readOutbox(1, 1)).toEqual([{ ...ids, ...row, item_no: 2 }])
    })

    it('what is set aside is queued anew as the last one, under another id, and is found under both', async () => {
      await store.enqueue([item(1), item(2), item(3)])
      await store.setAsideItems([1, 2].map((item_no) => ({ item_no, code: 'event_expired' })))
      const anew = [1, 3, 9].map((n) => ({ queued_id: uuid(n), event_id: uuid(100 + n) }))
      expect(await store.renewItems(anew, 77)).toEqual([uuid(1)])
      store = await under.reopen()
      expect(await store.readPending(0, 10, 1e6)).toEqual([
        { ...item(3), item_no: 3, sealed: null },
        { ...item(1), event_id: uuid(101), queued_at: 77, item_no: 4, sealed: null },
      ])
      expect(await store.countOutbox()).toEqual({ pending: 2, set_aside: 1, rejected: 0, last_item: 4, first_pending: 3 })
      const pending = { event_id: uuid(101), queued_id: uuid(1), state: 'pending' }
      expect(await store.readOutcomes([uuid(1), uuid(101)])).toEqual([pending, pending])
      await store.enqueue([item(6)])
      await store.ackItems([{ ...ackOf(1, 1), event_id: uuid(101) }], 1, [])
      expect(await numbers()).toEqual([3, 5])
      expect(await store.readOutcomes([uuid(1)])).toMatchObject([{ queued_id: uuid(1), state: 'acked' }])
    })

    it('what is set aside or was never sealed can be dropped, and its data is gone; what is sealed cannot', async () => {
      await store.enqueue([item(1), item(2), item(3)])
      await store.setAsideItems([{ item_no: 2, code: 'invalid_event' }])
      await store.sealItems([sealedAs(1)])
      expect(await store.dropItems([1, 2, 3, 9].map(uuid))).toEqual([uuid(2), uuid(3)])
      store = await under.reopen()
      expect(await numbers()).toEqual([1])
      expect(await store.countOutbox()).toEqual({ pending: 1, set_aside: 0, rejected: 2, last_item: 3, first_pending: 1 })
      expect(await store.readOutcomes([uuid(2)])).toMatchObject([{ state: 'rejected', code: 'aborted' }])
      expect(await store.renewItems([{ queued_id: uuid(2), event_id: uuid(102) }], 1)).toEqual([])
    })

    it('an item that another process dropped is not sealed, nor what was to be sealed with it', async () => {
      await store.enqueue([item(1), item(2)])
      await store.dropItems([uuid(2)])
      expect(await store.sealItems([1, 2].map(sealedAs))).toBe(false)
      expect((await store.readPending(0, 10, 1e6)).map((one) => one.sealed)).toEqual([null])
    })

    it('above the bound the oldest that are set aside go, as rejected with their code', async () => {
      const large = Math.ceil(ASIDE_KEPT.bytes / 4)
      for (const n of [1, 2, 3, 4, 5]) {
        await store.enqueue([item(n, large)])
        await store.setAsideItems([{ item_no: n, code: 'event_expired' }])
      }
      expect(await store.countOutbox()).toMatchObject({ set_aside: 4, rejected: 1 })
      expect(await store.readOutcomes([uuid(1)])).toMatchObject([{ state: 'rejected', code: 'event_expired' }])
    })

    it('a message is stored whole: rows, cursor, heads, own acks and alarms', async () => {
      await store.enqueue([item(1)])
      const head = { device_seq: 4, event_hash: filled(32, 4), epoch: 1, position: 2 }
      await store.commitReceived({
        ...commit([event(1), event(2), notice('main', 2)], 2),
        heads: [{ key: `${uuid(9)}/main`, head }],
        acks: [ackOf(1, 1), ackOf(50, 2)],
        acked_device_seq: 2,
        alarms: [{ position: 2, device_id: uuid(9), reason: 'invalid_signature', at: 3 }],
      })
      store = await under.reopen()
      const state = await store.readReceiveState()
      expect(state.cursor).toEqual({ position: 2, event_id: uuid(2), received_at: 5, history_id: 'h' })
      expect(state.heads.get(`${uuid(9)}/main`)).toEqual(head)
      expect(state.acked_device_seq).toBe(2)
      expect(await numbers()).toEqual([])
      expect(await store.readReceived('main', 0, 10, 1e6)).toEqual([
        { ...event(1), row_no: 1 },
        { ...event(2), row_no: 2 },
        { ...notice('main', 2), row_no: 3 },
      ])
      expect(await store.countAlarms()).toBe(1)
      expect(await store.readAlarms(5)).toEqual([{ position: 2, device_id: uuid(9), reason: 'invalid_signature', at: 3 }])
    })

    it('a reader sees its stream and the notices for all, within limits', async () => {
      await store.commitReceived(commit([event(1), event(2, 'other'), notice(null), event(3), event(4, 'main', 100)], 4))
      const rows = async (after: number, limit = 10, bytes = 1e6): Promise<number[]> =>
        (await store.readReceived('main', after, limit, bytes)).map((row) => row.row_no)
      expect(await rows(0)).toEqual([1, 3, 4, 5])
      expect(await rows(1, 2)).toEqual([3, 4])
      expect(await rows(4, 10, 1)).toEqual([5])
      expect(await rows(5)).toEqual([])
    })

    it('trimming drops the oldest rows and says up to where; row numbers are never used again', async () => {
      await store.commitReceived(commit([event(1), event(2), event(3), event(4)], 4))
      await store.trimReceived({ rows: 2, bytes: 1e9 })
      expect(await store.readReceivedEdges()).toEqual({ trimmed_row: 2, trimmed_position: 2, last_row: 4 })
      await store.trimReceived({ rows: 0, bytes: 0 })
      store = await under.reopen()
      expect(await store.readReceivedEdges()).toEqual({ trimmed_row: 4, trimmed_position: 4, last_row: 4 })
      await store.commitReceived(commit([event(5)], 5))
      expect((await store.readReceived('main', 0, 10, 1e6)).map((row) => row.row_no)).toEqual([5])
    })

    it('positions of what was trimmed begin anew behind a reset', async () => {
      await store.commitReceived(commit([event(7), notice(null), event(2), notice('main', 3), event(4)], 4))
      await store.trimReceived({ rows: 2, bytes: 1e9 })
      expect(await store.readReceivedEdges()).toEqual({ trimmed_row: 3, trimmed_position: 2, last_row: 5 })
    })

    it('a consumer that fills a hole moves forward at its row', async () => {
      await store.saveConsumer('tail', 'main', { done_row: 2, done_position: 90, handed_row: 5 })
      await store.saveConsumer('tail', 'main', { done_row: 2, done_position: 120, handed_row: 5 })
      await store.saveConsumer('tail', 'main', { done_row: 2, done_position: 110, handed_row: 5 })
      expect(await store.readConsumer('tail', 'main')).toEqual({ done_row: 2, done_position: 120, handed_row: 5 })
    })

    it('a consumer moves forward only, its position with its row', async () => {
      expect(await store.readConsumer('tail', 'main')).toBeNull()
      await store.saveConsumer('tail', 'main', { done_row: 2, done_position: 90, handed_row: 5 })
      await store.saveConsumer('tail', 'main', { done_row: 1, done_position: 95, handed_row: 3 })
      expect(await store.readConsumer('tail', 'main')).toEqual({ done_row: 2, done_position: 90, handed_row: 5 })
      await store.saveConsumer('tail', 'main', { done_row: 6, done_position: 4, handed_row: 6 })
      store = await under.reopen()
      expect(await store.readConsumer('tail', 'main')).toEqual({ done_row: 6, done_position: 4, handed_row: 6 })
      expect(await store.readConsumer('tail', 'other')).toBeNull()
    })

    it('notes are JSON values that survive', async () => {
      expect(await store.readNote('a')).toBeUndefined()
      await store.writeNote('a', { epoch: 3, list: [1, 'x'] })
      await store.writeNote('b', 7)
      await store.writeNote('b', 8)
      store = await under.reopen()
      expect(await store.readNote('a')).toEqual({ epoch: 3, list: [1, 'x'] })
      expect(await store.readNote('b')).toBe(8)
    })
  })
}
