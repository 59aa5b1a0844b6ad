/** Cursor, chains, received rows, consumers and alarms in SQLite (`DeviceStore`, third part). */
import { utf8, utf8Decode } from '@sealpost/protocol'
import { isReset } from '../notices.ts'
import type { ConsumerState, DeviceStore, ReceivedItem, ReceivedRow, StoredHead } from '../ports.ts'
import { blob, blobOrNull, integer, integerOrNull, text, textOrNull } from './column.ts'
import { raiseAcked, writeAcks, writeHeads } from './outbox-tables.ts'
import type { Row, StateDatabase } from './state-database.ts'

type Part = Pick<
  DeviceStore,
  | 'readReceiveState'
  | 'commitReceived'
  | 'readReceived'
  | 'readReceivedEdges'
  | 'trimReceived'
  | 'readConsumer'
  | 'saveConsumer'
  | 'readAlarms'
  | 'countAlarms'
>

/** Alarms kept; the count goes on with their numbers. */
const ALARMS_KEPT = 10_000
/** Rows removed in one transaction, so that a trim never holds up a write of another process for long. */
const TRIM_STEP = 2_000

const READ_RECEIVED = `
  select * from (select * from received where stream_id = ?1 and row_no > ?2 order by row_no limit ?3)
  union all
  select * from (select * from received where stream_id is null and row_no > ?2 order by row_no limit ?3)
  order by row_no limit ?3`

const READ_OLDEST = `
  select row_no, position, length(data) as bytes, case when event_id is null then data end as notice
  from received order by row_no limit ?`

export function createReceivedTables(db: StateDatabase): Part {
  return {
    readReceiveState: async () =>
      db.guard(() => {
        const row = db.get('select * from state') ?? {}
        const heads = new Map<string, StoredHead>()
        db.each('select * from head', [], (head) => {
          heads.set(text(head, 'chain'), {
            device_seq: integer(head, 'device_seq'),
            event_hash: blob(head, 'event_hash'),
            epoch: integer(head, 'epoch'),
            position: integer(head, 'position'),
          })
          return true
        })
        return {
          cursor: {
            position: integer(row, 'cursor_position'),
            event_id: textOrNull(row, 'cursor_event_id'),
            received_at: integerOrNull(row, 'cursor_received_at'),
            history_id: textOrNull(row, 'cursor_history_id'),
          },
          heads,
          acked_device_seq: integer(row, 'acked_device_seq'),
        }
      }),
    commitReceived: async (commit) =>
      db.transaction(() => {
        if (commit.items.length > 0) insertItems(db, commit.items)
        if (commit.cursor !== undefined) {
          const { position, event_id, received_at, history_id } = commit.cursor
          db.run(
            'update state set cursor_position = ?, cursor_event_id = ?, cursor_received_at = ?, cursor_history_id = ?',
            position,
            event_id,
            received_at,
            history_id,
          )
        }
        writeHeads(db, commit.heads)
        writeAcks(db, commit.acks)
        if (commit.acked_device_seq !== undefined) raiseAcked(db, commit.acked_device_seq)
        for (const alarm of commit.alarms)
          db.run(
            'insert into alarm (position, device_id, reason, at) values (?, ?, ?, ?)',
            alarm.position,
            alarm.device_id,
            alarm.reason,
            alarm.at,
          )
        if (commit.alarms.length > 0) db.run('delete from alarm where alarm_no <= (select max(alarm_no) from alarm) - ?', ALARMS_KEPT)
      }),
    readReceived: async (stream_id, after_row, limit, bytes) =>
      db.guard(() => {
        const rows: ReceivedRow[] = []
        let total = 0
        db.each(READ_RECEIVED, [stream_id, after_row, limit], (row) => {
          const data = blob(row, 'data')
          total += data.length
          if (rows.length > 0 && total > bytes) return false
          rows.push(toReceived(row))
          return total <= bytes
        })
        return rows
      }),
    readReceivedEdges: async () =>
      db.guard(() => {
        const row = db.get('select trimmed_row, trimmed_position, last_row from state')
        return {
          trimmed_row: integer(row, 'trimmed_row'),
          trimmed_position: integer(row, 'trimmed_position'),
          last_row: integer(row, 'last_row'),
        }
      }),
    trimReceived: async (bounds) => {
      while (trimStep(db, bounds.rows, bounds.bytes));
    },
    readConsumer: async (consumer, stream_id) => {
      const row = db.guard(() => db.get('select * from consumer where consumer = ? and stream_id = ?', consumer, stream_id))
      if (row === undefined) return null
      return { done_row: integer(row, 'done_row'), done_position: integer(row, 'done_position'), handed_row: integer(row, 'handed_row') }
    },
    saveConsumer: async (consumer, stream_id, state: ConsumerState) =>
      db.runRelaxed(
        `insert into consumer (consumer, stream_id, done_row, done_position, handed_row) values (?, ?, ?, ?, ?)
         on conflict do update set
           done_position = case when excluded.done_row > done_row then excluded.done_position
             when excluded.done_row = done_row then max(done_position, excluded.done_position) else done_position end,
           done_row = max(done_row, excluded.done_row), handed_row = max(handed_row, excluded.handed_row)`,
        consumer,
        stream_id,
        state.done_row,
        state.done_position,
        state.handed_row,
      ),
    readAlarms: async (limit) =>
      db.guard(() =>
        db.all('select position, device_id, reason, at from alarm order by alarm_no desc limit ?', limit).map((row) => ({
          position: integer(row, 'position'),
          device_id: text(row, 'device_id'),
          reason: text(row, 'reason'),
          at: integer(row, 'at'),
        })),
      ),
    countAlarms: async () => db.guard(() => integer(db.get('select coalesce(max(alarm_no), 0) as n from alarm'), 'n')),
  }
}

