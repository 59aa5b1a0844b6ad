/**
 * The outbox in SQLite (`DeviceStore`, second part). A decided item stays as its outcome alone; of those at least the
 * latest 100,000 are kept. What is set aside stays whole, up to `ASIDE_KEPT`.
 */
import { SealpostError } from '@sealpost/protocol'
import {
  ASIDE_KEPT,
  type DeviceStore,
  type HeadChange,
  type ItemAck,
  type NewItem,
  type OutboxRow,
  type OutcomeRow,
  type PendingItem,
  type Sealed,
} from '../ports.ts'
import { blob, blobOrNull, integer, integerOrNull, text, textOrNull } from './column.ts'
import type { Row, StateDatabase } from './state-database.ts'
import { ITEM } from './state-schema.ts'

type Part = Pick<
  DeviceStore,
  | 'enqueue'
  | 'enqueueSealed'
  | 'readPending'
  | 'sealItems'
  | 'unsealItems'
  | 'ackItems'
  | 'setAsideItems'
  | 'renewItems'
  | 'dropItems'
  | 'readOutbox'
  | 'readOutcomes'
  | 'countOutbox'
>

const OUTCOMES_KEPT = 100_000
/** Outcomes above that are removed in steps of this size, so that no ack waits for a long removal. */
const OUTCOMES_STEP = 2_000

/** What `enqueue` returned for it. */
const QUEUED_ID = 'coalesce(queued_id, event_id)'
/** Rows without their blobs; by the index of one state. */
const rowsOf = (state: number): string =>
  `select item_no, event_id, ${QUEUED_ID} as queued_id, stream_id, type, ttl, length(data) as bytes, queued_at, code, record is not null as sealed
     from outbox where state = ${state} and item_no > ? order by item_no limit ?`
const UNSEALED = 'device_seq = null, epoch = null, event_hash = null, record = null'

