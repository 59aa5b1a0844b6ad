/**
 * The verified state of device logs. Entries are kept as they were signed, and folded by the protocol's verifier when an
 * account's log is needed; the states of the accounts used last are remembered and only brought up to date. Stored
 * entries never change, so reading them needs no lock. Bound: `ENTRIES_MAX` entries over all remembered logs.
 */
import { type Crypto, type DeviceLog, SealpostError, verifyEntry } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { ClientBase } from 'pg'

export type VerifiedLogs = {
  /** The log of an account as it is stored now; null when it has no entry. */
  load(client: ClientBase, user_no: number, user_id: string): Promise<DeviceLog | null>
  /** Takes over a state that was just committed. */
  remember(user_no: number, log: DeviceLog): void
}

const ENTRIES_MAX = 20_000
const PAGE = 200

const READ = {
  name: 'read_signed_entries',
  text: `select e.log_seq, e.body, e.sig from log_entry e
 where e.user_no = $1::int8 and e.log_seq >= $2::int8 order by e.log_seq limit ${PAGE}`,
}

const crypto: Crypto = nodeCrypto

export function createVerifiedLogs(): VerifiedLogs {
  const known = new Map<number, DeviceLog>()
  let entries = 0

  const remember = (user_no: number, log: DeviceLog): void => {
    entries += log.epochs.length - (known.get(user_no)?.epochs.length ?? 0)
    known.delete(user_no)
    known.set(user_no, log)
    for (const [oldest, { epochs }] of known) {
      if (entries <= ENTRIES_MAX || oldest === user_no) break
      known.delete(oldest)
      entries -= epochs.length
    }
  }

  return {
    remember,
    async load(client, user_no, user_id) {
      let log = known.get(user_no) ?? null
      for (;;) {
        const from = log === null ? 0 : log.log_seq + 1
        const { rows } = await client.query<{ body: Buffer; sig: Buffer }>({ ...READ, values: [user_no, from] })
        for (const { body, sig } of rows) {
          const verified = await verifyEntry(crypto, log, user_id, { body, sig })
          if (!verified.ok) throw new SealpostError('internal', 'a stored entry of the device log does not verify')
          log = verified.log
        }
        if (rows.length < PAGE) break
      }
      if (log !== null) remember(user_no, log)
      return log
    },
  }
}
