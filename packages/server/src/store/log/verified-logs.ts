/**
 * The verified state of device logs. Entries are kept as they were signed, and folded by the protocol's verifier when an
 * account's log is needed; the states of the accounts used last are remembered and only brought up to date. Stored
 * entries never change, so reading them needs no lock; a restored database has other ones, which is noticed. Bound: `ENTRIES_MAX` entries over all remembered logs.
 */
import { type Bytes, type Crypto, type DeviceLog, equalBytes, SealpostError, verifyEntries } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import type { ClientBase } from 'pg'

export type VerifiedLogs = {
  /** The log of an account, at least as far as its row says; null when it has no entry. */
  load(client: ClientBase, account: LogPlace, user_id: string): Promise<DeviceLog | null>
  /** Takes over a state that was just committed. */
  remember(user_no: number, log: DeviceLog): void
}

export type LogPlace = { user_no: number; log_seq: number; log_head: Bytes }

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

  const forget = (user_no: number): void => {
    entries -= known.get(user_no)?.epochs.length ?? 0
    known.delete(user_no)
  }

  return {
    remember,
    async load(client, account, user_id) {
      const { user_no } = account
      const remembered = known.get(user_no) ?? null
      forget(user_no)
      const base = remembered !== null && remembered.log_seq <= account.log_seq ? remembered : null
      let log = await readOn(client, user_no, user_id, base)
      // restored to another past: from the start
      if (base !== null && (log === null || !agrees(log, account))) log = await readOn(client, user_no, user_id, null)
      if (log !== null) remember(user_no, log)
      return log
    },
  }
}

/** `log` and all entries after it; null when one of them does not follow. */
async function readOn(client: ClientBase, user_no: number, user_id: string, from: DeviceLog | null): Promise<DeviceLog | null> {
  let log = from
  for (;;) {
    const { rows } = await client.query<{ body: Buffer; sig: Buffer }>({ ...READ, values: [user_no, log === null ? 0 : log.log_seq + 1] })
    const verified = await verifyEntries(crypto, log, user_id, rows)
    if (verified?.ok === false) return from === null ? damaged() : null
    log = verified?.log ?? log
    if (rows.length < PAGE) return log
  }
}

/** The row may be older than the entries that were read after it. */
function agrees(log: DeviceLog, { log_seq, log_head }: LogPlace): boolean {
  const epoch = log.epochs[log_seq]
  return epoch !== undefined && equalBytes(epoch.entry_hash, log_head)
}

function damaged(): never {
  throw new SealpostError('internal', 'a stored entry of the device log does not verify')
}