export function createOutboxTables(db: StateDatabase): Part {
  return {
    enqueue: async (items) =>
      db.transaction(() => {
        for (const item of items) insertItem(db, item, null)
      }),
    enqueueSealed: async (items, after_item) =>
      db.transaction(() => {
        if (db.get('select 1 from outbox where state = 0 and item_no > ? limit 1', after_item) !== undefined) return null
        return items.map((item) => insertItem(db, item, item.sealed))
      }),
    readPending: async (after_item, limit, bytes) =>
      db.guard(() => {
        const items: PendingItem[] = []
        let total = 0
        db.each('select * from outbox where state = 0 and item_no > ? order by item_no limit ?', [after_item, limit], (row) => {
          const item = toPending(row)
          total += item.data.length
          if (items.length > 0 && total > bytes) return false
          items.push(item)
          return total <= bytes
        })
        return items
      }),
    sealItems: async (rows) =>
      db.transaction(() => {
        for (const { item_no } of rows)
          if (db.get('select 1 from outbox where item_no = ? and state = 0', item_no) === undefined) return false
        for (const row of rows)
          db.run(
            `update outbox set device_seq = ?, epoch = ?, event_hash = ?, record = ?, event_id = ?,
                    queued_id = case when event_id = ? then queued_id else ${QUEUED_ID} end where item_no = ?`,
            row.device_seq,
            row.epoch,
            row.event_hash,
            row.record,
            row.event_id,
            row.event_id,
            row.item_no,
          )
        return true
      }),
    unsealItems: async (from_item) =>
      db.transaction(() => {
        db.run(`update outbox set ${UNSEALED} where state = 0 and item_no >= ?`, from_item)
      }),
    ackItems: async (acks, acked_device_seq, heads) =>
      db.transaction(() => {
        writeAcks(db, acks)
        writeHeads(db, heads)
        raiseAcked(db, acked_device_seq)
        dropOldOutcomes(db)
      }),
    setAsideItems: async (rows) =>
      db.transaction(() => {
        for (const { item_no, code } of rows) {
          const row = db.get('select length(data) as bytes from outbox where item_no = ? and state = 0', item_no)
          if (row === undefined) continue
          db.run(`update outbox set state = ?, code = ?, ${UNSEALED} where item_no = ?`, ITEM.set_aside, code, item_no)
          countAside(db, 1, integer(row, 'bytes'))
        }
        const first = Math.min(...rows.map(({ item_no }) => item_no))
        if (rows.length > 0) db.run(`update outbox set ${UNSEALED} where state = 0 and item_no > ?`, first)
        boundAside(db)
        dropOldOutcomes(db)
      }),
    renewItems: async (rows, queued_at) =>
      db.transaction(() => {
        const renewed: string[] = []
        for (const { queued_id, event_id } of rows) {
          const row = db.get(
            `select item_no, length(data) as bytes from outbox where (event_id = ? or queued_id = ?) and state = ?`,
            queued_id,
            queued_id,
            ITEM.set_aside,
          )
          if (row === undefined) continue
          const item_no = integer(row, 'item_no')
          // the two ids are unique: the row goes to the end of the queue by a number of its own
          const last = integer(db.get("select seq from sqlite_sequence where name = 'outbox'"), 'seq') + 1
          db.run(
            `update outbox set item_no = ?, state = ?, code = null, event_id = ?, queued_id = ${QUEUED_ID}, queued_at = ? where item_no = ?`,
            last,
            ITEM.pending,
            event_id,
            queued_at,
            item_no,
          )
          db.run("update sqlite_sequence set seq = ? where name = 'outbox'", last)
          countAside(db, -1, -integer(row, 'bytes'))
          renewed.push(queued_id)
        }
        return renewed
      }),
    dropItems: async (queued_ids) =>
      db.transaction(() => {
        const dropped: string[] = []
        for (const queued_id of queued_ids) {
          const row = db.get(
            `select item_no, state, length(data) as bytes from outbox
              where (event_id = ? or queued_id = ?) and (state = ? or (state = ? and record is null))`,
            queued_id,
            queued_id,
            ITEM.set_aside,
            ITEM.pending,
          )
          if (row === undefined) continue
          if (integer(row, 'state') === ITEM.set_aside) countAside(db, -1, -integer(row, 'bytes'))
          rejectItem(db, integer(row, 'item_no'), 'aborted')
          dropped.push(queued_id)
        }
        dropOldOutcomes(db)
        return dropped
      }),
    readOutbox: async (after_item, limit) =>
      db.guard(() =>
        db
          .all(
            `select * from (${rowsOf(ITEM.pending)}) union all select * from (${rowsOf(ITEM.set_aside)}) order by item_no limit ?`,
            after_item,
            limit,
            after_item,
            limit,
            limit,
          )
          .map(toOutboxRow),
      ),
    readOutcomes: async (ids) =>
      db.guard(() => {
        const outcomes: OutcomeRow[] = []
        for (const id of ids) {
          const row = db.get(
            `select event_id, ${QUEUED_ID} as queued_id, state, position, stream_seq, received_at, code from outbox
              where event_id = ? or queued_id = ?`,
            id,
            id,
          )
          if (row !== undefined) outcomes.push(toOutcome(row))
        }
        return outcomes
      }),
    countOutbox: async () =>
      db.guard(() => {
        const row = db.get(
          `select (select count(*) from outbox where state = 0) as pending, (select count(*) from outbox where state = 2) as rejected,
                  (select aside_items from state) as set_aside,
                  coalesce((select seq from sqlite_sequence where name = 'outbox'), 0) as last_item,
                  (select min(item_no) from outbox where state = 0) as first_pending`,
        )
        return {
          pending: integer(row, 'pending'),
          set_aside: integer(row, 'set_aside'),
          rejected: integer(row, 'rejected'),
          last_item: integer(row, 'last_item'),
          first_pending: row === undefined ? null : integerOrNull(row, 'first_pending'),
        }
      }),
  }
}

/** Items become `acked`; ids that are unknown or acked already are ignored. */
export function writeAcks(db: StateDatabase, acks: readonly ItemAck[]): void {
  let pending = 0
  for (const ack of acks) {
    const { changes } = db.run(
      `update outbox set state = 1, position = ?, stream_seq = ?, received_at = ?, code = null, data = null, ${UNSEALED} where event_id = ? and state = 0`,
      ack.position,
      ack.stream_seq,
      ack.received_at,
      ack.event_id,
    )
    pending += changes
  }
  if (pending > 0) db.run('update state set decided_items = decided_items + ?', pending)
}

export function writeHeads(db: StateDatabase, heads: readonly HeadChange[]): void {
  for (const { key, head } of heads)
    if (head === null) db.run('delete from head where chain = ?', key)
    else
      db.run(
        `insert into head (chain, device_seq, event_hash, epoch, position) values (?, ?, ?, ?, ?)
         on conflict do update set device_seq = excluded.device_seq, event_hash = excluded.event_hash, epoch = excluded.epoch, position = excluded.position`,
        key,
        head.device_seq,
        head.event_hash,
        head.epoch,
        head.position,
      )
}

