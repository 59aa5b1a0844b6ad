/** Verifies the audit log of a relay on this machine, with the rows as the relay gives them and its key as it is pinned here. */
import { type Bytes, fromBase64url, toBase64url } from '@sealpost/protocol'
import type { AuditFault, AuditHead, AuditRow } from '@sealpost/server'
import type { AdminClient } from './admin-client.ts'

type WireRow = Omit<AuditRow, 'user_hash' | 'hash'> & { user_hash: string | null; hash: string }
type WireEnds = { seq: number; hash: string; checkpoints: { seq: number; at: number; hash: string; sig: string }[] }

/** `head`: up to where it was verified, as `seq:hash`. */
export async function verifyAuditOf(
  client: AdminClient,
  witnesses: readonly AuditHead[],
): Promise<{ faults: AuditFault[]; rows: number; head: string }> {
  const { verifyAudit } = await import('@sealpost/server')
  const { seq, hash, checkpoints } = (await client.call('read_audit_head')) as WireEnds
  const key = (text: string): Bytes => fromBase64url(text, 32)
  async function* rows(): AsyncIterable<AuditRow> {
    for await (const row of client.all('list_audit', 'rows', { query: { order: 'oldest' } })) {
      const { user_hash, hash: own, ...rest } = row as WireRow
      // reading the log appends to it: what came after the head is for the next time
      if (rest.seq > seq) return
      yield { ...rest, user_hash: user_hash === null ? null : key(user_hash), hash: key(own) }
    }
  }
  const ends = {
    head: { seq, hash: key(hash) },
    checkpoints: checkpoints.map((one) => ({ ...one, hash: key(one.hash), sig: fromBase64url(one.sig, 64) })),
    server_key: client.server_key,
    witnesses,
  }
  const { faults, rows: count } = await verifyAudit(rows(), ends)
  return { faults, rows: count, head: `${seq}:${toBase64url(ends.head.hash)}` }
}