function insertItems(db: StateDatabase, items: readonly ReceivedItem[]): void {
  const first = integer(db.get('select last_row from state'), 'last_row') + 1
  let bytes = 0
  for (const [i, item] of items.entries()) {
    const event = item.is === 'event' ? item : null
    const data = item.is === 'event' ? item.data : utf8(item.notice)
    bytes += data.length
    db.run(
      `insert into received (row_no, position, stream_id, stream_seq, event_id, type, device_id, received_at, ttl, data)
       values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      first + i,
      item.position,
      item.stream_id,
      event?.stream_seq ?? null,
      event?.event_id ?? null,
      event?.type ?? null,
      event?.device_id ?? null,
      event?.received_at ?? null,
      event?.ttl ?? null,
      data,
    )
  }
  db.run(
    'update state set last_row = last_row + ?, received_rows = received_rows + ?, received_bytes = received_bytes + ?',
    items.length,
    items.length,
    bytes,
  )
}

/** Removes at most `TRIM_STEP` of the oldest rows; true when more has to go. */
function trimStep(db: StateDatabase, rowsMax: number, bytesMax: number): boolean {
  return db.transaction(() => {
    const state = db.get('select received_rows, received_bytes, trimmed_row, trimmed_position from state')
    let rows = integer(state, 'received_rows')
    let bytes = integer(state, 'received_bytes')
    if (rows <= rowsMax && bytes <= bytesMax) return false
    let row_no = integer(state, 'trimmed_row')
    let position = integer(state, 'trimmed_position')
    let step = 0
    db.each(READ_OLDEST, [TRIM_STEP], (row) => {
      if (rows <= rowsMax && bytes <= bytesMax) return false
      rows -= 1
      bytes -= integer(row, 'bytes')
      row_no = integer(row, 'row_no')
      const notice = blobOrNull(row, 'notice')
      position = notice !== null && isReset(utf8Decode(notice)) ? 0 : Math.max(position, integer(row, 'position'))
      step += 1
      return true
    })
    db.run('delete from received where row_no <= ?', row_no)
    db.run('update state set received_rows = ?, received_bytes = ?, trimmed_row = ?, trimmed_position = ?', rows, bytes, row_no, position)
    return step > 0 && (rows > rowsMax || bytes > bytesMax)
  })
}

function toReceived(row: Row): ReceivedRow {
  const row_no = integer(row, 'row_no')
  const position = integer(row, 'position')
  const event_id = textOrNull(row, 'event_id')
  if (event_id === null)
    return { is: 'notice', row_no, position, stream_id: textOrNull(row, 'stream_id'), notice: utf8Decode(blob(row, 'data')) }
  return {
    is: 'event',
    row_no,
    position,
    stream_id: text(row, 'stream_id'),
    stream_seq: integer(row, 'stream_seq'),
    event_id,
    type: text(row, 'type'),
    device_id: text(row, 'device_id'),
    received_at: integer(row, 'received_at'),
    ttl: integerOrNull(row, 'ttl'),
    data: blob(row, 'data'),
  }
}