export function raiseAcked(db: StateDatabase, acked_device_seq: number): void {
  db.run('update state set acked_device_seq = max(acked_device_seq, ?)', acked_device_seq)
}

/** Returns its `item_no`. */
function insertItem(db: StateDatabase, item: NewItem, sealed: Sealed | null): number {
  const row = db.get(
    `insert into outbox (event_id, stream_id, type, ttl, queued_at, data, device_seq, epoch, event_hash, record)
     values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) returning item_no`,
    item.event_id,
    item.stream_id,
    item.type,
    item.ttl,
    item.queued_at,
    item.data,
    sealed?.device_seq ?? null,
    sealed?.epoch ?? null,
    sealed?.event_hash ?? null,
    sealed?.record ?? null,
  )
  return integer(row, 'item_no')
}

/** The outcome alone stays. */
function rejectItem(db: StateDatabase, item_no: number, code: string): void {
  db.run(`update outbox set state = ?, code = ?, data = null, ${UNSEALED} where item_no = ?`, ITEM.rejected, code, item_no)
  db.run('update state set decided_items = decided_items + 1')
}

function countAside(db: StateDatabase, items: number, bytes: number): void {
  db.run('update state set aside_items = aside_items + ?, aside_bytes = aside_bytes + ?', items, bytes)
}

function boundAside(db: StateDatabase): void {
  for (;;) {
    const kept = db.get('select aside_items, aside_bytes from state')
    if (integer(kept, 'aside_items') <= ASIDE_KEPT.items && integer(kept, 'aside_bytes') <= ASIDE_KEPT.bytes) return
    const row = db.get('select item_no, code, length(data) as bytes from outbox where state = 3 order by item_no limit 1')
    if (row === undefined) return
    rejectItem(db, integer(row, 'item_no'), text(row, 'code'))
    countAside(db, -1, -integer(row, 'bytes'))
  }
}

function dropOldOutcomes(db: StateDatabase): void {
  const decided = integer(db.get('select decided_items from state'), 'decided_items')
  if (decided < OUTCOMES_KEPT + OUTCOMES_STEP) return
  // Items are decided in the order of sending, so the lowest numbers are the oldest outcomes.
  const { changes } = db.run(
    'delete from outbox where item_no in (select item_no from outbox where state in (1, 2) order by item_no limit ?)',
    decided - OUTCOMES_KEPT,
  )
  db.run('update state set decided_items = decided_items - ?', changes)
}

function toPending(row: Row): PendingItem {
  const record = blobOrNull(row, 'record')
  return {
    item_no: integer(row, 'item_no'),
    event_id: text(row, 'event_id'),
    stream_id: text(row, 'stream_id'),
    type: text(row, 'type'),
    ttl: integerOrNull(row, 'ttl'),
    queued_at: integer(row, 'queued_at'),
    data: blob(row, 'data'),
    sealed:
      record === null
        ? null
        : { device_seq: integer(row, 'device_seq'), epoch: integer(row, 'epoch'), event_hash: blob(row, 'event_hash'), record },
  }
}

function toOutboxRow(row: Row): OutboxRow {
  return {
    item_no: integer(row, 'item_no'),
    event_id: text(row, 'event_id'),
    queued_id: text(row, 'queued_id'),
    stream_id: text(row, 'stream_id'),
    type: text(row, 'type'),
    ttl: integerOrNull(row, 'ttl'),
    bytes: integer(row, 'bytes'),
    queued_at: integer(row, 'queued_at'),
    code: textOrNull(row, 'code'),
    sealed: integer(row, 'sealed') === 1,
  }
}

function toOutcome(row: Row): OutcomeRow {
  const ids = { event_id: text(row, 'event_id'), queued_id: text(row, 'queued_id') }
  switch (integer(row, 'state')) {
    case ITEM.pending:
      return { ...ids, state: 'pending' }
    case ITEM.acked:
      return {
        ...ids,
        state: 'acked',
        position: integer(row, 'position'),
        stream_seq: integer(row, 'stream_seq'),
        received_at: integer(row, 'received_at'),
      }
    case ITEM.rejected:
      return { ...ids, state: 'rejected', code: text(row, 'code') }
    case ITEM.set_aside:
      return { ...ids, state: 'set_aside', code: text(row, 'code') }
    default:
      throw new SealpostError('state_damaged', 'an outbox item has an unknown state')
  }
}
