/**
 * What is removed, and when (protocol.md §3). Events become tombstones when their time to live is over or a rule of their
 * stream takes them; whole prefixes of a user's positions are removed by age, or because all users together have too much.
 * The state is in the database alone: a run that was cut short is continued by the next, on any node.
 *
 * Bounds: a batch of the store at a time; accounts are walked in pages; the sizes of all accounts, 8 bytes each, are held
 * while the total is judged.
 */
import { setTimeout as wait } from 'node:timers/promises'
import type { AccountBatch, AdminStore, AccountDue, PairingStore, RetentionRules, RetentionStore, TokenStore } from '../ports/store.ts'
import type { Job, JobResult, JobTurn } from './schedule.ts'
import { waterLevel } from './water-level.ts'

export type SweptStore = RetentionStore &
  Pick<PairingStore, 'sweepExpired'> &
  Pick<TokenStore, 'sweepTokens'> &
  Pick<AdminStore, 'sweepInvites'>

/** What ends by itself. */
const EXPIRY_EVERY_MS = 60_000
/** What is found by a walk over all accounts. */
const WALK_EVERY_MS = 300_000
const ROWS_MAX = 500
const PAGE_ACCOUNTS = 500
/** An account that others hold is asked for so many times in a run. */
const TRIES = 5
const HELD_MS = 20

export function createRetentionJobs(store: SweptStore, rules: RetentionRules): Job[] {
  const { age_ms, tombstone_ms, streams, stream_bytes, bytes, revoked_ms } = rules
  const jobs: Job[] = [
    { name: 'expired_rows', every_ms: EXPIRY_EVERY_MS, run: (turn) => sweepRows(store, turn) },
    { name: 'expired_events', every_ms: EXPIRY_EVERY_MS, run: (turn) => sweepEvents(store, turn) },
  ]
  const walk = (name: string, run: Job['run']): void => void jobs.push({ name, every_ms: WALK_EVERY_MS, run })
  if (streams.length > 0 || stream_bytes !== null)
    walk('old_in_streams', (turn) =>
      walkAccounts(
        turn,
        (after) => store.findRuledAccounts(after, PAGE_ACCOUNTS, streams, stream_bytes),
        (user_no) => store.sweepStreams(user_no, streams, stream_bytes),
      ),
    )
  if (age_ms !== null || tombstone_ms !== null)
    walk('old_events', (turn) =>
      walkAccounts(
        turn,
        (after) => store.findAgedAccounts(after, PAGE_ACCOUNTS, rules),
        (user_no) => store.removePrefix(user_no, { age_ms, tombstone_ms, bytes: null }),
      ),
    )
  if (bytes !== null) walk('largest_accounts', (turn) => shrinkLargest(store, bytes, turn))
  if (revoked_ms !== null) walk('revoked_devices', (turn) => clearRevoked(store, revoked_ms, turn))
  return jobs
}

/** Mailboxes, remembered assertions, families of refresh tokens, invites. */
async function sweepRows(store: SweptStore, turn: JobTurn): Promise<JobResult> {
  let rows = 0
  for (const sweep of [store.sweepExpired, store.sweepTokens, store.sweepInvites]) {
    for (let swept = ROWS_MAX; swept >= ROWS_MAX && turn.wanted(); rows += swept) swept = await turn.batch(() => sweep(ROWS_MAX))
  }
  return { rows }
}

async function sweepEvents(store: SweptStore, turn: JobTurn): Promise<JobResult> {
  const result = { rows: 0, bytes: 0 }
  let skipped = 0
  for (let after = 0; turn.wanted(); ) {
    const batch = await turn.batch(() => store.sweepExpiredEvents(after))
    if (batch.is === 'taken') return { ...result, left: 'taken' }
    if (batch.last === null) break
    result.rows += batch.rows
    result.bytes += batch.bytes
    skipped += batch.skipped
    // what was done is not found again; what was not would be, for ever
    if (batch.skipped > 0 || batch.rows === 0) after = batch.last
  }
  return skipped > 0 ? { ...result, left: 'held' } : result
}

/** Goes through all accounts by number, and works on those that are due until nothing is left to do. */
async function walkAccounts(
  turn: JobTurn,
  find: (after: number) => Promise<AccountDue[]>,
  work: (user_no: number) => Promise<AccountBatch>,
): Promise<JobResult> {
  const result: JobResult & { bytes: number } = { rows: 0, bytes: 0 }
  for (let after = 0; turn.wanted(); ) {
    const from = after
    const page = await turn.batch(() => find(from))
    for (const { user_no, due } of page) {
      if (!due || !turn.wanted()) continue
      const left = await workOff(turn, () => work(user_no), result)
      if (left === 'taken') return { ...result, left }
      if (left === 'held') result.left = left
    }
    const last = page.at(-1)
    if (last === undefined) break
    after = last.user_no
  }
  return result
}

async function workOff(
  turn: JobTurn,
  work: () => Promise<AccountBatch>,
  result: { rows: number; bytes: number },
): Promise<'done' | 'taken' | 'held'> {
  for (let tries = 0; turn.wanted(); ) {
    const batch = await turn.batch(work)
    if (batch.is === 'taken') return 'taken'
    if (batch.is === 'held') {
      if (++tries >= TRIES) return 'held'
      await wait(HELD_MS)
      continue
    }
    result.rows += batch.rows
    result.bytes += batch.bytes
    if (!batch.more) return 'done'
  }
  return 'done'
}

/** The largest accounts lose their oldest events, down to one level, until all together fit. */
async function shrinkLargest(store: SweptStore, total: number, turn: JobTurn): Promise<JobResult> {
  const level = waterLevel(await readSizes(store, turn), total)
  if (level === null || !turn.wanted()) return { rows: 0 }
  return walkAccounts(
    turn,
    async (after) => (await store.readSizes(after, PAGE_ACCOUNTS)).map(({ user_no, bytes }) => ({ user_no, due: bytes > level })),
    (user_no) => store.removePrefix(user_no, { age_ms: null, tombstone_ms: null, bytes: level }),
  )
}

async function readSizes(store: SweptStore, turn: JobTurn): Promise<Float64Array> {
  let sizes = new Float64Array(PAGE_ACCOUNTS)
  let count = 0
  for (let after = 0; turn.wanted(); ) {
    const from = after
    const page = await turn.batch(() => store.readSizes(from, PAGE_ACCOUNTS))
    for (const { bytes } of page) {
      if (count === sizes.length) {
        const wider = new Float64Array(2 * count)
        wider.set(sizes)
        sizes = wider
      }
      sizes[count++] = bytes
    }
    const last = page.at(-1)
    if (last === undefined) break
    after = last.user_no
  }
  return sizes.subarray(0, count)
}

async function clearRevoked(store: SweptStore, older_ms: number, turn: JobTurn): Promise<JobResult> {
  let rows = 0
  for (let after: { user_no: number; device_no: number } | null = { user_no: 0, device_no: 0 }; after !== null && turn.wanted(); ) {
    const from: { user_no: number; device_no: number } = after
    const batch = await turn.batch(() => store.clearRevoked(older_ms, from))
    if (batch.is === 'taken') return { rows, left: 'taken' }
    rows += batch.rows
    after = batch.next
  }
  return { rows }
}
