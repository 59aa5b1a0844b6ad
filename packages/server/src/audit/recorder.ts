/**
 * The audit log of this process. `write` resolves when a row is on disk; who asks for something that has to leave a trace waits for it.
 * `note` is for what strangers can cause as often as they like: the same within a while is one row with a count, and what is more than
 * `ROWS_PER_MINUTE` different things is one row that says how many they were.
 *
 * Bound: `HELD_MAX` different things are held; while the database does not answer they wait, and what is more is counted.
 */
import type { Log } from '../telemetry/log.ts'
import type { AuditEntry } from './entry.ts'

export type Audit = {
  /** Throws `unavailable` when it cannot be written down. */
  write(entry: AuditEntry): Promise<void>
  note(entry: AuditEntry): void
  /** Writes down what was noted. */
  flush(): Promise<void>
  close(): Promise<void>
}

/** What the rows are appended to, in one transaction. */
export type AuditSink = { appendAudit(entries: readonly AuditEntry[]): Promise<void> }

const FLUSH_MS = 5_000
const MINUTE_MS = 60_000
const ROWS_PER_MINUTE = 120
const HELD_MAX = 1_024
/** One transaction. */
const BATCH = 60

export function createAudit(store: AuditSink, logger: Log): Audit {
  const held = new Map<string, { entry: AuditEntry; count: number }>()
  let lost = 0
  let left = ROWS_PER_MINUTE
  let flushing: Promise<void> = Promise.resolve()
  const timers = [setInterval(() => void flush(), FLUSH_MS), setInterval(() => (left = ROWS_PER_MINUTE), MINUTE_MS)]
  for (const timer of timers) timer.unref()

  function hold(key: string, entry: AuditEntry, count: number): void {
    const known = held.get(key)
    if (known !== undefined) known.count += count
    else if (held.size < HELD_MAX) held.set(key, { entry, count })
    else lost += count
  }

  async function writeHeld(): Promise<void> {
    for (let isLast = held.size === 0 && lost === 0; !isLast; ) {
      const all = [...held]
      const batch = all.slice(0, Math.min(BATCH, left))
      isLast = batch.length === left || batch.length === all.length
      // what does not fit into this minute any more is told as a number
      const rest = isLast ? all.slice(batch.length) : []
      const told = isLast ? rest.reduce((sum, [, { count }]) => sum + count, lost) : 0
      // what is noted while it is written is for the next time
      for (const [key] of [...batch, ...rest]) held.delete(key)
      if (isLast) lost = 0
      const entries = batch.map(([, { entry, count }]) => (count === 1 ? entry : { ...entry, detail: { ...entry.detail, count } }))
      try {
        await store.appendAudit(told === 0 ? entries : [...entries, overflow(told)])
      } catch (error) {
        for (const [key, { entry, count }] of batch) hold(key, entry, count)
        lost += told
        throw error
      }
      left -= batch.length
    }
  }
  function flush(): Promise<void> {
    flushing = flushing
      .then(writeHeld)
      .catch((error: unknown) => logger.warn({ err: error }, 'the audit log was not written; it is tried again'))
    return flushing
  }

  return {
    write: (entry) => store.appendAudit([entry]),
    note(entry) {
      const { actor, action, outcome, target = null, user_id = null, origin = null } = entry
      const key = JSON.stringify([actor, action, outcome, target, user_id, origin?.address ?? null])
      hold(key, entry, 1)
    },
    flush,
    async close() {
      for (const timer of timers) clearInterval(timer)
      await flush()
    },
  }
}

function overflow(count: number): AuditEntry {
  return { actor: 'server', action: 'audit_lost', outcome: 'done', detail: { count } }
}
