/**
 * Chains: one per (device, stream), linked by `prev_hash` (protocol.md §3). Two walks over a page, both synchronous:
 * `splitRuns` before the signatures are checked, `createChainWalk` after.
 *
 * A run is a stretch of one chain inside a page whose links lead back from its last event: one signature, the last, vouches
 * for all of it. Invariant: along a chain `device_seq` rises and `epoch` never falls.
 */
import { type Bytes, equalBytes } from './bytes.ts'
import type { EventRecord } from './record.ts'

/** The last event of a chain that stood; `position` is where the server had it. */
export type ChainHead = { device_seq: number; event_hash: Bytes; epoch: number; position: number }

/** By `chainKey`. */
export type Chains = Map<string, ChainHead>

/** The chains as they stood, by `chainKey`: asked, never copied, however many there are. */
export type KnownChains = { get(key: string): ChainHead | undefined }

/**
 * Why events of a chain are not handed over. `expired`: their ttl is over. `retention`: the server removed them. `restart`: the
 * device began its chain anew. `unexplained`: events are missing and nothing says why; an alarm.
 */
export type GapReason = 'expired' | 'retention' | 'restart' | 'unexplained'

export type ChainFault = 'sequence_not_rising' | 'epoch_fell'

export function chainKey(record: { device_id: string; stream_id: string }): string {
  return `${record.device_id}/${record.stream_id}`
}

/** Runs of the records at `indices`, which ascend; each run as indices, in order. */
export function splitRuns(
  records: readonly EventRecord[],
  keys: readonly string[],
  hashes: readonly Bytes[],
  indices: readonly number[],
): number[][] {
  const runs: number[][] = []
  const open = new Map<string, { run: number[]; hash: Bytes }>()
  for (const index of indices) {
    const record = records[index]
    const key = keys[index]
    const hash = hashes[index]
    if (record === undefined || key === undefined || hash === undefined) continue
    const current = open.get(key)
    if (current !== undefined && isLinked(record, current.hash)) {
      current.run.push(index)
      current.hash = hash
    } else {
      const run = [index]
      runs.push(run)
      open.set(key, { run, hash })
    }
  }
  return runs
}

export type ChainStep = { is: 'fault'; reason: ChainFault } | { is: 'moved'; gap: { from_device_seq: number; reason: GapReason } | null }

export type ChainWalk = {
  /** Moves the chain to a verified record, or says why it may not. */
  step(record: EventRecord, key: string, event_hash: Bytes): ChainStep
  /** The heads this walk moved. */
  readonly moved: Chains
}

/** Walks verified records in their order on top of `chains`, which is not changed. `floor`: the server keeps nothing at or below it. */
export function createChainWalk(chains: KnownChains, floor: number): ChainWalk {
  const moved: Chains = new Map()
  return {
    moved,
    step(record, key, event_hash) {
      const head = moved.get(key) ?? chains.get(key)
      const fault = head === undefined ? null : findChainFault(head, record)
      if (fault !== null) return { is: 'fault', reason: fault }
      moved.set(key, { device_seq: record.device_seq, event_hash, epoch: record.epoch, position: record.server?.position ?? 0 })
      // without a known head the record is the anchor
      if (head === undefined || isLinked(record, head.event_hash)) return { is: 'moved', gap: null }
      return { is: 'moved', gap: { from_device_seq: head.device_seq + 1, reason: breakReason(record, head, floor) } }
    },
  }
}

function breakReason(record: EventRecord, head: ChainHead, floor: number): GapReason {
  if (record.prev_hash === null) return 'restart'
  // retention removes whole prefixes: a missing event lies above the head, so it can be among what went only when the head does too
  return head.position < floor ? 'retention' : 'unexplained'
}

function findChainFault(head: { device_seq: number; epoch: number }, record: EventRecord): ChainFault | null {
  if (record.device_seq <= head.device_seq) return 'sequence_not_rising'
  return record.epoch < head.epoch ? 'epoch_fell' : null
}

function isLinked(record: EventRecord, hash: Bytes): boolean {
  return record.prev_hash !== null && equalBytes(record.prev_hash, hash)
}
