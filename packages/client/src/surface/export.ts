/**
 * Reading an export of the account (docs/export.md, B08): each event is verified as if the server had just sent it, each chain from
 * its own anchor, and opened with the keys of this device. Nothing of the file is believed: devices and epochs are those of the log that
 * this device has verified itself.
 *
 * Bound: `CHUNK` events at a time.
 */
import { type EventRecord, type Received, receivePage, recordFromJson, SealpostError } from '@sealpost/protocol'
import type { AccountLog } from '../log/account-log.ts'
import type { Home, Identity, StoredHead } from '../ports.ts'
import type { ServerClock } from '../connection/server-clock.ts'

/** `unknown_epoch`: of a device list that this device has not seen; connect it, then read the file again. */
export type ExportItem = Received | { is: 'unknown_epoch'; position: number; epoch: number }

const CHUNK = 256

/** Throws `invalid_message` for what is no export, `forbidden` for one of another account, and when its end is missing. */
export async function* openExport(
  home: Home,
  identity: Identity,
  account: AccountLog,
  time: ServerClock,
  lines: AsyncIterable<string>,
): AsyncGenerator<ExportItem> {
  const { user_id } = identity
  const chains = new Map<string, StoredHead>()
  const counts: Record<string, number> = {}
  let floor = 0
  let begun = false
  let ended = false
  let waiting: EventRecord[] = []

  async function* flush(): AsyncGenerator<ExportItem> {
    const records = waiting
    waiting = []
    if (records.length === 0) return
    const known = records.filter((record) => record.epoch <= account.log.log_seq)
    await account.openKeys(known.map((record) => record.epoch))
    const context = { user_id, log: account.log, epoch_key: (epoch: number) => account.epochKey(epoch), floor, now_ms: time.now() }
    const page = await receivePage(home.crypto, context, chains, known)
    for (const [key, head] of page.moved) chains.set(key, head)
    yield* page.items
    for (const record of records)
      if (record.epoch > account.log.log_seq) yield { is: 'unknown_epoch', position: record.server?.position ?? 0, epoch: record.epoch }
  }

  for await (const line of lines) {
    if (line === '') continue
    const { kind, ...row } = readLine(line)
    if (!begun && kind !== 'export') throw new SealpostError('invalid_message', 'this file is not an export of Sealpost')
    if (ended) throw new SealpostError('invalid_message', 'the export goes on behind its end')
    switch (kind) {
      case 'export':
        if (row['format'] !== 1) throw new SealpostError('unknown_version', 'this export was made by a newer version; update sealpost')
        if (row['user_id'] !== user_id) throw new SealpostError('forbidden', 'this is the export of another account')
        begun = true
        continue
      case 'end':
        if (JSON.stringify(sorted(row['counts'])) !== JSON.stringify(sorted(counts)))
          throw new SealpostError('invalid_message', 'the export does not hold what its end says')
        ended = true
        continue
      case 'account':
        if (typeof row['floor'] === 'number') floor = row['floor']
        break
      case 'event': {
        const { tombstone: _, ...event } = row
        waiting.push(recordFromJson(user_id, event))
        if (waiting.length >= CHUNK) yield* flush()
        break
      }
      default:
        break
    }
    counts[kind] = (counts[kind] ?? 0) + 1
  }
  yield* flush()
  if (!ended) throw new SealpostError('invalid_message', 'the export is cut: its end is missing')
}

function readLine(line: string): { kind: string; [name: string]: unknown } {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (cause) {
    throw new SealpostError('invalid_message', 'a line of the export is not JSON', { cause })
  }
  if (typeof value !== 'object' || value === null || !('kind' in value) || typeof value.kind !== 'string')
    throw new SealpostError('invalid_message', 'a line of the export does not say what it is')
  return value as { kind: string; [name: string]: unknown }
}

function sorted(counts: unknown): unknown {
  return typeof counts === 'object' && counts !== null ? Object.entries(counts).toSorted(([a], [b]) => (a < b ? -1 : 1)) : counts
}
