/**
 * The chain of the audit log, and who finds what was done to it: a changed row, a gap, a row put in, a cut at either end. Pure, so that the
 * command verifies what a server says of itself with the same code. The database makes the same hashes (sql/functions/append_audit.sql).
 *
 *   hash = SHA-256(tuple("audit", hash before, seq, at, actor, action, outcome, target, request_id, address, detail, user_hash))
 *
 * A checkpoint is `{seq, at, hash, sig}`, `sig = Ed25519(server key, tuple("audit checkpoint", seq, at, hash))`. What is left after
 * retention begins behind one. A cut that takes head and checkpoints along shows against a head that was kept elsewhere.
 */
import { type Bytes, equalBytes, tuple } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'

export type AuditRow = {
  seq: number
  at: number
  actor: string
  action: string
  outcome: string
  target: string | null
  request_id: string | null
  address: string | null
  detail: string | null
  user_hash: Bytes | null
  hash: Bytes
}

export type AuditHead = { seq: number; hash: Bytes }
export type AuditCheckpoint = AuditHead & { at: number; sig: Bytes }

export type AuditFault = { seq: number; is: 'changed' | 'gap' | 'cut' | 'checkpoint' | 'witness'; says: string }

const BEGINNING: AuditHead = { seq: 0, hash: new Uint8Array(32) }

export function hashAuditRow(before: Bytes, row: Omit<AuditRow, 'hash'>): Bytes {
  const { seq, at, actor, action, outcome, target, request_id, address, detail, user_hash } = row
  return nodeCrypto.sha256(tuple('audit', before, seq, at, actor, action, outcome, target, request_id, address, detail, user_hash))
}

export function checkpointBytes({ seq, at, hash }: Omit<AuditCheckpoint, 'sig'>): Bytes {
  return tuple('audit checkpoint', seq, at, hash)
}

export type AuditEnds = {
  head: AuditHead
  checkpoints: readonly AuditCheckpoint[]
  /** Ed25519 public key of the server, from elsewhere than the log. */
  server_key: Bytes
  /** Heads that were kept elsewhere: the log must still hold them. */
  witnesses?: readonly AuditHead[]
}

/** All that is wrong, in order; empty when the log holds. Reads the rows once, oldest first. */
export async function verifyAudit(rows: AsyncIterable<AuditRow>, ends: AuditEnds): Promise<{ faults: AuditFault[]; rows: number }> {
  const faults: AuditFault[] = []
  const fault = (seq: number, is: AuditFault['is'], says: string): void => void faults.push({ seq, is, says })
  const checkpoints = new Map<number, AuditCheckpoint>()
  for (const checkpoint of ends.checkpoints) {
    if (nodeCrypto.ed25519Verify(ends.server_key, checkpointBytes(checkpoint), checkpoint.sig)) checkpoints.set(checkpoint.seq, checkpoint)
    else fault(checkpoint.seq, 'checkpoint', 'the signature of the checkpoint does not hold')
  }
  const witnesses = new Map((ends.witnesses ?? []).map((witness) => [witness.seq, witness]))
  let before: AuditHead | null = null
  let count = 0

  function pass(at: AuditHead): void {
    const checkpoint = checkpoints.get(at.seq)
    if (checkpoint !== undefined && !equalBytes(checkpoint.hash, at.hash))
      fault(at.seq, 'checkpoint', 'the log is not what the checkpoint signed')
    const witness = witnesses.get(at.seq)
    if (witness !== undefined && !equalBytes(witness.hash, at.hash))
      fault(at.seq, 'witness', 'the log is not what it was when this head was kept')
    checkpoints.delete(at.seq)
    witnesses.delete(at.seq)
  }

  for await (const row of rows) {
    count += 1
    before ??= begin(row.seq)
    if (row.seq !== before.seq + 1) fault(before.seq + 1, 'gap', `rows ${before.seq + 1} to ${row.seq - 1} are missing`)
    else if (!equalBytes(hashAuditRow(before.hash, row), row.hash)) fault(row.seq, 'changed', 'the row was changed, or put in')
    before = { seq: row.seq, hash: row.hash }
    pass(before)
  }
  const last = before ?? begin(ends.head.seq + 1)
  if (last.seq !== ends.head.seq) fault(last.seq + 1, 'cut', `the log ends at ${last.seq}, and should at ${ends.head.seq}`)
  else if (!equalBytes(last.hash, ends.head.hash)) fault(last.seq, 'cut', 'the last row is not the one that was appended last')
  for (const seq of checkpoints.keys()) if (seq > last.seq) fault(seq, 'cut', 'a checkpoint signed rows that are not there')
  for (const seq of witnesses.keys()) if (seq > last.seq) fault(seq, 'witness', 'the log ended later when this head was kept')
  return { faults, rows: count }

  /** Where what is left begins: at the first row of all, or behind a checkpoint. */
  function begin(first: number): AuditHead {
    const start = first <= 1 ? BEGINNING : (checkpoints.get(first - 1) ?? null)
    if (start !== null) {
      pass(start)
      return start
    }
    fault(first, 'cut', 'the log does not begin at its first row, nor behind a checkpoint')
    return { seq: first - 1, hash: new Uint8Array(32) }
  }
}
