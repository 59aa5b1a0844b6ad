/**
 * The mailboxes of pairing (protocol.md §10): four sealed slots that live ten minutes by the database's clock. A slot is
 * filled once: its primary key decides between two that come at the same time; the same bytes from the same hand are a success. The relay can read nothing of it.
 */
import { LIMITS, SealpostError } from '@sealpost/protocol'
import type { Pool } from 'pg'
import type { PairingStore } from '../../ports/store.ts'
import { withClient, withTransaction } from '../postgres/pool.ts'

/** A mailbox that has expired and was not swept yet gives way. */
const CREATE = {
  name: 'create_mailbox',
  text: `insert into pairing as p (mailbox_id, user_no, device_no, expires_at) values ($1::text, $2::int8, $3::int4, clock_ms() + $4::int8)
  on conflict (mailbox_id) do nothing`,
}

const DROP_EXPIRED = { name: 'drop_mailbox', text: 'delete from pairing p where p.mailbox_id = $1::text and p.expires_at <= clock_ms()' }

const FIND = {
  name: 'find_mailbox',
  text: 'select p.user_no, p.device_no from pairing p where p.mailbox_id = $1::text and p.expires_at > clock_ms() for key share',
}

const FILL = {
  name: 'fill_slot',
  text: 'insert into pairing_slot (mailbox_id, slot, box) values ($1::text, $2::text, $3::bytea) on conflict (mailbox_id, slot) do nothing',
}

const FILLED = {
  name: 'filled_slot',
  text: `select s.box = $3::bytea as same from pairing_slot s where s.mailbox_id = $1::text and s.slot = $2::text`,
}

const READ = {
  name: 'read_slot',
  text: `select s.box from pairing p join pairing_slot s on s.mailbox_id = p.mailbox_id
 where p.mailbox_id = $1::text and s.slot = $2::text and p.expires_at > clock_ms()`,
}

const SWEEP = {
  name: 'sweep_mailboxes',
  text: `delete from pairing where mailbox_id in (
  select p.mailbox_id from pairing p where p.expires_at <= clock_ms() order by p.expires_at limit $1::int4 for update skip locked)`,
}

const SWEEP_ASSERTIONS = {
  name: 'sweep_assertions',
  text: `delete from assertion where jti_hash in (
  select a.jti_hash from assertion a where a.expires_at <= clock_ms() order by a.expires_at limit $1::int4 for update skip locked)`,
}

export function createPairingStore(pool: Pool): PairingStore {
  return {
    async putSlot(mailbox_id, slot, box, creator) {
      if (box.length > LIMITS.pairingSlotBytesMax) throw new SealpostError('too_large', 'a slot holds 4 KiB')
      if (slot !== 'join' && creator === null) return 'forbidden'
      return withTransaction(pool, async (client) => {
        if (slot === 'offer' && creator !== null) {
          await client.query({ ...DROP_EXPIRED, values: [mailbox_id] })
          await client.query({ ...CREATE, values: [mailbox_id, creator.user_no, creator.device_no, LIMITS.pairingMs] })
        }
        const owner = (await client.query<{ user_no: number; device_no: number }>({ ...FIND, values: [mailbox_id] })).rows[0]
        if (owner === undefined) return 'not_found'
        if (slot !== 'join' && (owner.user_no !== creator?.user_no || owner.device_no !== creator.device_no))
          return slot === 'offer' ? 'slot_taken' : 'forbidden'
        const values = [mailbox_id, slot, Buffer.from(box)]
        if ((await client.query({ ...FILL, values })).rowCount === 1) return 'ok'
        const { rows } = await client.query<{ same: boolean }>({ ...FILLED, values })
        return rows[0]?.same === true ? 'ok' : 'slot_taken'
      })
    },
    async readSlot(mailbox_id, slot) {
      const { rows } = await withClient(pool, (client) => client.query<{ box: Buffer }>({ ...READ, values: [mailbox_id, slot] }))
      return rows[0]?.box ?? null
    },
    async sweepExpired(limit) {
      return withClient(pool, async (client) => {
        const mailboxes = await client.query({ ...SWEEP, values: [limit] })
        const assertions = await client.query({ ...SWEEP_ASSERTIONS, values: [limit] })
        return (mailboxes.rowCount ?? 0) + (assertions.rowCount ?? 0)
      })
    },
  }
}
