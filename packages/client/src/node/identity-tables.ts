/** Identity, revocation, device log and notes in SQLite (`DeviceStore`, first part). */
import { type Bytes, equalBytes, SealpostError } from '@sealpost/protocol'
import type { DeviceStore, Identity, LogRow, Revocation } from '../ports.ts'
import { blob, blobOrNull, integer, text } from './column.ts'
import { damaged, type Row, type StateDatabase } from './state-database.ts'
import { ITEM } from './state-schema.ts'

type Part = Pick<
  DeviceStore,
  | 'readIdentity'
  | 'createIdentity'
  | 'updateIdentity'
  | 'wipe'
  | 'readRevocation'
  | 'readLog'
  | 'appendLog'
  | 'saveEpochKeys'
  | 'readNote'
  | 'writeNote'
>

/** Of a note's JSON text. */
const NOTE_BYTES_MAX = 65_536

export function createIdentityTables(db: StateDatabase, path: string): Part {
  const readIdentity = (): Identity | null => {
    const row = db.get('select * from identity')
    return row === undefined ? null : toIdentity(row)
  }

  const appendLog = (rows: readonly LogRow[]): void => {
    let high = integer(db.get('select log_high from state'), 'log_high')
    for (const row of rows) {
      const known = db.get('select entry_hash from log where log_seq = ?', row.log_seq)
      if (known !== undefined) {
        if (!equalBytes(blob(known, 'entry_hash'), row.entry_hash))
          throw new SealpostError('log_fork', `the server showed another entry ${row.log_seq} of the device log than before`)
        continue
      }
      if (row.log_seq !== high + 1) throw damaged(path, `entry ${high + 1} of the device log is missing`)
      db.run(
        'insert into log (log_seq, entry_hash, body, sig, box, epoch_key, first_seen) values (?, ?, ?, ?, ?, ?, ?)',
        row.log_seq,
        row.entry_hash,
        row.body,
        row.sig,
        row.box,
        row.epoch_key,
        row.first_seen,
      )
      high = row.log_seq
    }
    db.run('update state set log_high = ?', high)
  }

  return {
    readIdentity: async () => db.guard(readIdentity),
    createIdentity: async (identity, entries) =>
      db.transaction(() => {
        if (readIdentity() !== null) throw new SealpostError('already_paired', 'this home holds a device already')
        for (const table of ['revocation', 'log', 'outbox', 'head', 'received', 'consumer', 'alarm', 'note', 'state'])
          db.run(`delete from ${table}`)
        db.run('insert into state (one) values (1)')
        db.run(
          `insert into identity (one, user_id, device_id, name, device_type, server_url, server_key, sign_seed, kem_seed, created_at)
           values (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
          identity.user_id,
          identity.device_id,
          identity.name,
          identity.device_type,
          identity.server_url,
          identity.server_key,
          identity.sign_seed,
          identity.kem_seed,
          identity.created_at,
        )
        appendLog(entries)
      }),
    updateIdentity: async (change) =>
      db.transaction(() => {
        const { changes } = db.run(
          'update identity set server_url = coalesce(?, server_url), server_key = coalesce(?, server_key), name = coalesce(?, name)',
          change.server_url ?? null,
          change.server_key ?? null,
          change.name ?? null,
        )
        if (changes === 0) throw new SealpostError('not_paired', 'this home holds no device')
      }),
    wipe: async (revocation) => {
      db.transaction(() => {
        db.run('delete from identity')
        db.run('update log set box = null, epoch_key = null')
        db.run(
          'update state set aside_items = 0, aside_bytes = 0, decided_items = decided_items + (select count(*) from outbox where state in (?, ?))',
          ITEM.pending,
          ITEM.set_aside,
        )
        db.run('update outbox set state = ?, code = ? where state in (?, ?)', ITEM.rejected, 'device_revoked', ITEM.pending, ITEM.set_aside)
        db.run('update outbox set data = null, record = null, device_seq = null, epoch = null, event_hash = null')
        db.run(
          'update state set trimmed_row = last_row, trimmed_position = max(trimmed_position, cursor_position), received_rows = 0, received_bytes = 0',
        )
        db.run('delete from received')
        if (revocation === null) db.run('delete from revocation')
        else
          db.run(
            'insert into revocation (one, revocation) values (1, ?) on conflict do update set revocation = excluded.revocation',
            JSON.stringify(revocation),
          )
      })
      db.scrub()
    },
    readRevocation: async () => {
      const row = db.guard(() => db.get('select revocation from revocation'))
      return row === undefined ? null : (parseText(path, text(row, 'revocation')) as Revocation)
    },
    readLog: async () =>
      db.guard(() => {
        const rows = db.all('select log_seq, entry_hash, body, sig, box, epoch_key, first_seen from log order by log_seq').map(toLogRow)
        const high = integer(db.get('select log_high from state'), 'log_high')
        if (rows.length !== high + 1 || rows.some((row, i) => row.log_seq !== i))
          throw damaged(path, 'entries of the device log are missing')
        return rows
      }),
    appendLog: async (rows) => db.transaction(() => appendLog(rows)),
    saveEpochKeys: async (keys) =>
      db.transaction(() => {
        for (const { log_seq, epoch_key } of keys) db.run('update log set epoch_key = ? where log_seq = ?', epoch_key, log_seq)
      }),
    readNote: async (key) => {
      const row = db.guard(() => db.get('select value from note where key = ?', key))
      return row === undefined ? undefined : parseText(path, text(row, 'value'))
    },
    writeNote: async (key, value) => {
      const json = JSON.stringify(value ?? null)
      if (json.length > NOTE_BYTES_MAX) throw new SealpostError('too_large', `a note has at most ${NOTE_BYTES_MAX} characters`)
      db.transaction(() =>
        db.run('insert into note (key, value) values (?, ?) on conflict do update set value = excluded.value', key, json),
      )
    },
  }

  function toIdentity(row: Row): Identity {
    return {
      user_id: text(row, 'user_id'),
      device_id: text(row, 'device_id'),
      name: text(row, 'name'),
      device_type: text(row, 'device_type') as Identity['device_type'],
      server_url: text(row, 'server_url'),
      server_key: key(row, 'server_key'),
      sign_seed: key(row, 'sign_seed'),
      kem_seed: key(row, 'kem_seed'),
      created_at: integer(row, 'created_at'),
    }
  }

  function key(row: Row, name: string): Bytes {
    const bytes = blob(row, name)
    if (bytes.length !== 32) throw damaged(path, 'a key has the wrong length')
    return bytes
  }
}

function toLogRow(row: Row): LogRow {
  return {
    log_seq: integer(row, 'log_seq'),
    entry_hash: blob(row, 'entry_hash'),
    body: blob(row, 'body'),
    sig: blob(row, 'sig'),
    box: blobOrNull(row, 'box'),
    epoch_key: blobOrNull(row, 'epoch_key'),
    first_seen: integer(row, 'first_seen'),
  }
}

function parseText(path: string, json: string): unknown {
  try {
    return JSON.parse(json)
  } catch (cause) {
    throw damaged(path, 'a note cannot be read', cause)
  }
}
