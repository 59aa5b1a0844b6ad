/**
 * The outbox in SQLite (`DeviceStore`, second part). A decided item stays as its outcome alone; of those at least the
 * latest 100,000 are kept.
 */
import { SealpostError } from '@sealpost/protocol'
import type { DeviceStore, HeadChange, ItemAck, NewItem, OutcomeRow, PendingItem, Sealed } from '../ports.ts'
import { blob, blobOrNull, integer, integerOrNull, text } from './column.ts'
import type { Row, StateDatabase } from './state-database.ts'
import { ITEM } from './state-schema.ts'

type Part = Pick<
  DeviceStore,
  'enqueue' | 'enqueueSealed' | 'readPending' | 'sealItems' | 'unsealItems' | 'ackItems' | 'rejectItem' | 'readOutcomes' | 'countOutbox'
>

const OUTCOMES_KEPT = 100_000
/** Outcomes above that are removed in steps of this size, so that no ack waits for a long removal. */
const OUTCOMES_STEP = 2_000

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
        for (const row of rows)
          db.run(
            'update outbox set device_seq = ?, epoch = ?, event_hash = ?, record = ? where item_no = ? and state = 0',
            row.device_seq,
            row.epoch,
            row.event_hash,
            row.record,
            row.item_no,
          )
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
    rejectItem: async (item_no, code) =>
      db.transaction(() => {
        const { changes } = db.run(
          `update outbox set state = ?, code = ?, data = null, ${UNSEALED} where item_no = ? and state = 0`,
          ITEM.rejected,
          code,
          item_no,
        )
        db.run('update state set decided_items = decided_items + ?', changes)
        db.run(`update outbox set ${UNSEALED} where state = 0 and item_no > ?`, item_no)
        dropOldOutcomes(db)
      }),
    readOutcomes: async (event_ids) =>
      db.guard(() => {
        const outcomes: OutcomeRow[] = []
        for (const event_id of event_ids) {
          const row = db.get('select event_id, state, position, stream_seq, received_at, code from outbox where event_id = ?', event_id)
          if (row !== undefined) outcomes.push(toOutcome(row))
        }
        return outcomes
      }),
    countOutbox: async () =>
      db.guard(() => {
        const row = db.get(
          `select (select count(*) from outbox where state = 0) as pending, (select count(*) from outbox where state = 2) as rejected,
                  coalesce((select seq from sqlite_sequence where name = 'outbox'), 0) as last_item,
                  (select min(item_no) from outbox where state = 0) as first_pending`,
        )
        return {
          pending: integer(row, 'pending'),
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

function dropOldOutcomes(db: StateDatabase): void {
  const decided = integer(db.get('select decided_items from state'), 'decided_items')
  if (decided < OUTCOMES_KEPT + OUTCOMES_STEP) return
  // Items are decided in the order of sending, so the lowest numbers are the oldest outcomes.
  const { changes } = db.run(
    'delete from outbox where item_no in (select item_no from outbox where state <> 0 order by item_no limit ?)',
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

function toOutcome(row: Row): OutcomeRow {
  const event_id = text(row, 'event_id')
  switch (integer(row, 'state')) {
    case ITEM.pending:
      return { event_id, state: 'pending' }
    case ITEM.acked:
      return {
        event_id,
        state: 'acked',
        position: integer(row, 'position'),
        stream_seq: integer(row, 'stream_seq'),
        received_at: integer(row, 'received_at'),
      }
    case ITEM.rejected:
      return { event_id, state: 'rejected', code: text(row, 'code') }
    default:
      throw new SealpostError('state_damaged', 'an outbox item has an unknown state')
  }
}
