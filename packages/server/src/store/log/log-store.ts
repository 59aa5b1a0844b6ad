/** The device log and what is read by it (protocol.md §2, §5): appending, reading, signers, tips. */
import { type Bytes, CLIENT_HEAD_BYTES_MAX, clientHeadBytes, concat, FLAG, fromBase64url, LIMITS, uuidToBytes } from '@sealpost/protocol'
import type { ClientBase, Pool } from 'pg'
import type { LogStore, StoredEvent } from '../../ports/store.ts'
import { createAppendEntry, isDeleted } from './append-entry.ts'
import { int4Array, int8Array } from '../postgres/binary-array.ts'
import { withClient } from '../postgres/pool.ts'
import { ROOT_NO, readLogEntries } from './read-log.ts'

/** What fits a frame once it is base64url, with room for the head. */
const PAGE_BYTES = Math.floor(LIMITS.frameBytesMax / 2)
/** Events of a device looked at for its tips, newest first; who has more is revoked without pins. */
const TIPS_SCAN_MAX = 100_000
/** Payloads hashed by one statement: each has up to 256 KiB. */
const TIPS_HASHED = 50
const HASH_BYTES = 32
const PAYLOAD_LENGTH_BYTES = 4

const DEVICE_NO = {
  name: 'device_no',
  text: 'select d.device_no from device d where d.user_no = $1::int8 and d.device_id = $2::uuid',
}

const ROOT = { name: 'find_root', text: 'select a.user_no, a.active from account a where a.user_id = $1::bytea' }

const SIGNER = {
  name: 'find_signer',
  text: `select d.user_no, d.device_no, p.sign_pub, a.active and d.active as active
  from account a
  join device d on d.user_no = a.user_no and d.device_id = $2::uuid
  join device_profile p on p.user_no = d.user_no and p.device_no = d.device_no
 where a.user_id = $1::bytea`,
}

/** The outer join gives a row for a device without events as well. */
const TIPS = {
  name: 'find_tips',
  text: `select d.last_seq, t.position, t.looked_at
  from device d
  left join lateral (
    select max(x.position) as position, sum(count(*)) over ()::int8 as looked_at
      from (select e.position, e.stream_no from event e
             where e.user_no = d.user_no and e.device_no = d.device_no
             order by e.device_seq desc limit ${TIPS_SCAN_MAX}) x
     group by x.stream_no order by 1 desc limit ${LIMITS.tipsMax} + 1) t on true
 where d.user_no = $1::int8 and d.device_id = $2::uuid
 order by t.position`,
}

/** What stands before the payload, of tombstones all. */
const HEADS = {
  name: 'read_record_heads',
  text: `select e.position, e.stream_seq, e.received_at, e.device_no, e.device_seq, e.stream_no, e.flags,
       substring(e.record from 1 for ${CLIENT_HEAD_BYTES_MAX + HASH_BYTES}) as client
  from event e where e.user_no = $1::int8 and e.position = any($2::int8[]) order by e.position`,
}

/** A record that became a tombstone meanwhile ends with the hash. */
const PAYLOAD_HASHES = {
  name: 'hash_payloads',
  text: `select e.position, case when (e.flags & ${FLAG.tombstone}) = 0 then sha256(substring(e.record from x.first_byte))
       else substring(e.record from x.first_byte - ${PAYLOAD_LENGTH_BYTES}) end as payload_hash
  from unnest($2::int8[], $3::int4[]) x (position, first_byte)
  join event e on e.user_no = $1::int8 and e.position = x.position`,
}

type TipsRow = { last_seq: number; position: number | null; looked_at: number | null }

export function createLogStore(pool: Pool, devices_max: number): LogStore {
  return {
    appendEntry: createAppendEntry(pool, devices_max),
    async readEntries(user_no, recipient, from_log_seq, limit) {
      return withClient(pool, async (client) => {
        const recipient_no = recipient === 'root' ? ROOT_NO : await findDeviceNo(client, user_no, recipient)
        // a reader who is not there has no boxes: -1 is nobody's number
        return readLogEntries(client, user_no, recipient_no ?? -1, from_log_seq, limit, PAGE_BYTES)
      })
    },
    async findSigner(user_id, signer) {
      const key = Buffer.from(fromBase64url(user_id, 32))
      return withClient(pool, async (client) => {
        if (signer === 'root') {
          const row = (await client.query<{ user_no: number; active: boolean }>({ ...ROOT, values: [key] })).rows[0]
          return row === undefined ? null : { ...row, device_no: null, sign_pub: key }
        }
        type Row = { user_no: number; device_no: number; sign_pub: Bytes; active: boolean }
        return (await client.query<Row>({ ...SIGNER, values: [key, signer] })).rows[0] ?? null
      })
    },
    isDeleted: (user_id) => withClient(pool, (client) => isDeleted(client, Buffer.from(fromBase64url(user_id, 32)))),
    async readTips(user_no, device_id) {
      uuidToBytes(device_id)
      return withClient(pool, async (client) => {
        const { rows } = await client.query<TipsRow>({ ...TIPS, values: [user_no, device_id] })
        const first = rows[0]
        if (first === undefined) return null
        const positions = rows.flatMap((row) => row.position ?? [])
        const complete = positions.length <= LIMITS.tipsMax && (first.looked_at ?? 0) < TIPS_SCAN_MAX
        const records = await readTombstones(client, user_no, positions.slice(-LIMITS.tipsMax))
        return { last_device_seq: first.last_seq, complete, records }
      })
    },
  }
}

async function findDeviceNo(client: ClientBase, user_no: number, device_id: string): Promise<number | null> {
  const { rows } = await client.query<{ device_no: number }>({ ...DEVICE_NO, values: [user_no, device_id] })
  return rows[0]?.device_no ?? null
}

/** As tombstones: the payloads are hashed where they are. */
async function readTombstones(client: ClientBase, user_no: number, positions: readonly number[]): Promise<StoredEvent[]> {
  const { rows } = await client.query<StoredEvent>({ ...HEADS, values: [user_no, int8Array(positions)] })
  const whole = rows.filter(({ flags }) => (flags & FLAG.tombstone) === 0)
  const hashes = new Map<number, Bytes>()
  for (let at = 0; at < whole.length; at += TIPS_HASHED) {
    const some = whole.slice(at, at + TIPS_HASHED)
    const firsts = some.map((row) => clientHeadBytes(row.flags, row.client) + PAYLOAD_LENGTH_BYTES + 1)
    const values = [user_no, int8Array(some.map(({ position }) => position)), int4Array(firsts)]
    const answer = await client.query<{ position: number; payload_hash: Bytes }>({ ...PAYLOAD_HASHES, values })
    for (const { position, payload_hash } of answer.rows) hashes.set(position, payload_hash)
  }
  return rows.flatMap((row): StoredEvent[] => {
    if ((row.flags & FLAG.tombstone) !== 0) return [row]
    const hash = hashes.get(row.position)
    // retention was faster
    if (hash === undefined) return []
    const head = row.client.subarray(0, clientHeadBytes(row.flags, row.client))
    return [{ ...row, flags: row.flags | FLAG.tombstone, client: concat(head, hash) }]
  })
}
