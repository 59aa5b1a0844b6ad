/** A device store in memory, for tests of the engine: the same promises as a durable one, less the disk. */
import { equalBytes, SealpostError } from '@sealpost/protocol'
import { isReset } from '../../../client/src/notices.ts'
import {
  ASIDE_KEPT,
  type AlarmRow,
  type ConsumerState,
  type DeviceStore,
  type Identity,
  type LogRow,
  type NewItem,
  type OutcomeRow,
  type PendingItem,
  type ReceivedEdges,
  type ReceivedRow,
  type ReceiveState,
  type Revocation,
  type Sealed,
  type StoredCursor,
  type StoredHead,
} from '../../../client/src/ports.ts'

type Decided = Pick<OutcomeRow, 'state'> &
  Partial<Omit<Extract<OutcomeRow, { state: 'acked' }> & { code: string }, 'state' | 'event_id' | 'queued_id'>>
type Item = NewItem & { item_no: number; queued_id: string; sealed: Sealed | null; outcome: Decided }

/** What the transactions of a store left behind; `transactions` counts the writing ones. */
export type MemoryStore = DeviceStore & { transactions(): number }

const NO_CURSOR: StoredCursor = { position: 0, event_id: null, received_at: null, history_id: null }

export function createMemoryStore(): MemoryStore {
  let identity: Identity | null = null
  let revocation: Revocation | null = null
  let log: LogRow[] = []
  let items: Item[] = []
  let last_item = 0
  let cursor = NO_CURSOR
  let heads = new Map<string, StoredHead>()
  let acked_device_seq = 0
  let rows: ReceivedRow[] = []
  let edges: ReceivedEdges = { trimmed_row: 0, trimmed_position: 0, last_row: 0 }
  let consumers = new Map<string, ConsumerState>()
  let alarms: AlarmRow[] = []
  const notes = new Map<string, unknown>()
  let writes = 0

  function clear(): void {
    log = []
    items = []
    cursor = NO_CURSOR
    heads = new Map()
    acked_device_seq = 0
    rows = []
    edges = { ...edges, trimmed_row: edges.last_row, trimmed_position: 0 }
    consumers = new Map()
    alarms = []
    notes.clear()
  }

  /** Every method waits a turn, so that nothing relies on an answer at once. */
  async function read<T>(call: () => T): Promise<T> {
    await Promise.resolve()
    return call()
  }

  async function write<T>(call: () => T): Promise<T> {
    await Promise.resolve()
    writes++
    return call()
  }

  function append(added: readonly LogRow[]): void {
    for (const row of added) {
      const known = log[row.log_seq]
      if (known !== undefined) {
        if (!equalBytes(known.entry_hash, row.entry_hash)) throw new SealpostError('log_fork', 'another entry at a known place')
      } else if (row.log_seq !== log.length) throw new SealpostError('state_damaged', 'a hole in the device log')
      else log.push({ ...row })
    }
  }

  const pending = (): Item[] => items.filter((item) => item.outcome.state === 'pending')

  const aside = (): Item[] => items.filter((item) => item.outcome.state === 'set_aside')
  const find = (id: string): Item | undefined => items.find((item) => item.event_id === id || item.queued_id === id)

  function reject(item: Item | undefined, code = ''): void {
    if (item !== undefined) Object.assign(item, { outcome: { state: 'rejected', code }, data: new Uint8Array(0) })
  }

  function ack(acks: Parameters<DeviceStore['ackItems']>[0], upto: number, moved: Parameters<DeviceStore['ackItems']>[2]): void {
    for (const { event_id, position, stream_seq, received_at } of acks) {
      const item = items.find((one) => one.event_id === event_id && one.outcome.state === 'pending')
      if (item === undefined) continue
      item.outcome = { state: 'acked', position, stream_seq, received_at }
      item.sealed = null
      item.data = new Uint8Array(0)
    }
    acked_device_seq = Math.max(acked_device_seq, upto)
    for (const { key, head } of moved) {
      if (head === null) heads.delete(key)
      else heads.set(key, head)
    }
  }

  return {
    transactions: () => writes,
    readIdentity: () => read(() => (identity === null ? null : { ...identity })),
    createIdentity: (created, entries) =>
      write(() => {
        if (identity !== null) throw new SealpostError('already_paired', 'a device lives here')
        clear()
        revocation = null
        append(entries)
        identity = { ...created, sign_seed: created.sign_seed.slice(), kem_seed: created.kem_seed.slice() }
      }),
    updateIdentity: (change) =>
      write(() => {
        if (identity !== null) identity = { ...identity, ...change }
      }),
    wipe: (by) =>
      write(() => {
        clear()
        identity = null
        revocation = by
      }),
    readRevocation: () => read(() => revocation),
    readLog: () => read(() => log.map((row) => ({ ...row }))),
    appendLog: (added) => write(() => append(added)),
    saveEpochKeys: (keys) =>
      write(() => {
        for (const { log_seq, epoch_key } of keys) {
          const row = log[log_seq]
          if (row !== undefined) row.epoch_key = epoch_key
        }
      }),
    enqueue: (added) =>
      write(() => {
        for (const item of added)
          items.push({ ...item, item_no: ++last_item, queued_id: item.event_id, sealed: null, outcome: { state: 'pending' } })
      }),
    enqueueSealed: (added, after_item) =>
      write(() => {
        if (pending().some((item) => item.item_no > after_item)) return null
        return added.map((item) => {
          items.push({ ...item, item_no: ++last_item, queued_id: item.event_id, outcome: { state: 'pending' } })
          return last_item
        })
      }),
    readPending: (after_item, limit, bytes) =>
      read(() => {
        const open = pending().filter((item) => item.item_no > after_item)
        return within(open, limit, bytes, (item) => item.data.length).map(toPending)
      }),
    sealItems: (sealed) =>
      write(() => {
        const found = sealed.map(({ item_no }) => pending().find((one) => one.item_no === item_no))
        if (found.includes(undefined)) return false
        for (const [i, { item_no: _, event_id, ...form }] of sealed.entries()) Object.assign(found[i] ?? {}, { event_id, sealed: form })
        return true
      }),
    unsealItems: (from_item) =>
      write(() => {
        for (const item of pending()) if (item.item_no >= from_item) item.sealed = null
      }),
    ackItems: (acks, upto, moved) => write(() => ack(acks, upto, moved)),
    setAsideItems: (rows) =>
      write(() => {
        const codes = new Map(rows.map(({ item_no, code }) => [item_no, code]))
        const first = Math.min(...codes.keys())
        for (const item of pending()) {
          if (item.item_no < first) continue
          item.sealed = null
          const code = codes.get(item.item_no)
          if (code !== undefined) item.outcome = { state: 'set_aside', code }
        }
        const bytes = (): number => aside().reduce((sum, item) => sum + item.data.length, 0)
        while (aside().length > ASIDE_KEPT.items || bytes() > ASIDE_KEPT.bytes) reject(aside()[0], aside()[0]?.outcome.code)
      }),
    renewItems: (rows, queued_at) =>
      write(() =>
        rows.flatMap(({ queued_id, event_id }) => {
          const item = find(queued_id)
          if (item?.outcome.state !== 'set_aside') return []
          items = items.filter((one) => one !== item)
          items.push({ ...item, item_no: ++last_item, event_id, queued_at, outcome: { state: 'pending' } })
          return [queued_id]
        }),
      ),
    dropItems: (queued_ids) =>
      write(() =>
        queued_ids.filter((queued_id) => {
          const item = find(queued_id)
          const isFree = item?.outcome.state === 'set_aside' || (item?.outcome.state === 'pending' && item.sealed === null)
          if (isFree) reject(item, 'aborted')
          return isFree
        }),
      ),
    readOutbox: (after_item, limit) =>
      read(() =>
        items
          .filter(({ item_no, outcome }) => item_no > after_item && (outcome.state === 'pending' || outcome.state === 'set_aside'))
          .slice(0, limit)
          .map(({ data, sealed, outcome, ...item }) => ({
            ...item,
            bytes: data.length,
            code: outcome.code ?? null,
            sealed: sealed !== null,
          })),
      ),
    readOutcomes: (ids) =>
      read(() =>
        ids.flatMap((id) => {
          const item = find(id)
          return item === undefined ? [] : [{ event_id: item.event_id, queued_id: item.queued_id, ...item.outcome } as OutcomeRow]
        }),
      ),
    countOutbox: () =>
      read(() => ({
        pending: pending().length,
        set_aside: aside().length,
        rejected: items.filter((item) => item.outcome.state === 'rejected').length,
        last_item,
        first_pending: pending()[0]?.item_no ?? null,
      })),
    readReceiveState: () => read((): ReceiveState => ({ cursor, heads: new Map(heads), acked_device_seq })),
    commitReceived: (commit) =>
      write(() => {
        for (const item of commit.items) {
          edges = { ...edges, last_row: edges.last_row + 1 }
          rows.push({ ...item, row_no: edges.last_row })
        }
        if (commit.cursor !== undefined) cursor = commit.cursor
        ack(commit.acks, commit.acked_device_seq ?? 0, commit.heads)
        alarms.push(...commit.alarms)
      }),
    readReceived: (stream_id, after_row, limit, bytes) =>
      read(() => {
        const found = rows.filter((row) => row.row_no > after_row && (row.stream_id === stream_id || row.stream_id === null))
        return within(found, limit, bytes, (row) => (row.is === 'event' ? row.data.length : row.notice.length))
      }),
    readReceivedEdges: () => read(() => edges),
    trimReceived: (bounds) =>
      write(() => {
        let size = rows.reduce((sum, row) => sum + (row.is === 'event' ? row.data.length : row.notice.length), 0)
        while (rows.length > bounds.rows || size > bounds.bytes) {
          const row = rows.shift()
          if (row === undefined) return
          size -= row.is === 'event' ? row.data.length : row.notice.length
          const trimmed_position = row.is === 'notice' && isReset(row.notice) ? 0 : Math.max(edges.trimmed_position, row.position)
          edges = { ...edges, trimmed_row: row.row_no, trimmed_position }
        }
      }),
    readConsumer: (consumer, stream_id) => read(() => consumers.get(`${consumer}/${stream_id}`) ?? null),
    saveConsumer: (consumer, stream_id, state) =>
      write(() => {
        const key = `${consumer}/${stream_id}`
        const before = consumers.get(key) ?? { done_row: 0, done_position: 0, handed_row: 0 }
        const done = state.done_row > before.done_row ? state : before
        consumers.set(key, {
          done_row: done.done_row,
          done_position: state.done_row === before.done_row ? Math.max(state.done_position, before.done_position) : done.done_position,
          handed_row: Math.max(before.handed_row, state.handed_row),
        })
      }),
    readAlarms: (limit) => read(() => alarms.slice(-limit)),
    countAlarms: () => read(() => alarms.length),
    readNote: (key) => read(() => notes.get(key)),
    writeNote: (key, value) =>
      write(() => {
        notes.set(key, structuredClone(value))
      }),
    close: () => Promise.resolve(),
  }
}

function toPending({ event_id, stream_id, type, ttl, data, queued_at, item_no, sealed }: Item): PendingItem {
  return { event_id, stream_id, type, ttl, data, queued_at, item_no, sealed }
}

/** The first ones up to `limit` and `bytes`; at least one when there is one. */
function within<T>(list: readonly T[], limit: number, bytes: number, size: (one: T) => number): T[] {
  const out: T[] = []
  let total = 0
  for (const one of list) {
    if (out.length >= limit || (out.length > 0 && total + size(one) > bytes)) break
    total += size(one)
    out.push(one)
  }
  return out
}
