/**
 * How often entries come into a device log (protocol.md §2). The devices of an account append 30 an hour together, counted from the
 * last entry of the root on: a recovery shuts all of them out, and what they had used up with them. The root is counted by itself, so
 * that no device can use up what the owner comes back with. A revocation is neither counted nor refused: each takes an active device
 * away, so there are never more of them than devices that were added.
 */
import { type DeviceLog, LIMITS, type LogBody } from '@sealpost/protocol'
import type { ClientBase } from 'pg'

const HOUR_MS = 3_600_000

const UNTIL_OLD = {
  name: 'until_entry_is_old',
  text: `select e.stored_at + ${HOUR_MS} - clock_ms() as ms from log_entry e where e.user_no = $1::int8 and e.log_seq = $2::int8`,
}

/** How long the entry has to wait to be the next one of `log`, in ms; 0 = it may come now. */
export async function waitForTurn(client: ClientBase, user_no: number, log: DeviceLog, body: LogBody): Promise<number> {
  if (body.type === 'revoke_device') return 0
  const first = firstCounted(log, body.signer === 'root')
  if (first === null) return 0
  const { rows } = await client.query<{ ms: number }>({ ...UNTIL_OLD, values: [user_no, first] })
  return Math.max(0, rows[0]?.ms ?? 0)
}

/** The first of the newest entries that count, when there are as many as an hour may have; it has to be an hour old. */
function firstCounted(log: DeviceLog, byRoot: boolean): number | null {
  const revokedBy = new Map<number, string>()
  for (const { revoked } of log.devices.values()) if (revoked !== null) revokedBy.set(revoked.log_seq, revoked.by)
  let counted = 0
  for (let log_seq = log.log_seq; log_seq >= 0; log_seq--) {
    const by = log_seq === 0 ? 'root' : revokedBy.get(log_seq)
    if (by === 'root' && !byRoot) return null
    if (byRoot ? by === 'root' : by === undefined) counted += 1
    if (counted === LIMITS.logEntriesPerHour) return log_seq
  }
  return null
}
